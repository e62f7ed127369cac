"""The proxy that the environment has for a URL: one answer for both clients, by the rules that requests goes by."""

from __future__ import annotations

import os
import socket
import struct
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from airflow_provider_testruns.transport.effects import NetworkError


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy of the environment.

    :param url: its URL, without credentials.
    :param credentials: user name and password, ``None`` when the environment has none.
    """

    url: str
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def authorization(self) -> str | None:
        """The header ``Proxy-Authorization``, as requests makes it; ``None`` without credentials."""
        if self.credentials is None:
            return None
        return "Basic " + b64encode(":".join(self.credentials).encode("latin-1", "replace")).decode()

    @property
    def whole_url(self) -> str:
        """The URL with the credentials, as requests takes them. Never for a message."""
        if self.credentials is None:
            return self.url
        user, password = (quote(part, safe="") for part in self.credentials)
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{user}:{password}@{rest}"


def proxy_for(url: str) -> Proxy | None:
    """The proxy for a URL, by ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``; ``None`` for none.

    aiohttp's own reading of the environment knows neither ``ALL_PROXY`` nor networks and ports in ``NO_PROXY``, and a
    worker and the triggerer that go different ways do not reach the same platform.

    :param url: what is to be requested.
    :raises NetworkError: when the environment names a proxy that can't be one.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
        port = parts.port
    except ValueError:
        return None
    if host is None or _bypassed(host, port):
        return None
    proxies = getproxies()
    for key in (f"{parts.scheme}://{host}", parts.scheme, f"all://{host}", "all"):
        if proxies.get(key):
            return _read(proxies[key].strip(), f"{key}_proxy")
    return None


def proxy_secrets() -> Iterator[str]:
    """The passwords in ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY``, as they are written and as they are sent."""
    for url in getproxies().values():
        try:
            password = urlsplit(url if "://" in url else f"//{url}").password
        except ValueError:
            continue
        if password:
            yield password
            yield unquote(password)


def _read(value: str, variable: str) -> Proxy:
    given = value if "://" in value else "http://" + value.removeprefix("//")
    try:
        parts = urlsplit(given)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme.startswith("socks"):
        raise NetworkError(
            f"the proxy in the environment variable {variable} is a SOCKS proxy, which is not supported: use an http"
            " or https proxy, or list the platform's host in no_proxy",
            sent=False,
            about="proxy",
        )
    # "http:/host" is none that is called http.
    torn = "://" not in value and host in ("http", "https")
    if parts.scheme not in ("http", "https") or not host or torn or port == 0 or any(c.isspace() for c in given):
        # What it is, is not said: there may be a password in it.
        raise NetworkError(
            f"the proxy in the environment variable {variable} is not an http or https URL", sent=False, about="proxy"
        )
    name = f"[{host}]" if ":" in host else host
    credentials = None
    # As requests has it: a user without a password is not sent.
    if parts.username is not None and parts.password is not None:
        credentials = unquote(parts.username), unquote(parts.password)
    return Proxy(f"{parts.scheme}://{name}" + (f":{port}" if port else ""), credentials)


def _bypassed(host: str, port: int | None) -> bool:
    """Whether ``NO_PROXY`` names a host: its name, the end of its name, with or without a port, ``*``; for an IPv4
    address also a network (``10.0.0.0/8``)."""
    no_proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name for name in no_proxy.replace(" ", "").split(",") if name]
    address = _ipv4(host)
    if address is not None:
        for name in names:
            network = _network(name)
            if network is None:
                if host == name:
                    return True
            elif address & network[1] == network[0] & network[1]:
                return True
    else:
        with_port = f"{host}:{port}" if port else host
        for name in names:
            name = name.lstrip(".")
            if name in (host, with_port) or host.endswith("." + name) or with_port.endswith("." + name):
                return True
    try:
        # The standard library's rules, which on macOS and Windows are the system's settings too.
        return bool(proxy_bypass(host))
    except (TypeError, OSError):
        return False


def _ipv4(text: str) -> int | None:
    try:
        number: int = struct.unpack("!L", socket.inet_aton(text))[0]
    except (OSError, ValueError):
        return None
    return number


def _network(text: str) -> tuple[int, int] | None:
    base, slash, bits = text.partition("/")
    address = _ipv4(base)
    if not slash or address is None or not bits.isdecimal() or not 1 <= int(bits) <= 32:
        return None
    return address, (0xFFFFFFFF << (32 - int(bits))) & 0xFFFFFFFF
