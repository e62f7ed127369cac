"""Fetches the recordings of calls from where a platform says that they are.

That is another host mostly: a storage, or the provider of the calls. Whoever answers for the platform could name any
address there. So nothing of the connection's credentials goes along, and no address of a private network is asked but
the connection's own host.
"""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, urlsplit

from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.exceptions import InvalidReplyError
from airflow_provider_testruns.hooks.connection import Settings
from airflow_provider_testruns.steps import Call, Response, ask
from airflow_provider_testruns.transport.auth import FixedHeaders
from airflow_provider_testruns.transport.policy import Session

#: The endings of files that a recording may have; else it is said to be the usual one.
_ENDINGS = frozenset({".wav", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".flac", ".webm", ".mp4"})


def ending_of(url: str) -> str:
    """The ending of a recording's file name."""
    try:
        ending = PurePosixPath(urlsplit(url).path).suffix.lower()
    except ValueError:
        ending = ""
    return ending if ending in _ENDINGS else ".wav"


def download(url: str, save_to: Path, settings: Settings, *, most: int) -> None:
    """Write a recording to a local file.

    :param url: where the platform says that it is.
    :param save_to: the file.
    :param settings: of the connection that it comes from.
    :param most: how large it may be, in bytes.
    :raises InvalidReplyError: when it is where nothing is fetched from, or no recording.
    :raises ApiError: when it is unavailable.
    """
    own = urlsplit(settings.base_url).hostname or ""
    place = _checked(url, own)

    from airflow_provider_testruns.transport.blocking import BlockingClient
    from airflow_provider_testruns.transport.tls import Tls

    # A signature in it is as good as a key.
    secrets = (place.query,) if place.query else ()
    session = Session(
        settings.conn_id,
        f"{place.scheme}://{place.netloc}",
        FixedHeaders({}, ()),
        "host",
        settings.timeout,
        max_file_size=max(0, most),
    )
    call = Call(
        "get a recording",
        "GET",
        (place.path or "/") + (f"?{place.query}" if place.query else ""),
        _read,
        save_to=save_to,
        headers={"Accept": "*/*"},
        secrets=secrets,
    )
    # What the connection trusts and shows is for its own host.
    tls = settings.tls if place.hostname == own else Tls()
    with BlockingClient(session, tls=tls) as client:
        client.run(ask(call))


def _read(response: Response) -> None:
    kind = response.headers.get("content-type", "")
    # A sign-in page or a gateway's answer comes as a 200 too.
    if re.match(r"\s*(text/|application/(json|xml)\b)", kind, re.IGNORECASE):
        raise InvalidReplyError(f"the recording should be audio, and is {clean(kind, 60)}")


def _checked(url: str, own: str) -> SplitResult:
    """A recording's address, if it is one that may be asked.

    :param own: the connection's host.
    """
    try:
        place = urlsplit(url)
        host, port = place.hostname, place.port
    except ValueError:
        raise InvalidReplyError("the URL of a recording is invalid") from None
    if (
        place.scheme not in ("http", "https")
        or not host
        or place.username is not None
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        raise InvalidReplyError("the URL of a recording is not HTTP or HTTPS, or contains credentials")
    if host == own:
        return place
    if place.scheme != "https":
        raise InvalidReplyError(f"a recording is at {clean(host, 100)}, without HTTPS: it is not downloaded")
    for address in _addresses(host, port or 443):
        if not ip_address(address.partition("%")[0]).is_global:
            raise InvalidReplyError(
                f"a recording is at {clean(host, 100)} ({address}), which is neither a public host nor that of the"
                " connection: it is not downloaded"
            )
    return place


def _addresses(host: str, port: int) -> list[str]:
    """The addresses of a host; none where only a proxy can find them."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]
