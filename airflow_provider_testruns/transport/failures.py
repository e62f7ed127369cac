"""What went wrong on the wire, in the same words whichever library it went wrong in.

The messages of requests, urllib3 and aiohttp are about their own insides; what people need is in the exceptions of the
standard library beneath them.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
from collections.abc import Iterator

from airflow_provider_testruns.transport.effects import WireError

#: What a header line may hold, in bytes, and how many there may be; http.client's own limits.
MAX_LINE = 65_536
MAX_HEADERS = 100

#: A header's name.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: OpenSSL's words for a certificate of ours that the other side does not take, or misses.
_OUR_CERTIFICATE = ("CERTIFICATE_REQUIRED", "ALERT_BAD_CERTIFICATE", "ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE")
_BROKEN_OFF = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLSyscallError,
)


def connect_timeout() -> WireError:
    """No connection in time."""
    return WireError("no connection within the time allowed", sent=False)


def reply_timeout() -> WireError:
    """A connection, and no whole response in time."""
    return WireError("no complete reply within the time allowed", sent=True)


def unusable_url() -> WireError:
    """A URL that no request can be made for."""
    return WireError("the address is not usable", sent=False)


def no_connection(error: BaseException, *, tls: bool, proxy: bool = False) -> WireError:
    """A connection that could not be made; nothing was sent.

    :param error: what the library raised.
    :param tls: whether TLS was to be spoken.
    :param proxy: whether it was to go through a proxy.
    """
    failure = tls_failure(error, sent=False)
    if failure is not None:
        return failure
    beneath = tuple(chain(error))
    if any(isinstance(found, TimeoutError) for found in beneath):
        return connect_timeout()
    if tls and any(isinstance(found, _BROKEN_OFF) or type(found) is ssl.SSLError for found in beneath):
        return WireError("TLS failed: the other side closed the connection in the handshake", sent=False)
    where = "no connection through the proxy of the environment" if proxy else "no connection"
    about = "proxy" if proxy else ""
    for found in beneath:
        if isinstance(found, socket.gaierror):
            return WireError(f"{where} ({found.strerror or 'the name is not known'})", sent=False, about=about)
        if isinstance(found, OSError) and found.errno is not None and found.errno > 0:
            return WireError(f"{where} ({os.strerror(found.errno)})", sent=False, about=about)
    return WireError(where, sent=False, about=about)


def proxy_refused(status: int | None) -> WireError:
    """A proxy that did not open a tunnel."""
    said = f"it answered HTTP {status}" if status is not None else "it did not answer as a proxy does"
    return WireError(f"no connection through the proxy of the environment ({said})", sent=False, about="proxy")


def lost(error: BaseException) -> WireError:
    """A connection that broke after something may have been sent."""
    return tls_failure(error, sent=True) or WireError("the connection was lost before a whole response came", sent=True)


def not_http() -> WireError:
    """What came is no HTTP response."""
    return WireError(
        f"what came is not a valid HTTP response (or has a header of more than {MAX_LINE} bytes, or more than"
        f" {MAX_HEADERS} of them)",
        sent=True,
    )


def tls_failure(error: BaseException, *, sent: bool) -> WireError | None:
    """What TLS itself says about an error; ``None`` when it is none of TLS.

    :param error: what the library raised.
    :param sent: whether something of the request may have been sent.
    """
    for found in chain(error):
        if type(found).__module__ != "ssl":
            # aiohttp has children of these that hold nothing.
            continue
        if isinstance(found, ssl.SSLCertVerificationError):
            said = (found.verify_message or found.reason or "").rstrip(".")
            return WireError(f"TLS failed: certificate verify failed: {said}", sent=sent, about="verify")
        if isinstance(found, ssl.SSLError) and not isinstance(found, _BROKEN_OFF):
            reason = found.reason or ""
            if not reason or "UNEXPECTED_EOF" in reason:
                # Not TLS has said something, but the connection has gone.
                continue
            words = reason.replace("_", " ").lower()
            ours = any(part in reason for part in _OUR_CERTIFICATE)
            return WireError(f"TLS failed: {words}", sent=sent, about="cert" if ours else "")
    return None


def is_malformed(error: BaseException) -> bool:
    """Whether http.client found what is not HTTP."""
    return any(
        isinstance(found, http.client.HTTPException)
        and not isinstance(found, http.client.RemoteDisconnected | http.client.IncompleteRead)
        for found in chain(error)
    )


def check_head(lines: list[bytes]) -> None:
    """Check the header lines of a response as strictly as aiohttp's parser does.

    :param lines: all of them, with the empty one at the end.
    :raises HTTPException: when they are no HTTP.
    """
    if not lines or lines[-1] not in (b"\r\n", b"\n"):
        raise http.client.IncompleteRead(b"")
    lengths: list[bytes] = []
    encoded = False
    for line in lines[:-1]:
        text = line.rstrip(b"\r\n")
        if b"\0" in text or b"\r" in text:
            raise http.client.HTTPException("a header with a character that none may hold")
        if line[:1] in (b" ", b"\t"):
            # The value of the line before goes on.
            continue
        name, colon, value = text.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            raise http.client.HTTPException("a header without a name")
        if name.lower() == b"content-length":
            lengths.append(value.strip())
        encoded = encoded or name.lower() == b"transfer-encoding"
    if len(lengths) > 1 or (lengths and encoded):
        raise http.client.HTTPException("two lengths")
    if lengths and not (lengths[0].isdigit() and len(lengths[0]) < 19):
        raise http.client.HTTPException("a length that is no number")


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that are beneath it: causes, contexts, and those that libraries keep as attributes."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        found = todo.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        todo += [getattr(found, name, None) for name in ("os_error", "certificate_error", "reason")]
        todo += [*found.args, found.__cause__, found.__context__]
