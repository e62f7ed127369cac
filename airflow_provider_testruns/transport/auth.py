"""How requests are authenticated. What a token costs is asked once and shared."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlencode

from airflow_provider_testruns import limits, timing
from airflow_provider_testruns.exceptions import ApiError, AuthenticationError, InvalidReplyError
from airflow_provider_testruns.parsing import parse
from airflow_provider_testruns.redaction import ClientSecrets
from airflow_provider_testruns.transport.effects import Flow, Request

#: The fields of a grant that nobody may see.
_SECRET_FIELDS = ("client_secret", "password")


class Auth(Protocol):
    """A way to authenticate."""

    def headers(self) -> Mapping[str, str] | None:
        """The headers to send now; ``None`` when something must be asked for first."""

    @property
    def current(self) -> int | None:
        """The number of what :meth:`headers` sends now, counted from 1; ``None`` when there is nothing yet.

        Old and new are told apart by it, not by what is sent: an endpoint may give the same token again.
        """

    def may_renew(self) -> bool:
        """Whether asking again may help now."""

    def accepted(self) -> None:
        """The platform has accepted what was sent."""

    def renew(self, check: Callable[[Request, str], Flow[bytes]]) -> Flow[None]:
        """Ask for something newer.

        :param check: sends the request and gives the body of a 2xx response, or raises an ApiError.
        """

    def secrets(self) -> Iterator[str]:
        """All that must not be seen."""

    @property
    def known(self) -> ClientSecrets:
        """The same, as redaction knows it; the client holds and releases it."""


@dataclass
class FixedHeaders:
    """Headers that never change: API keys, a static bearer token, a personal access token.

    :param values: the headers.
    :param secret: what in them must not be seen.
    """

    values: Mapping[str, str] = field(repr=False)
    secret: tuple[str, ...] = field(repr=False)
    known: ClientSecrets = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.known = ClientSecrets(self.secret)

    def headers(self) -> Mapping[str, str]:
        return self.values

    @property
    def current(self) -> int:
        return 1

    def may_renew(self) -> bool:
        return False

    def accepted(self) -> None:
        return None

    def renew(self, check: Callable[[Request, str], Flow[bytes]]) -> Flow[None]:
        yield from ()

    def secrets(self) -> Iterator[str]:
        return iter(self.secret)


@dataclass
class OAuthToken:
    """A bearer token of an OAuth 2.0 token endpoint (Keycloak), renewed before it expires.

    :param token_url: the whole URL of the endpoint.
    :param grant: the form that gets a token (``grant_type`` and what goes with it).
    :param timeout: seconds for one request.
    :param fields: which fields of the connection the grant comes from, for messages.
    :param as_json: send the grant as a JSON object instead of a form, as Eggplant DAI's ``/api/v2/auth`` takes it.
    :param can_refresh: use the ``refresh_token`` of a response, when there is one, instead of the grant. Only for
        the password grant: the others have nothing to save by it.
    :param clock: gives seconds; for tests.
    """

    token_url: str
    grant: Mapping[str, str] = field(repr=False)
    timeout: float = 30.0
    fields: str = "login and password"
    can_refresh: bool = False
    as_json: bool = False
    clock: Callable[[], float] = time.monotonic
    _token: str | None = field(default=None, init=False, repr=False)
    _number: int = field(default=0, init=False)
    _stale_at: float = field(default=0.0, init=False)
    _refresh: str | None = field(default=None, init=False, repr=False)
    _refresh_until: float = field(default=0.0, init=False)
    _renewed_at: float = field(default=float("-inf"), init=False)
    _in_vain: int = field(default=0, init=False)
    _failure: ApiError | None = field(default=None, init=False, repr=False)
    known: ClientSecrets = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.known = ClientSecrets(value for name, value in self.grant.items() if name in _SECRET_FIELDS)

    def headers(self) -> Mapping[str, str] | None:
        if self._token is None or self.clock() >= self._stale_at:
            return None
        return {"Authorization": f"Bearer {self._token}"}

    @property
    def current(self) -> int | None:
        return self._number or None

    def may_renew(self) -> bool:
        if self._in_vain == 0:
            return True
        backoff = timing.TOKEN_BACKOFF if self._failure is None else timing.TOKEN_FAILED_BACKOFF
        since: float = self.clock() - self._renewed_at
        return since >= backoff.after(self._in_vain - 1)

    def accepted(self) -> None:
        self._in_vain = 0

    def renew(self, check: Callable[[Request, str], Flow[bytes]]) -> Flow[None]:
        if self._failure is not None and not self.may_renew():
            # Whoever stood in line behind a renewal that failed gets its failure: were each to try for itself, a slow
            # endpoint would hold up the last for as many timeouts as there are runs.
            raise copy.copy(self._failure)
        try:
            yield from self._renew(check)
        except ApiError as e:
            self._failure = copy.copy(e)
            self._renewed_at = self.clock()
            raise
        self._failure = None

    def _renew(self, check: Callable[[Request, str], Flow[bytes]]) -> Flow[None]:
        asked_at = self.clock()
        if self._refresh is not None and asked_at < self._refresh_until:
            refresh = {"grant_type": "refresh_token", "refresh_token": self._refresh}
            if "client_id" in self.grant:
                refresh["client_id"] = self.grant["client_id"]
            # Used once, but kept: what is refused with it may be quoted in a message, which must be masked.
            self._refresh_until = 0.0
            try:
                yield from self._ask(refresh, asked_at, check)
                return
            except AuthenticationError:
                # The session behind a refresh token can end at any time; the grant itself may still be good.
                pass
        yield from self._ask(self.grant, asked_at, check)

    def _ask(
        self, form: Mapping[str, str], asked_at: float, check: Callable[[Request, str], Flow[bytes]]
    ) -> Flow[None]:
        request = Request(
            "POST",
            self.token_url,
            {
                "Content-Type": "application/json" if self.as_json else "application/x-www-form-urlencoded",
                "Accept": "application/json",
            },
            self.timeout,
            (json.dumps(dict(form)) if self.as_json else urlencode(form)).encode(),
            most=limits.TOKEN_BODY,
        )
        self._renewed_at = asked_at
        self._in_vain += 1
        body = yield from check(request, self.fields)
        token = ""
        try:
            response = parse(body)
            token = _usable(response["access_token"])
            lasts = _seconds(response.get("expires_in"), 60.0)
            refresh_lasts = _seconds(response.get("refresh_expires_in"), 0.0)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            token = ""
        if not token:
            # Not from within: what was raised there quotes the body, and Airflow logs the whole chain.
            raise InvalidReplyError(
                f"The token endpoint {self.token_url} answered without a usable access_token. Check auth_url and"
                " realm of the connection."
            )
        self.known.renewed("access", token)
        # A token is renewed while it is still good, so that no request has to find out; a short one is used longer.
        # A new one is used in any case, even where the endpoint took longer to answer than it is said to last.
        self._stale_at = max(asked_at + lasts - min(30.0, lasts / 4), self.clock() + timing.TOKEN_AT_LEAST)
        self._token = token
        self._number += 1
        refresh = response.get("refresh_token")
        # One that is too long is not used: the grant itself is as good.
        if self.can_refresh and isinstance(refresh, str) and 0 < len(refresh) <= limits.TOKEN:
            self.known.renewed("refresh", refresh)
            self._refresh = refresh
            self._refresh_until = asked_at + refresh_lasts - 5.0

    def secrets(self) -> Iterator[str]:
        for name, value in self.grant.items():
            if name in _SECRET_FIELDS:
                yield value
        yield from (value for value in (self._token, self._refresh) if value)


def _usable(token: object) -> str:
    """The token, if a header can hold it (RFC 6750: no blanks), and servers take a header of that length."""
    if (
        not isinstance(token, str)
        or len(token) > limits.TOKEN
        or not token.isprintable()
        or not token.isascii()
        or " " in token
    ):
        raise TypeError("access_token is not a token")
    return token


def _seconds(value: object, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("a time in seconds is not a number")
    return max(0.0, float(value))
