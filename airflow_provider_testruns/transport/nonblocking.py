"""Drives flows with aiohttp, in the triggerer. The only module that imports it."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi

from airflow_provider_testruns import __version__
from airflow_provider_testruns.platforms.call import Reply, Sleep, Steps
from airflow_provider_testruns.redaction import ClientSecrets
from airflow_provider_testruns.transport.effects import (
    MAX_REPLY,
    Flow,
    Renew,
    ReplyTooLargeError,
    Request,
    WireError,
)
from airflow_provider_testruns.transport.policy import Session, Tally
from airflow_provider_testruns.transport.proxies import proxy_secrets

T = TypeVar("T")

#: Connections of one client, however many runs are waited for through it.
MAX_CONNECTIONS = 8


class AsyncClient:
    """Carries a session's flows with aiohttp, many at a time over a few connections. Belongs to one event loop.

    :param session: the connection's way to its platform.
    :param verify: as in requests: whether certificates are checked, or the path of a CA bundle.
    """

    def __init__(
        self,
        session: Session,
        *,
        verify: bool | str = True,
    ) -> None:
        self.session = session
        self._verify = verify
        self._http: aiohttp.ClientSession | None = None
        self._context: ssl.SSLContext | None = None
        self._proxies: dict[tuple[str, str], str | None] = {}
        self._proxy_secrets = ClientSecrets(proxy_secrets())
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)
        self._opening = asyncio.Lock()
        self._renewal = asyncio.Lock()

    async def run(self, steps: Steps[T], until: float | None = None, tally: Tally | None = None) -> T:
        """Carry steps to their end.

        :param steps: what to do.
        :param until: no request may last much beyond this time (wall-clock seconds).
        :param tally: counts what it costs.
        :raises ApiError: as the steps do.
        """
        return await self._drive(self.session.carry(steps, until, tally))

    async def close(self) -> None:
        """Close the connections. The client can be used again; it opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()
        self.session.auth.known.release()
        self._proxy_secrets.release()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _drive(self, flow: Flow[T]) -> T:
        value: Any = None
        error: Exception | None = None
        try:
            while True:
                try:
                    effect = flow.throw(error) if error else flow.send(value)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                value, error = None, None
                try:
                    if isinstance(effect, Request):
                        value = await self._send(effect)
                    elif isinstance(effect, Sleep):
                        await asyncio.sleep(effect.seconds)
                    elif isinstance(effect, Renew):
                        async with self._renewal:
                            await self._drive(self.session.renewing(effect.stale))
                except Exception as e:  # whatever it is, the flow decides what it means
                    error = e
        finally:
            flow.close()

    async def _send(self, request: Request) -> Reply:
        if request.upload is not None or request.save_to is not None:
            raise NotImplementedError("Files are moved by workers, not by the triggerer.")
        # What the library raises holds the request, with its headers, and maybe a proxy's password: it does not get
        # into the chain of our own error, which Airflow logs as a traceback.
        error: WireError
        # Waiting for one of the few connections must not count, so the time is not left to aiohttp.
        async with self._connections:
            http = self._http or await self._open()
            try:
                async with asyncio.timeout(request.timeout):
                    proxy = await self._proxy_for(request.url)
                    if not request.fresh:
                        return await self._exchange(http, request, proxy)
                    async with self._new_http() as own:
                        return await self._exchange(own, request, proxy)
            except aiohttp.ClientConnectorCertificateError as e:
                error = WireError(f"TLS failed: {e.certificate_error}", sent=False, certificate=True)
            except aiohttp.ClientConnectorError as e:
                error = WireError(f"no connection ({_reason(e.os_error)})", sent=False)
            except aiohttp.ConnectionTimeoutError:
                error = WireError("no connection within the time allowed", sent=False)
            except TimeoutError:
                error = WireError("no complete reply within the time allowed", sent=True)
            except (aiohttp.InvalidURL, UnicodeError) as e:
                error = WireError(f"the address is not usable ({e})", sent=False)
            except (aiohttp.ClientError, OSError) as e:
                error = WireError(f"the connection was lost ({str(e) or type(e).__name__})", sent=True)
        try:
            raise error
        finally:
            # Else the error and this frame keep each other alive.
            del error

    async def _exchange(self, http: aiohttp.ClientSession, request: Request, proxy: str | None) -> Reply:
        connect = min(10.0, request.timeout * 0.9)
        async with http.request(
            request.method,
            request.url,
            headers=request.headers,
            data=request.body,
            proxy=proxy,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect),
        ) as response:
            body = await self._receive(response)
            return Reply(response.status, {key.lower(): value for key, value in response.headers.items()}, body)

    async def _receive(self, response: aiohttp.ClientResponse) -> bytes:
        length = response.content_length
        if length is not None and length > MAX_REPLY:
            response.close()
            raise ReplyTooLargeError
        if length is not None and "Content-Encoding" not in response.headers:
            return await response.read()
        parts: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > MAX_REPLY:
                response.close()
                raise ReplyTooLargeError
            parts.append(chunk)
        return b"".join(parts)

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._http is None:
                if self._context is None:
                    # Reading a CA bundle takes tens of milliseconds: not in the event loop.
                    self._context = await asyncio.to_thread(_ssl_context, self._verify)
                self._http = self._new_http()
                self._proxy_secrets.hold()
            return self._http

    def _new_http(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=self._context or True, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"airflow-provider-testruns/{__version__}"},
        )

    async def _proxy_for(self, url: str) -> str | None:
        """The proxy of the environment, which can differ between the platform and its token endpoint."""
        scheme, _, rest = url.partition("://")
        origin = (scheme, rest.partition("/")[0])
        if origin not in self._proxies:
            self._proxies[origin] = await asyncio.to_thread(_proxy_for, url)
        return self._proxies[origin]


def _reason(error: OSError) -> str:
    # asyncio puts words of its own in the place of "Connection refused"; name resolution has negative numbers.
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _ssl_context(verify: bool | str) -> ssl.SSLContext:
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if verify is True:
        verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()
    if os.path.isdir(verify):
        return ssl.create_default_context(capath=verify)
    return ssl.create_default_context(cafile=verify)


def _proxy_for(url: str) -> str | None:
    """The proxy of the environment for a host. Not aiohttp's ``trust_env``: that reads .netrc for each request."""
    parts = urlsplit(url)
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)
