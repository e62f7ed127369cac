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

from airflow_provider_testruns.transport.effects import NetworkError

#: What a header line may hold, in bytes, with its end, and how many there may be: http.client's own limits, which count
#: the blank line, too.
MAX_LINE = 65_536
MAX_HEADERS = 99
#: How many there may be in what is no response yet, and after the last chunk; aiohttp's own limit.
MAX_OTHER_HEADERS = 128

#: The first line of a response, and one that is whole; so much of one as there is may be completed by the end of it.
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}( [^\r\n]*)?\r?\n")
_A_STATUS_LINE = b"HTTP/1.1 200 \r\n"
#: The line before a chunk.
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(;[^\r\n]*)?\r\n")
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


def connect_timeout() -> NetworkError:
    """No connection in time."""
    return NetworkError("no connection within the time allowed", sent=False)


def response_timeout() -> NetworkError:
    """A connection, and no whole response in time."""
    return NetworkError("no complete response within the time allowed", sent=True)


def unusable_url() -> NetworkError:
    """A URL that no request can be made for."""
    return NetworkError("the URL is not usable", sent=False)


def no_connection(error: BaseException, *, tls: bool, proxy: bool = False) -> NetworkError:
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
        return NetworkError("TLS failed: the other side closed the connection in the handshake", sent=False)
    where = "no connection through the proxy of the environment" if proxy else "no connection"
    about = "proxy" if proxy else ""
    for found in beneath:
        if isinstance(found, socket.gaierror):
            return NetworkError(f"{where} ({found.strerror or 'unknown host name'})", sent=False, about=about)
        if isinstance(found, OSError) and found.errno is not None and found.errno > 0:
            return NetworkError(f"{where} ({os.strerror(found.errno)})", sent=False, about=about)
    return NetworkError(where, sent=False, about=about)


def proxy_refused(status: int | None) -> NetworkError:
    """A proxy that did not open a tunnel."""
    said = f"it answered HTTP {status}" if status is not None else "it did not answer as a proxy does"
    return NetworkError(f"no connection through the proxy of the environment ({said})", sent=False, about="proxy")


def lost(error: BaseException) -> NetworkError:
    """A connection that broke after something may have been sent."""
    return tls_failure(error, sent=True) or NetworkError(
        "the connection was lost before the response was complete", sent=True
    )


def not_http() -> NetworkError:
    """What came is no HTTP response."""
    return NetworkError(
        f"the response is not valid HTTP (or has a header of more than {MAX_LINE} bytes, or more than"
        f" {MAX_HEADERS} of them)",
        sent=True,
    )


def tls_failure(error: BaseException, *, sent: bool) -> NetworkError | None:
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
            return NetworkError(f"TLS failed: certificate verify failed: {said}", sent=sent, about="verify")
        if isinstance(found, ssl.SSLError) and not isinstance(found, _BROKEN_OFF):
            reason = found.reason or ""
            if not reason or "UNEXPECTED_EOF" in reason:
                # Not TLS has said something, but the connection has gone.
                continue
            words = reason.replace("_", " ").lower()
            ours = any(part in reason for part in _OUR_CERTIFICATE)
            return NetworkError(f"TLS failed: {words}", sent=sent, about="cert" if ours else "")
    return None


def is_malformed(error: BaseException) -> bool:
    """Whether http.client found what is not HTTP."""
    return any(
        isinstance(found, http.client.HTTPException)
        and not isinstance(found, http.client.RemoteDisconnected | http.client.IncompleteRead)
        for found in chain(error)
    )


def check_status_line(line: bytes) -> None:
    """Check the first line of a response as strictly as aiohttp's parser does.

    :param line: with its end.
    :raises http.client.HTTPException: when it is no HTTP/1.
    """
    if _STATUS_LINE.fullmatch(line):
        return
    if not line.endswith(b"\n") and _STATUS_LINE.fullmatch(line + (_A_STATUS_LINE[len(line) :] or b"\n")):
        raise http.client.IncompleteRead(line)
    raise http.client.BadStatusLine("no HTTP")


def check_head(lines: list[bytes]) -> None:
    """Check the header lines of a response as strictly as aiohttp's parser does.

    :param lines: all of them, with the empty one at the end.
    :raises http.client.HTTPException: when they are no HTTP.
    """
    if not lines or lines[-1] not in (b"\r\n", b"\n"):
        raise http.client.IncompleteRead(b"")
    headers: list[list[bytes]] = []
    for line in lines[:-1]:
        text = line.rstrip(b"\r\n")
        if b"\0" in text or b"\r" in text:
            raise http.client.HTTPException("a header with an invalid character")
        if line[:1] in (b" ", b"\t"):
            # The value of the previous line continues.
            if headers:
                headers[-1][1] += text
            continue
        name, colon, value = text.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            raise http.client.HTTPException("a header without a name")
        headers.append([name.lower(), value])
    lengths = [value.strip() for name, value in headers if name == b"content-length"]
    encodings = [value.strip() for name, value in headers if name == b"transfer-encoding"]
    names = [name for name, _ in headers if name in (b"content-length", b"transfer-encoding")]
    # An empty encoding is none to that parser, unless it comes after a length.
    encoded = any(encodings) or (encodings and names[0] == b"content-length")
    if len(lengths) > 1 or (lengths and encoded):
        raise http.client.HTTPException("two lengths")
    if lengths and not (lengths[0].isdigit() and len(lengths[0]) < 19):
        raise http.client.HTTPException("a length that is no number")


def chunk_size(line: bytes) -> int:
    """The length of a chunk, by the line before it, read as strictly as aiohttp's parser does.

    :raises http.client.HTTPException: when it is none.
    """
    found = _CHUNK.fullmatch(line)
    if found is not None:
        return int(found[1], 16)
    if not line.endswith(b"\n") and _CHUNK.fullmatch((line.rstrip(b"\r") or b"0") + b"\r\n"):
        raise http.client.IncompleteRead(line)
    raise http.client.HTTPException("a chunk without a length")


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
