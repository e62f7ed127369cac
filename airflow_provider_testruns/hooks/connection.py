"""Reading an Airflow connection. Nothing outside :mod:`..hooks` does."""

from __future__ import annotations

import os
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_testruns.exceptions import ConfigurationError

_DEFAULT_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The fields of one connection, checked.

    :param conn_id: its id, for messages.
    :param base_url: scheme, name, port and path, without a slash at the end.
    :param login: the login field, empty when it is not filled in.
    :param password: the password field, empty when it is not filled in.
    :param extra: the extras.
    :param verify: whether certificates are checked, or the path of a CA bundle.
    :param timeout: seconds for one request.
    """

    conn_id: str
    base_url: str
    login: str = ""
    password: str = field(default="", repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    verify: bool | str = True
    timeout: float = _DEFAULT_TIMEOUT

    @classmethod
    def read(cls, conn: Any, extra: Mapping[str, Any], *, default_host: str = "") -> Settings:
        """Read and check what every platform's connection has.

        :param conn: the Airflow connection.
        :param extra: its extras; given beside it since reading them differs between worker and triggerer.
        :param default_host: the base URL when the connection names none.
        :raises ConfigurationError: naming the field, what was given, and what to do.
        """
        conn_id = str(conn.conn_id)
        settings = cls(
            conn_id=conn_id,
            base_url=_base_url(conn, default_host),
            login=_clean(conn_id, "login", conn.login),
            password=_clean(conn_id, "password", conn.password),
            extra=extra,
            verify=_verify(conn_id, extra.get("verify")),
            timeout=_timeout(conn_id, extra.get("timeout")),
        )
        return settings

    def text(self, name: str, default: str = "") -> str:
        """An extra that is a text; ``default`` when it is not filled in.

        :raises ConfigurationError: when it is anything else.
        """
        value = self.extra.get(name)
        if value is None or value == "":
            return default
        if not isinstance(value, str):
            raise self.problem(name, f"must be a text, got {type(value).__name__}.")
        return _clean(self.conn_id, name, value) or default

    def choice(self, name: str, allowed: Iterable[str], default: str = "") -> str:
        """An extra that is one of some words; ``default`` when it is not filled in.

        :raises ConfigurationError: when it is none of them.
        """
        value = self.text(name, default)
        known = tuple(allowed)
        if value and value not in known:
            raise self.problem(name, f"must be one of {', '.join(known)}, got {value!r}.")
        return value

    def url(self, name: str) -> str:
        """An extra that is a whole URL, without a slash at the end; empty when it is not filled in.

        :raises ConfigurationError: when it is not one.
        """
        value = self.text(name)
        return _checked_url(self.conn_id, name, value).rstrip("/") if value else ""

    def template(self, name: str, allowed: Iterable[str]) -> str:
        """An extra that is a text with ``{names}`` to fill in; empty when it is not filled in.

        :raises ConfigurationError: when it holds a name that is not known.
        """
        value = self.text(name)
        known = tuple(allowed)
        try:
            # Plain names only: format() would also look into attributes, and pad to any width.
            for _, found, width, conversion in string.Formatter().parse(value):
                if found is not None and (found not in known or width or conversion):
                    raise KeyError(found)
        except (KeyError, ValueError) as e:
            names = ", ".join(f"{{{item}}}" for item in known)
            raise self.problem(name, f"may hold {names} and nothing else in braces, got {value!r}.") from e
        return value

    def required(self, value: str, name: str, hint: str) -> str:
        """``value``, which must be filled in.

        :raises ConfigurationError: when it is empty.
        """
        if not value:
            raise self.problem(name, f"is empty. {hint}")
        return value

    def problem(self, name: str, what: str) -> ConfigurationError:
        """The error of one field."""
        return ConfigurationError(f"Connection {self.conn_id!r}: {name} {what}")


def _base_url(conn: Any, default_host: str) -> str:
    conn_id = str(conn.conn_id)
    host = (conn.host or "").strip()
    schema = (conn.schema or "").strip().strip("/")
    port = conn.port
    if not host:
        if not default_host:
            raise ConfigurationError(
                f"Connection {conn_id!r}: host is empty. Fill in the platform's address with its scheme, such as"
                " https://dai.example.com:8000."
            )
        host, schema, port = default_host, "", None
    if "://" not in host:
        # The form of connection URIs: the scheme in the schema field, as Airflow's HTTP connections have it.
        is_scheme = schema.lower() in ("http", "https")
        host = f"{schema.lower() if is_scheme else 'https'}://{host}"
        schema = "" if is_scheme else schema
    elif schema.lower() in ("http", "https"):
        schema = ""
    url = _checked_url(conn_id, "host", host)
    parts = urlsplit(url)
    netloc = parts.netloc
    if port and parts.port is None:
        if not 0 < port < 65536:
            raise ConfigurationError(f"Connection {conn_id!r}: port must be 1 to 65535, got {port!r}.")
        netloc = f"{netloc}:{port}"
    path = "/".join(part for part in (parts.path.strip("/"), schema) if part)
    return f"{parts.scheme}://{netloc}" + (f"/{path}" if path else "")


def _checked_url(conn_id: str, name: str, value: str) -> str:
    value = _clean(conn_id, name, value)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    usable = parts.scheme in ("http", "https") and parts.hostname and not any(c.isspace() for c in value)
    if not usable or port == 0:
        raise ConfigurationError(
            f"Connection {conn_id!r}: {name} must be an http or https address such as https://dai.example.com:8000,"
            f" got {_without_secrets(value)!r}."
        )
    if parts.username or parts.password:
        raise ConfigurationError(
            f"Connection {conn_id!r}: {name} must not hold a user or password; the fields login and password do."
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(
            f"Connection {conn_id!r}: {name} must end with the path, without '?' or '#' and what follows; got"
            f" {_without_secrets(value)!r} before it."
        )
    return value


def _without_secrets(value: str) -> str:
    """An address that is not as it should be, without what may be a password or a key in it."""
    return value.split("?", 1)[0].split("#", 1)[0].rsplit("@", 1)[-1]


def _clean(conn_id: str, name: str, value: Any) -> str:
    text = "" if value is None else str(value).strip()
    if not text.isprintable():
        raise ConfigurationError(
            f"Connection {conn_id!r}: {name} holds a line break or another character that can't be printed, likely"
            " from copying; enter it again."
        )
    return text


def _verify(conn_id: str, value: Any) -> bool | str:
    if value is None or value == "":
        return True
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip()
        if word.lower() in ("true", "false"):
            return word.lower() == "true"
        if os.path.exists(word):
            return word
        raise ConfigurationError(
            f"Connection {conn_id!r}: verify must be true, false or the path of a CA bundle; there is no file"
            f" {word!r} on this machine. Workers, triggerer and API server each need it."
        )
    raise ConfigurationError(
        f"Connection {conn_id!r}: verify must be true, false or the path of a CA bundle, got {value!r}."
    )


def _timeout(conn_id: str, value: Any) -> float:
    if value is None or value == "":
        return _DEFAULT_TIMEOUT
    try:
        seconds = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = float("nan")
    if not 1 <= seconds <= 600:
        raise ConfigurationError(
            f"Connection {conn_id!r}: timeout must be 1 to 600 seconds for one request, got {value!r}."
        )
    return seconds
