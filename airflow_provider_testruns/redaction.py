"""Masking the secrets that this process knows, in everything that the provider emits.

Airflow's own masker is one regular expression for the whole process, which only ever grows and is compiled again for
each new secret. It gets what never changes: the connection's password and keys. Tokens, which are renewed all the time,
are known here only: the current and the previous ones of each client. Nothing here is compiled, and what is kept is
bounded, so that redaction costs the same after a year as after a minute.

Imports nothing of the package but its limits, nor Airflow.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import threading
import weakref
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from airflow_provider_testruns.limits import RETIRED_CHARACTERS, RETIRED_SECRETS, SHORTEST_SECRET, SHORTEST_TOKEN

#: What stands in the place of a secret.
MASK = "***"
#: How often a secret can be escaped (JSON in JSON in a URL) and is still found.
_LEVELS = 3
#: From which length on the beginning of a secret is masked, too: platforms cut what they quote.
_LONG = 32
_BEGINNING = 24

#: One character, or a run of them, written in another way: percent-encoding, JSON and Python escapes, HTML references.
_ESCAPE = re.compile(
    r"(?:%[0-9A-Fa-f]{2})+"
    r"|(?:\\u[0-9A-Fa-f]{4})+"
    r"|(?:\\x[0-9A-Fa-f]{2})+"
    r"|\\U00[01][0-9A-Fa-f]{5}"
    r"|\\[\\\"'/abfnrtv0]"
    r"|&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|amp|lt|gt|quot|apos);"
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}

#: A user and password in a URL; whichever they are.
_USERINFO = re.compile(r"://([^/\s\"<>?#\\]+)@")
#: Where a secret is known to stand, whatever it is, the shortest too.
_PLACES = re.compile(
    r"(?:\bauthorization\b[\"']?\s{0,3}[:=,]\s{0,3}b?[\"']?(?:bearer|basic)\s{1,3}"
    r"|\bx-(?:api-key|secret-key|ocp-personal-access-token)\b[\"']?\s{0,3}[:=,]\s{0,3}b?[\"']?"
    r"|\b(?:access_token|refresh_token|id_token|client_secret)\b[\"']?\s{0,3}[:=]\s{0,3}[\"']?)"
    r"([^\s\"'<>,;&{}\[\]\\]+)",
    re.IGNORECASE,
)
#: Anything that looks like a signed token (JWT), ours or not.
_JWT = re.compile(r"(?<![A-Za-z0-9_-])(eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?)")
_RULES = (_USERINFO, _PLACES, _JWT)

_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")
_URL_SAFE = str.maketrans("+/", "-_")


class _Needle(NamedTuple):
    """One way to write a secret.

    :param text: what is looked for.
    :param beginning: its beginning, for a long one; else all of it.
    :param before: how many Base64 characters before it hold a part of the secret.
    :param after: the same behind it.
    """

    text: str
    beginning: str
    before: int = 0
    after: int = 0


@dataclass(slots=True)
class _Entry:
    """A secret that is in use.

    :param needles: the ways to write it.
    :param users: by how many clients.
    """

    needles: tuple[_Needle, ...]
    users: int = 0


class _Registry:
    """The secrets of this process. Thread-safe, and safe in a signal handler."""

    def __init__(self) -> None:
        # Re-entrant: a signal handler may open a client while this thread holds it.
        self._lock = threading.RLock()
        self._used: dict[str, _Entry] = {}
        self._retired: OrderedDict[str, _Entry] = OrderedDict()
        #: All needles; replaced as a whole, so that readers need no lock.
        self.needles: tuple[_Needle, ...] = ()

    def add(self, secrets: Iterable[str]) -> None:
        """Mask these from now on."""
        with self._lock:
            news = False
            for secret in secrets:
                entry = self._used.get(secret) or self._retired.pop(secret, None)
                if entry is None:
                    entry = _Entry(_needles(secret))
                    news = True
                self._used[secret] = entry
                entry.users += 1
            if news:
                self._collect()

    def drop(self, secrets: Iterable[str]) -> None:
        """These are out of use; the last such ones are masked for a while."""
        with self._lock:
            for secret in secrets:
                entry = self._used.get(secret)
                if entry is None:
                    continue
                entry.users -= 1
                if entry.users <= 0:
                    del self._used[secret]
                    entry.users = 0
                    self._retired[secret] = entry
            before = len(self._retired)
            while self._retired and (
                len(self._retired) > RETIRED_SECRETS or sum(map(len, list(self._retired))) > RETIRED_CHARACTERS
            ):
                self._retired.popitem(last=False)
            if len(self._retired) != before:
                self._collect()

    def _collect(self) -> None:
        entries = (*list(self._used.values()), *list(self._retired.values()))
        self.needles = tuple(needle for entry in entries for needle in entry.needles)

    def size(self) -> tuple[int, int]:
        """How many secrets are known, and in how many characters of needles; for tests and for the curious."""
        return len(self._used) + len(self._retired), sum(len(needle.text) for needle in self.needles)


_registry = _Registry()


def _after_fork() -> None:
    # Another thread of the parent may have held it.
    _registry._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class ClientSecrets:
    """What one client must not show: the fixed secrets of its connection, and its last tokens.

    Masked from :meth:`hold` (or the first token) until :meth:`release`, or until nothing refers to it any more, and a
    while longer.

    :param fixed: the secrets of the connection, which never change.
    """

    def __init__(self, fixed: Iterable[str] = ()) -> None:
        #: The secrets that never change, the short ones too.
        self.fixed = tuple(dict.fromkeys(fixed))
        #: The current and the previous token of each kind.
        self._tokens: dict[str, tuple[str, ...]] = {}
        self._held: list[str] = []
        weakref.finalize(self, _registry.drop, self._held).atexit = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.fixed)} secrets and {sum(map(len, self._tokens.values()))} tokens>"

    def hold(self) -> None:
        """Mask all of them from now on. Costs nothing when they are masked already."""
        if not self._held:
            self._held += self._all()
            _registry.add(self._held)

    def renewed(self, kind: str, token: str, shortest: int = SHORTEST_TOKEN) -> None:
        """There is a new token. It and the previous one are masked; older ones only as those of a closed client are.

        :param kind: which of the client's tokens: "access" or "refresh".
        :param token: the token. One that is too short to be told from a word is masked only where a token is known to
            stand.
        :param shortest: from which length on it is masked everywhere.
        """
        self.hold()
        known = self._tokens.get(kind, ())
        if not _worth_masking(token, shortest) or token in known[:1]:
            return
        self._tokens[kind] = (token, *known[:1])
        before, self._held[:] = list(self._held), self._all()
        _registry.add(self._held)
        _registry.drop(before)

    def for_airflow(self) -> list[str]:
        """The fixed secrets in the ways to write them that Airflow's own masker needs to be given: once, as it never
        forgets. What other code logs of the connection is masked by it."""
        return list(dict.fromkeys(text for secret in self._worth_masking() for text in _variants(secret)))

    def release(self) -> None:
        """The client is closed."""
        before, self._held[:] = list(self._held), []
        _registry.drop(before)

    def _worth_masking(self) -> list[str]:
        return [secret for secret in self.fixed if _worth_masking(secret, SHORTEST_SECRET)]

    def _all(self) -> list[str]:
        return [*self._worth_masking(), *(token for tokens in self._tokens.values() for token in tokens)]


def redact(text: str, also: Iterable[str] = (), keep: int | None = None) -> str:
    """``text`` without secrets.

    Masked are the secrets that this process knows, also percent-encoded, escaped as in JSON, Python or HTML (three
    times over, if need be), in Base64 or hexadecimal; the beginnings of long ones; user and password in URLs; what
    stands where only a secret can (``Authorization: Bearer …``, ``client_secret=…``); and whatever looks like a signed
    token.

    To be called before text is cleaned or cut: half a secret can't be found any more.

    :param text: what is to be emitted.
    :param also: more secrets, known to the caller alone.
    :param keep: how many characters of ``text`` the caller may use, when it is going to cut: no more are returned, and
        little more is looked at. A secret across the border is masked.
    """
    known = _registry.needles
    more = tuple(needle for secret in also if len(secret) >= SHORTEST_SECRET - 1 for needle in _needles(secret))
    needles = known + more
    if keep is not None and len(text) > keep:
        # An escaped secret is up to twelve times as long as itself.
        text = text[: keep + 12 * max((len(needle.text) for needle in needles), default=0)]
    spans = sorted(_spans(text, needles))
    if not spans:
        return text if keep is None else text[:keep]
    parts: list[str] = []
    done = 0
    end = len(text) if keep is None else min(keep, len(text))
    for first, last in spans:
        if first >= end:
            break
        if first > done or not parts:
            parts += (text[done:first], MASK)
        done = max(done, last)
    parts.append(text[done:end])
    return "".join(parts)


def _variants(secret: str) -> list[str]:
    found = [
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        html.escape(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
    ]
    return list(dict.fromkeys(found))


def _worth_masking(secret: str, shortest: int) -> bool:
    # Airflow never masks its own name either.
    return len(secret) >= shortest and secret.lower() != "airflow"


def _needles(secret: str) -> tuple[_Needle, ...]:
    found: dict[str, _Needle] = {}

    def add(text: str, before: int = 0, after: int = 0) -> None:
        found.setdefault(text, _Needle(text, text[:_BEGINNING] if len(text) >= _LONG else text, before, after))

    add(secret)
    # What looks like an escape in the secret itself is resolved with those around it.
    resolved = secret
    for _ in range(_LEVELS):
        resolved = _Unescaped(resolved).text
        if len(resolved) >= SHORTEST_SECRET:
            add(resolved)
    for text in list(found):
        if " " in text:
            add(text.replace(" ", "+"))
    spellings = [secret.encode("utf-8", "surrogatepass")]
    if not secret.isascii() and all(ord(character) < 256 for character in secret):
        spellings.append(secret.encode("latin-1"))
    for data in spellings:
        add(data.hex())
        add(data.hex().upper())
        for shift in range(3):
            # What surrounds the secret decides the characters at both ends; those between are its own.
            encoded = base64.b64encode(bytes(shift) + data).decode()
            core = encoded[(0, 2, 3)[shift] : (shift + len(data)) * 8 // 6]
            ends = (1 if shift else 0, 1 if (shift + len(data)) % 3 else 0)
            add(core, *ends)
            add(core.translate(_URL_SAFE), *ends)
    return tuple(found.values())


def _spans(text: str, needles: tuple[_Needle, ...]) -> Iterator[tuple[int, int]]:
    """Where secrets stand, in characters of ``text``."""
    yield from _found(text, needles)
    decoded = text
    maps: list[_Unescaped] = []
    for _ in range(_LEVELS):
        if not ("%" in decoded or "\\" in decoded or "&" in decoded):
            return
        level = _Unescaped(decoded)
        if level.text == decoded:
            return
        maps.append(level)
        decoded = level.text
        for first, last in _found(decoded, needles):
            for earlier in reversed(maps):
                first, last = earlier.span(first, last)
            yield first, last


def _found(text: str, needles: tuple[_Needle, ...]) -> Iterator[tuple[int, int]]:
    for needle in needles:
        at = text.find(needle.beginning)
        while at >= 0:
            end = at + len(needle.beginning)
            if needle.beginning is not needle.text:
                end = at + _common(text, at, needle.text)
            first, last = at, end
            if needle.before and first and text[first - 1] in _BASE64:
                first -= 1
            if needle.after and text[last : last + 1] in _BASE64:
                last += 1
            yield first, last
            at = text.find(needle.beginning, end)
    for rule in _RULES:
        for match in rule.finditer(text):
            yield match.span(1)


def _common(text: str, at: int, needle: str) -> int:
    """How much of ``needle`` stands in ``text`` from ``at`` on."""
    if text.startswith(needle, at):
        return len(needle)
    low, high = _BEGINNING, len(needle)
    while high - low > 1:
        middle = (low + high) // 2
        if text.startswith(needle[:middle], at):
            low = middle
        else:
            high = middle
    return low


class _Unescaped:
    """A text with its escapes resolved, once, and the way back.

    :param escaped: the text.
    """

    __slots__ = ("_at", "_first", "_last", "text")

    def __init__(self, escaped: str) -> None:
        #: For each resolved character: where it stands in the result, and where its escape begins and ends.
        self._at, self._first, self._last = array("q"), array("q"), array("q")
        parts: list[str] = []
        length = done = 0
        for match in _ESCAPE.finditer(escaped):
            first = match.start()
            parts.append(escaped[done:first])
            length += first - done
            for character, size in _characters(match.group()):
                parts.append(character)
                self._at.append(length)
                self._first.append(first)
                first += size
                self._last.append(first)
                length += 1
            done = match.end()
        parts.append(escaped[done:])
        self.text = "".join(parts)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Where the characters from ``first`` to before ``last`` stand in the escaped text."""
        return self._place(first)[0], self._place(last - 1)[1]

    def _place(self, index: int) -> tuple[int, int]:
        nearest = bisect_right(self._at, index) - 1
        if nearest < 0:
            return index, index + 1
        beyond = index - self._at[nearest]
        if beyond == 0:
            return self._first[nearest], self._last[nearest]
        at = self._last[nearest] + beyond - 1
        return at, at + 1


def _characters(escape: str) -> Iterator[tuple[str, int]]:
    """The characters that an escape, or a run of them, stands for, each with how long it is there."""
    kind = escape[:2]
    if kind[0] == "%" or kind == "\\x":
        size = 3 if kind[0] == "%" else 4
        data = bytes.fromhex(escape.replace("%", "").replace("\\x", ""))
        try:
            text = data.decode()
        except UnicodeDecodeError:
            yield from ((chr(byte), size) for byte in data)
        else:
            yield from ((character, size * len(character.encode())) for character in text)
    elif kind == "\\u":
        units = [int(escape[at + 2 : at + 6], 16) for at in range(0, len(escape), 6)]
        data = b"".join(unit.to_bytes(2, "big") for unit in units)
        for character in data.decode("utf-16-be", "surrogatepass"):
            yield character, 12 if ord(character) > 0xFFFF else 6
    elif kind == "\\U":
        code = int(escape[2:], 16)
        yield (chr(code) if code <= 0x10FFFF else "\ufffd"), len(escape)
    elif kind[0] == "\\":
        yield _SIMPLE.get(escape[1], escape[1]), 2
    elif kind == "&#":
        # Not html.unescape(): it leaves control characters out.
        code = int(escape[3:-1], 16) if escape[2] in "xX" else int(escape[2:-1])
        yield (chr(code) if code <= 0x10FFFF else "\ufffd"), len(escape)
    else:
        yield html.unescape(escape), len(escape)
