"""Reading an Airflow connection. Nothing outside :mod:`..hooks` does."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_testruns import limits
from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.transport.tls import Tls, TlsFileError

_DEFAULT_TIMEOUT = 30.0
#: A number of bytes: 500000000, "500 MB", "1.5GB".
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)\s*(B|[KMGT]B)?", re.IGNORECASE)
#: How many there may be of something.
_COUNT = re.compile(r"[1-9]\d{0,5}", re.ASCII)
_UNITS = {"": 1, "B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
#: A scheme that lost a character: "https:/host", "https//host", "http:host".
_NEARLY_A_SCHEME = re.compile(r"https?[:;/\\]", re.IGNORECASE)
#: A host that is written out: a name or an address, with or without a port.
_HOST = re.compile(r"(\[[0-9a-f:.]+(%[\w.-]+)?\]|[\w.-]+)(:\d{1,5})?", re.IGNORECASE)


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
    :param cert: the path of a client certificate, empty for none.
    :param key: the path of its private key, empty when ``cert`` holds it.
    :param max_file_size: the largest file that is downloaded, in bytes.
    :param max_requests_per_minute: how many requests a process sends in any minute, ``None`` for any number.
    :param max_starts_at_once: how many runs a process starts at the same time, ``None`` for any number.
    """

    conn_id: str
    base_url: str
    login: str = ""
    password: str = field(default="", repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    verify: bool | str = True
    timeout: float = _DEFAULT_TIMEOUT
    cert: str = ""
    key: str = ""
    max_file_size: int = limits.FILE_SIZE
    max_requests_per_minute: int | None = None
    max_starts_at_once: int | None = None

    @classmethod
    def read(cls, conn: Any, extra: Mapping[str, Any] | None, *, default_host: str = "") -> Settings:
        """Read and check what every platform's connection has.

        :param conn: the Airflow connection.
        :param extra: its extras; given beside it since reading them differs between worker and triggerer.
        :param default_host: the base URL when the connection names none.
        :raises ConfigurationError: naming the field, what was given, and what to do.
        """
        conn_id = str(conn.conn_id)
        check_extra(conn)
        extra = extra or {}
        settings = cls(
            conn_id=conn_id,
            base_url=_base_url(conn, default_host),
            login=_clean(conn_id, "login", conn.login),
            password=_clean(conn_id, "password", conn.password),
            extra=extra,
            verify=_verify(conn_id, extra.get("verify")),
            timeout=_timeout(conn_id, extra.get("timeout")),
            cert=_text(conn_id, "cert", extra.get("cert")),
            key=_text(conn_id, "key", extra.get("key")),
            max_file_size=_max_file_size(conn_id, extra.get("max_file_size")),
            max_requests_per_minute=_count(conn_id, "max_requests_per_minute", extra.get("max_requests_per_minute")),
            max_starts_at_once=_count(conn_id, "max_starts_at_once", extra.get("max_starts_at_once")),
        )
        return settings

    @property
    def tls(self) -> Tls:
        """What is trusted and shown over TLS."""
        return Tls(self.verify, self.cert, self.key)

    def check_tls(self) -> None:
        """Read the CA bundle and the client certificate, before any request.

        :raises ConfigurationError: naming the field whose file can't be used.
        """
        try:
            self.tls.context()
        except TlsFileError as e:
            raise self.problem(e.field, e.problem) from e

    def warnings(self) -> Iterator[str]:
        """What is allowed and should be known."""
        if self.verify is False:
            yield (
                f"Connection {self.conn_id!r}: verify is false, so the server's certificate is not verified: anyone"
                " on the network path can read and change everything, including the credentials. Use a CA bundle"
                " instead."
            )
        for name, url in (("host", self.base_url), ("auth_url", self.text("auth_url"))):
            parts = urlsplit(url)
            if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
                yield (
                    f"Connection {self.conn_id!r}: {name} is http://, so the credentials are sent to"
                    f" {parts.hostname} in clear. Use https://."
                )

    def text(self, name: str, default: str = "") -> str:
        """An extra that is a text; ``default`` when it is not filled in. A number, or true or false, is the text that
        it was in a connection's URI.

        :raises ConfigurationError: when it is anything else.
        """
        return _text(self.conn_id, name, self.extra.get(name)) or default

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
        """An extra that is an http or https URL with ``{names}`` to fill in; empty when it is not filled in.

        Its host is ``{base_url}``'s or a fixed one, whatever is filled in.

        :raises ConfigurationError: when it holds a name that is not known, or could lead elsewhere.
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
            raise self.problem(name, f"may hold {names} and nothing else in braces; got {value!r}.") from e
        if value and not _leads_to_a_fixed_host(value):
            base = "{base_url}, or " if "base_url" in known else ""
            raise self.problem(
                name,
                f"must begin with {base}http:// or https:// and a literal host name, without a user, a space or a"
                f" backslash; then a slash and the rest. Got {_without_secrets(value)!r}.",
            )
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


def check_extra(conn: Any) -> None:
    """Check that a connection's extras are a JSON object, or nothing. Airflow itself takes anything else too, or
    passes over it with a line in the log.

    :param conn: the Airflow connection.
    :raises ConfigurationError: when they are not.
    """
    raw = getattr(conn, "extra", None)
    if not isinstance(raw, str) or not raw.strip():
        return
    try:
        kind = type(json.loads(raw))
    except (ValueError, RecursionError):
        # Not what they are: there may be a secret in them.
        what = "not JSON"
    else:
        if kind in (dict, type(None)):
            return
        what = "a " + {str: "text", list: "list", bool: "true or false"}.get(kind, "number")
    raise ConfigurationError(
        f"Connection {str(conn.conn_id)!r}: extra must be a JSON object such as"
        f' {{"verify": true}}, or empty; it is {what}.'
    )


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
        if _NEARLY_A_SCHEME.match(host):
            raise _no_url(conn_id, "host", host)
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
    if any(character in "?#\\" or character.isspace() for character in schema):
        raise ConfigurationError(
            f"Connection {conn_id!r}: schema must be empty, http, https, or the path of the address; got"
            f" {_without_secrets(schema)!r}."
        )
    path = "/".join(part for part in (parts.path.strip("/"), _clean(conn_id, "schema", schema)) if part)
    return f"{parts.scheme}://{netloc}" + (f"/{path}" if path else "")


def _checked_url(conn_id: str, name: str, value: str) -> str:
    value = _with_brackets(_clean(conn_id, name, value))
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    usable = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.netloc.rpartition("@")[2])
    if usable and _is_half_an_address(parts.hostname or ""):
        raise ConfigurationError(
            f"Connection {conn_id!r}: {name} must have a name, or an IPv4 address of four numbers from 0 to 255; got"
            f" {_without_secrets(value)!r}."
        )
    if not usable or port == 0 or "\\" in value or any(c.isspace() for c in value):
        raise _no_url(conn_id, name, value)
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"Connection {conn_id!r}: {name} must not contain a user or password; use the fields login and password."
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(
            f"Connection {conn_id!r}: {name} must end with the path, without '?' or '#' and what follows; got"
            f" {_without_secrets(value)!r} before it."
        )
    return value


def _no_url(conn_id: str, name: str, value: str) -> ConfigurationError:
    return ConfigurationError(
        f"Connection {conn_id!r}: {name} must be an http or https URL such as https://dai.example.com:8000,"
        f" got {_without_secrets(value)!r}."
    )


def _with_brackets(url: str) -> str:
    """A URL whose host is an IPv6 address as a connection's URI leaves it: without the brackets."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    try:
        ipaddress.IPv6Address(authority)
    except ValueError:
        return url
    return f"{scheme}{separator}[{authority}]{slash}{path}"


def _leads_to_a_fixed_host(template: str) -> bool:
    rest = template.removeprefix("{base_url}")
    if rest != template:
        # Anything else right after it would be a part of the host, or make a user of it.
        return rest[:1] in ("", "/", "?", "#") and not any(c == "\\" or c.isspace() for c in rest)
    try:
        parts = urlsplit(template)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and port != 0
        and _HOST.fullmatch(parts.netloc) is not None
        and not any(c == "\\" or c.isspace() for c in template)
    )


def _is_half_an_address(host: str) -> bool:
    """Whether it is all numbers and no IPv4 address: "127.1" is one to some libraries, and to others none."""
    if not host.replace(".", "").isdigit():
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _without_secrets(value: str) -> str:
    """An address that is not as it should be, without what may be a password or a key in it."""
    return value.split("?", 1)[0].split("#", 1)[0].rsplit("@", 1)[-1]


def _clean(conn_id: str, name: str, value: Any) -> str:
    text = "" if value is None else str(value).strip()
    if not text.isprintable():
        raise ConfigurationError(
            f"Connection {conn_id!r}: {name} contains a line break or another unprintable character, probably from"
            " copying. Enter it again."
        )
    return text


def _text(conn_id: str, name: str, value: Any) -> str:
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, int | float):
        value = str(value)
    elif value is not None and not isinstance(value, str):
        raise ConfigurationError(f"Connection {conn_id!r}: {name} must be a string, got {type(value).__name__}.")
    return _clean(conn_id, name, value)


def _verify(conn_id: str, value: Any) -> bool | str:
    if value is None or value == "":
        return True
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip()
        # 1 and 0 are what connection URIs often have.
        if word.lower() in ("true", "false", "1", "0"):
            return word.lower() in ("true", "1")
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


def _count(conn_id: str, name: str, value: Any) -> int | None:
    if value is None or value == "":
        return None
    found = _COUNT.fullmatch(str(value).strip()) if isinstance(value, int | str) else None
    if found is None or isinstance(value, bool):
        raise ConfigurationError(
            f"Connection {conn_id!r}: {name} must be a number from 1 to 999999, or empty for no limit;"
            f" got {str(value)[:60]!r}."
        )
    return int(found[0])


def _max_file_size(conn_id: str, value: Any) -> int:
    if value is None or value == "":
        return limits.FILE_SIZE
    found = _SIZE.fullmatch(str(value).strip()) if isinstance(value, int | float | str) else None
    size = 0 if found is None or isinstance(value, bool) else float(found[1]) * _UNITS[(found[2] or "").upper()]
    if not 1 <= size <= 1024**5:
        raise ConfigurationError(
            f"Connection {conn_id!r}: max_file_size must be a size such as '500 MB' or '2 GB', or a number of bytes;"
            f" got {str(value)[:60]!r}."
        )
    return int(size)
