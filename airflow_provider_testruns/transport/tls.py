"""What both clients trust and show over TLS: one context for requests and aiohttp, made before any request."""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import NoReturn

import certifi

#: The largest file of certificates that is read, in bytes: a bundle of all public roots has 0.3 MB.
_MAX_FILE = 16 * 1024 * 1024
#: How many contexts are kept. Each takes 0.6 MB, and a process seldom has more connections than these at work.
_KEPT = 8
#: How OpenSSL names a certificate in a folder: by the hash of its subject.
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")

_contexts: OrderedDict[tuple[object, ...], ssl.SSLContext] = OrderedDict()
#: Re-entrant: a signal handler may open a client in the middle of another.
_lock = RLock()


class TlsFileError(Exception):
    """A file of certificates or a key that can't be used.

    :param field: the connection's extra, or the environment variable, that names it.
    :param problem: what is wrong with it, for people.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class _EncryptedKeyError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Tls:
    """A connection's TLS settings.

    :param verify: whether certificates are checked, or the path of a CA bundle: a PEM file, or a folder that
        ``openssl rehash`` has prepared. With ``True`` it is that of ``REQUESTS_CA_BUNDLE`` or ``CURL_CA_BUNDLE``, or
        certifi's.
    :param cert: the path of a client certificate (PEM), empty for none. It may be followed by its chain, and hold
        the key too.
    :param key: the path of its private key (PEM, not encrypted), empty when ``cert`` holds it.
    """

    verify: bool | str = True
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """The context for it, read from the disk once and again when a file has changed.

        :raises TlsFileError: naming the field whose file can't be used.
        """
        source, path = self._trusted()
        files = [path] if path else []
        files += [name for name in (self.cert, self.key) if name]
        identity = (self, path, *(_identity(name) for name in files))
        with _lock:
            if identity in _contexts:
                _contexts.move_to_end(identity)
                return _contexts[identity]
        context = self._new_context(source, path)
        with _lock:
            _contexts[identity] = context
            while len(_contexts) > _KEPT:
                _contexts.popitem(last=False)
        return context

    def _trusted(self) -> tuple[str, str]:
        """Where the CA bundle is named, and its path; an empty one when nothing is checked."""
        if self.verify is False:
            return "verify", ""
        if isinstance(self.verify, str):
            return "verify", self.verify
        for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            if os.environ.get(variable):
                return f"the environment variable {variable}", os.environ[variable]
        return "certifi", certifi.where()

    def _new_context(self, source: str, path: str) -> ssl.SSLContext:
        if not path:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context = _trusting(source, path)
        # Names are those of subjectAltName, as urllib3 has it; and HTTP/1.1 is all that both clients speak.
        context.hostname_checks_common_name = False
        context.set_alpn_protocols(["http/1.1"])
        if self.cert:
            self._show_certificate(context)
        elif self.key:
            raise TlsFileError("key", "is filled in, and cert, the certificate that it belongs to, is empty.")
        return context

    def _show_certificate(self, context: ssl.SSLContext) -> None:
        _check_file("cert", self.cert, "a client certificate")
        if self.key:
            _check_file("key", self.key, "the private key of the client certificate")

        def refuse() -> NoReturn:
            # Without this OpenSSL would ask for the pass phrase on the terminal.
            raise _EncryptedKeyError

        try:
            context.load_cert_chain(self.cert, self.key or None, password=refuse)
        except _EncryptedKeyError as e:
            raise TlsFileError(
                "key" if self.key else "cert",
                f"({(self.key or self.cert)!r}) holds an encrypted private key, which can't be used without its"
                " passphrase. Decrypt"
                " it with 'openssl pkey -in key.pem -out plain.pem', and let only Airflow's user read it.",
            ) from e
        except (ssl.SSLError, ValueError) as e:
            raise self._wrong_pair(e) from e
        except OSError as e:
            raise TlsFileError("cert", f"({self.cert!r}) can't be read: {e.strerror or e}.") from e

    def _wrong_pair(self, error: Exception) -> TlsFileError:
        if "MISMATCH" in str(getattr(error, "reason", "")):
            if self.key:
                return TlsFileError("key", f"({self.key!r}) does not belong to the certificate in {self.cert!r}.")
            return TlsFileError("cert", f"({self.cert!r}) holds a private key that is not its certificate's.")
        if b"-----BEGIN CERTIFICATE-----" not in _content(self.cert):
            return TlsFileError("cert", f"({self.cert!r}) holds no certificate in PEM form. {_TO_PEM}")
        if self.key:
            return TlsFileError("key", f"({self.key!r}) holds no private key in PEM form, or {self.cert!r} is damaged.")
        return TlsFileError("cert", f"({self.cert!r}) holds no usable private key. Name the file that has it in key.")


_TO_PEM = "If it is DER, 'openssl x509 -inform der -in FILE -out FILE.pem' converts it."


def _trusting(source: str, path: str) -> ssl.SSLContext:
    if os.path.isdir(path):
        if not any(_HASHED.fullmatch(name) for name in os.listdir(path)):
            raise TlsFileError(
                source,
                f"({path!r}) is a folder in which OpenSSL finds no certificate: there they are named by a hash, as"
                f" 'openssl rehash' does it. Name the CA bundle file, or prepare the folder.",
            )
        return ssl.create_default_context(capath=path)
    _check_file(source, path, "a CA bundle")
    try:
        context = ssl.create_default_context(cafile=path)
    except (ssl.SSLError, ValueError) as e:
        found = _content(path)
        if not found.strip():
            raise TlsFileError(source, f"({path!r}) is an empty file; it must be a CA bundle in PEM form.") from e
        begun = b"-----BEGIN CERTIFICATE-----" in found or b"-----BEGIN TRUSTED CERTIFICATE-----" in found
        what = "is a damaged CA bundle" if begun else "is no CA bundle in PEM form"
        raise TlsFileError(source, f"({path!r}) {what}. {'' if begun else _TO_PEM}".rstrip()) from e
    except OSError as e:
        raise TlsFileError(source, f"({path!r}) can't be read: {e.strerror or e}.") from e
    return context


def _check_file(field: str, path: str, what: str) -> None:
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb"):
                pass
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or e
        raise TlsFileError(
            field,
            f"must be the path of {what}; {path!r} can't be read: {why}. Workers, triggerer and API server each need"
            " it, and must be allowed to read it.",
        ) from e
    if not stat.S_ISREG(status.st_mode):
        raise TlsFileError(field, f"must be the path of {what}; {path!r} is not a file.")
    if status.st_size > _MAX_FILE:
        raise TlsFileError(field, f"must be the path of {what}; {path!r} is too large to be one.")


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _identity(path: str) -> tuple[object, ...]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return (path,)
    return path, status.st_ino, status.st_size, status.st_mtime_ns
