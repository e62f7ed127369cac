"""The passwords of the environment's proxies, which are secrets like those of the connection."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies


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
