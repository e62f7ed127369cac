"""The identity providers: grants, expiry, and everything that must not be accepted."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from airflow_provider_testruns.sandbox import eggplant, omilia
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer

pytestmark = pytest.mark.integration

EGGPLANT = "/eggplant/auth/realms/eggplant/protocol/openid-connect/token"
OMILIA = "/omilia/auth/realms/{realm}/protocol/openid-connect/token"
CLIENT = {
    "grant_type": "client_credentials",
    "client_id": eggplant.CLIENT_ID,
    "client_secret": eggplant.CLIENT_SECRET,
}
LOGIN = {"grant_type": "password", "client_id": "ocp", "username": omilia.USER, "password": omilia.PASSWORD}


def ask(sandbox: SandboxServer, path: str, form: dict[str, str]) -> requests.Response:
    return requests.post(sandbox.url + path, data=form, timeout=60)


def projects(sandbox: SandboxServer, **headers: str) -> int:
    return requests.get(f"{sandbox.url}/omilia/api/projects/", headers=headers, timeout=60).status_code


def test_client_credentials(sandbox: SandboxServer) -> None:
    response = ask(sandbox, EGGPLANT, CLIENT).json()
    assert response["expires_in"] == 300
    assert response["token_type"] == "Bearer"
    assert "refresh_token" not in response
    headers = {"Authorization": f"Bearer {response['access_token']}"}
    assert requests.get(f"{sandbox.url}/eggplant/ai/runs?limit=1", headers=headers, timeout=60).status_code == 200


@pytest.mark.parametrize("realm", ["master", "ocp"])
def test_password_and_refresh(sandbox: SandboxServer, control: Control, realm: str) -> None:
    path = OMILIA.format(realm=realm)
    first = ask(sandbox, path, LOGIN).json()
    assert (first["expires_in"], first["refresh_expires_in"]) == (300, 1800)
    assert projects(sandbox, Authorization=f"Bearer {first['access_token']}") == 200
    form = {"grant_type": "refresh_token", "client_id": "ocp", "refresh_token": first["refresh_token"]}
    second = ask(sandbox, path, form).json()
    assert second["access_token"] != first["access_token"]
    assert projects(sandbox, Authorization=f"Bearer {second['access_token']}") == 200
    # A refresh token opens nothing by itself.
    assert projects(sandbox, Authorization=f"Bearer {first['refresh_token']}") == 401
    control.advance(1801)
    response = ask(sandbox, path, form)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")


def test_omilia_takes_client_credentials_too(sandbox: SandboxServer) -> None:
    form = {**CLIENT, "client_secret": omilia.CLIENT_SECRET}
    token = ask(sandbox, OMILIA.format(realm="master"), form).json()["access_token"]
    assert projects(sandbox, Authorization=f"Bearer {token}") == 200


def test_static_bearer_and_personal_access_token(sandbox: SandboxServer) -> None:
    personal = {"X-OCP-PERSONAL-ACCESS-TOKEN": omilia.PERSONAL_ACCESS_TOKEN}
    assert projects(sandbox, Authorization=f"Bearer {omilia.STATIC_BEARER}") == 200
    assert projects(sandbox, **personal) == 200
    assert projects(sandbox, Authorization=f"Bearer {omilia.PERSONAL_ACCESS_TOKEN}") == 401
    assert projects(sandbox) == 401


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "unauthorized_client"),
        ({"client_id": "nobody"}, 401, "unauthorized_client"),
        ({"grant_type": "authorization_code"}, 400, "unsupported_grant_type"),
        ({"grant_type": ""}, 400, "invalid_request"),
    ],
)
def test_refused_credentials(sandbox: SandboxServer, change: dict[str, str], status: int, error: str) -> None:
    response = ask(sandbox, EGGPLANT, {**CLIENT, **change})
    assert (response.status_code, response.json()["error"]) == (status, error)


def test_refused_login(sandbox: SandboxServer) -> None:
    path = OMILIA.format(realm="master")
    assert ask(sandbox, path, {**LOGIN, "password": "wrong"}).json()["error"] == "invalid_grant"
    assert ask(sandbox, path, {**LOGIN, "client_id": "web"}).json()["error"] == "invalid_client"


def test_the_form_must_be_a_form(sandbox: SandboxServer, control: Control) -> None:
    assert requests.post(sandbox.url + EGGPLANT, json=CLIENT, timeout=60).status_code == 415
    assert "form-encoded" in control.violations()[0]


def test_an_unknown_realm(sandbox: SandboxServer) -> None:
    assert ask(sandbox, OMILIA.format(realm="eggplant"), LOGIN).status_code == 404
    assert ask(sandbox, EGGPLANT.replace("realms/eggplant", "realms/master"), CLIENT).status_code == 404


def test_tokens_expire(sandbox: SandboxServer, control: Control) -> None:
    control.set_token_lifetime(20, "omilia")
    response = ask(sandbox, OMILIA.format(realm="master"), LOGIN).json()
    assert response["expires_in"] == 20
    bearer = f"Bearer {response['access_token']}"
    control.advance(19)
    assert projects(sandbox, Authorization=bearer) == 200
    control.advance(2)
    assert projects(sandbox, Authorization=bearer) == 401
    # An expired token is nobody's mistake.
    assert control.violations() == []


def test_expiring_every_token(sandbox: SandboxServer, control: Control) -> None:
    token = ask(sandbox, OMILIA.format(realm="master"), LOGIN).json()["access_token"]
    assert control.expire_tokens("eggplant") == 0
    assert projects(sandbox, Authorization=f"Bearer {token}") == 200
    assert requests.post(f"{sandbox.url}/_sandbox/expire_tokens", timeout=60).json() == {"expired": 2}
    assert projects(sandbox, Authorization=f"Bearer {token}") == 401


def test_rejecting_for_a_while(sandbox: SandboxServer, control: Control, futureagi: Any) -> None:
    requests.post(f"{sandbox.url}/_sandbox/reject_tokens", json={"seconds": 5}, timeout=60)
    token = ask(sandbox, OMILIA.format(realm="master"), LOGIN).json()["access_token"]
    assert projects(sandbox, Authorization=f"Bearer {token}") == 401
    assert projects(sandbox, Authorization=f"Bearer {omilia.STATIC_BEARER}") == 401
    assert futureagi.get("/simulate/run-tests/").status_code == 401
    control.advance(5)
    assert projects(sandbox, Authorization=f"Bearer {token}") == 200
    assert futureagi.get("/simulate/run-tests/").status_code == 200


def test_every_token_can_be_listed(sandbox: SandboxServer, control: Control) -> None:
    response = ask(sandbox, OMILIA.format(realm="master"), LOGIN).json()
    other = ask(sandbox, EGGPLANT, CLIENT).json()["access_token"]
    assert set(control.issued_tokens()) == {response["access_token"], response["refresh_token"], other}
    assert control.issued_tokens("eggplant") == [other]
    assert "canary" in other
    assert control.stats()["token_requests"] == {"omilia": 1, "eggplant": 1}
