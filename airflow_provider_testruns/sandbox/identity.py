"""Keycloak as far as the platforms use it: it hands out tokens that expire, and says whether one is good."""

from __future__ import annotations

import json
import secrets
import uuid
from dataclasses import dataclass, field

from .clock import Clock
from .exchange import Exchange, Refusal, Response, json_response


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an identity provider accepts.

    :param realms: the realms it knows.
    :param clients: client ids with their secrets, for the client credentials grant.
    :param public_client: the client id of the password grant, which needs no secret.
    :param users: user names with their passwords, for the password grant.
    """

    realms: tuple[str, ...]
    clients: dict[str, str] = field(default_factory=dict)
    public_client: str | None = None
    users: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Issued:
    expires: float
    refreshes: bool
    subject: str


#: The fields that each grant takes.
_GRANT_FIELDS = {
    "client_credentials": {"grant_type", "client_id", "client_secret", "scope"},
    "password": {"grant_type", "client_id", "client_secret", "username", "password", "scope"},
    "refresh_token": {"grant_type", "client_id", "client_secret", "refresh_token", "scope"},
}


class IdentityProvider:
    """The tokens of one platform.

    :param platform: its name, which every token carries so that a leaked one can be told.
    :param clock: decides when a token expires.
    :param credentials: what is accepted.
    """

    def __init__(self, platform: str, clock: Clock, credentials: Credentials) -> None:
        self.platform = platform
        self.credentials = credentials
        #: Seconds that an access token is good for.
        self.token_seconds = 300.0
        #: Seconds that a refresh token is good for.
        self.refresh_seconds = 1800.0
        #: Every token ever handed out, also when it is no longer good.
        self.issued: list[str] = []
        self._clock = clock
        self._tokens: dict[str, _Issued] = {}
        self._reject_until = 0.0

    def reset(self) -> None:
        """Forget every token and every order about tokens."""
        self.issued = []
        self._tokens = {}
        self._reject_until = 0.0
        self.token_seconds = 300.0
        self.refresh_seconds = 1800.0

    def expire_tokens(self) -> int:
        """Make every token bad that was handed out so far; return how many were still good."""
        good = sum(1 for t in self._tokens.values() if t.expires > self._clock.now())
        self._tokens.clear()
        return good

    def reject_tokens(self, seconds: float) -> None:
        """Refuse every token for a while, also the new ones."""
        self._reject_until = self._clock.now() + seconds

    @property
    def rejects(self) -> bool:
        """True while every credential is refused."""
        return self._clock.now() < self._reject_until

    def accepts(self, token: str) -> bool:
        """Tell whether an access token is good."""
        issued = self._tokens.get(token)
        return issued is not None and not issued.refreshes and issued.expires > self._clock.now() and not self.rejects

    def _issue(self, subject: str, seconds: float, refreshes: bool = False) -> str:
        kind = "refresh" if refreshes else "access"
        token = f"sandbox-canary-{self.platform}-{kind}-{secrets.token_hex(16)}"
        self._tokens[token] = _Issued(self._clock.now() + seconds, refreshes, subject)
        self.issued.append(token)
        return token

    def handle_token(self, exchange: Exchange) -> Response:
        """Answer ``POST /auth/realms/{realm}/protocol/openid-connect/token``."""
        if exchange.params["realm"] not in self.credentials.realms:
            raise Refusal(json_response(404, {"error": "Realm does not exist"}), "unknown realm")
        if exchange.media_type != "application/x-www-form-urlencoded":
            raise Refusal(
                json_response(415, {"error": "HTTP 415 Unsupported Media Type"}),
                f"a token request must be form-encoded, not {exchange.media_type or 'without Content-Type'}",
            )
        form = exchange.form()
        grant = form.get("grant_type", "")
        known = _GRANT_FIELDS.get(grant)
        if known is None:
            code = "unsupported_grant_type" if grant else "invalid_request"
            raise Refusal(_oauth_error(400, code, f"Unsupported grant_type {grant!r}"), f"grant_type {grant!r}")
        for name in sorted(form.keys() - known):
            exchange.note(f"the {grant} grant takes no field {name}")
        if grant == "client_credentials":
            return self._client_credentials(form)
        if grant == "password":
            return self._password(form)
        return self._refresh(form)

    def handle_json_token(self, exchange: Exchange) -> Response:
        """Answer ``POST /api/v2/auth`` of Eggplant DAI, which takes client credentials as JSON."""
        if exchange.media_type != "application/json":
            raise Refusal(
                json_response(
                    422, {"detail": [{"loc": ["body"], "msg": "value is not a valid dict", "type": "type_error"}]}
                ),
                f"a token request must be JSON, not {exchange.media_type or 'without Content-Type'}",
            )
        try:
            body = json.loads(exchange.body)
        except ValueError:
            body = None
        if not isinstance(body, dict) or body.keys() != {"client_id", "client_secret"}:
            raise Refusal(json_response(422, {"detail": "client_id and client_secret are required"}), "other fields")
        return self._client_credentials({name: str(value) for name, value in body.items()})

    def _client_credentials(self, form: dict[str, str]) -> Response:
        client_id = form.get("client_id", "")
        secret = self.credentials.clients.get(client_id)
        if secret is None or form.get("client_secret") != secret:
            raise Refusal(_oauth_error(401, "unauthorized_client", "Invalid client or Invalid client credentials"))
        return json_response(
            200,
            {
                "access_token": self._issue(client_id, self.token_seconds),
                "expires_in": int(self.token_seconds),
                "refresh_expires_in": 0,
                "token_type": "Bearer",
                "not-before-policy": 0,
                "session_state": str(uuid.uuid4()),
                "scope": "email profile",
            },
        )

    def _password(self, form: dict[str, str]) -> Response:
        self._check_public_client(form)
        user = form.get("username", "")
        password = self.credentials.users.get(user)
        if password is None or form.get("password") != password:
            raise Refusal(_oauth_error(401, "invalid_grant", "Invalid user credentials"))
        return self._session(user)

    def _refresh(self, form: dict[str, str]) -> Response:
        self._check_public_client(form)
        token = self._tokens.get(form.get("refresh_token", ""))
        if token is None or not token.refreshes or token.expires <= self._clock.now() or self.rejects:
            raise Refusal(_oauth_error(400, "invalid_grant", "Token is not active"))
        return self._session(token.subject)

    def _check_public_client(self, form: dict[str, str]) -> None:
        expected = self.credentials.public_client
        if expected is None or form.get("client_id") != expected:
            raise Refusal(_oauth_error(401, "invalid_client", "Invalid client or Invalid client credentials"))

    def _session(self, user: str) -> Response:
        return json_response(
            200,
            {
                "access_token": self._issue(user, self.token_seconds),
                "expires_in": int(self.token_seconds),
                "refresh_expires_in": int(self.refresh_seconds),
                "refresh_token": self._issue(user, self.refresh_seconds, refreshes=True),
                "token_type": "Bearer",
                "not-before-policy": 0,
                "session_state": str(uuid.uuid4()),
                "scope": "email profile",
            },
        )


def _oauth_error(status: int, error: str, description: str) -> Response:
    return json_response(status, {"error": error, "error_description": description})


def bearer_token(exchange: Exchange) -> str | None:
    """Return the token of an ``Authorization: Bearer`` header, None without one."""
    scheme, _, token = exchange.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
