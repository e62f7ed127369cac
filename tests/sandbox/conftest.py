from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from airflow_provider_testruns.sandbox import eggplant as eggplant_platform
from airflow_provider_testruns.sandbox import futureagi as futureagi_platform
from airflow_provider_testruns.sandbox import omilia as omilia_platform
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer


@dataclass
class Client:
    """One platform as a user with credentials reaches it."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.session = requests.Session()
        self.session.headers.update(self.headers)

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        options.setdefault("allow_redirects", False)
        options.setdefault("timeout", 10)
        return self.session.request(method, self.url + path, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self("POST", path, **options)

    def json(self, path: str, **options: Any) -> Any:
        """Return the JSON of a GET that succeeds."""
        response = self.get(path, **options)
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture(scope="session")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(run_seconds=10) as running:
        yield running


@pytest.fixture
def sandbox(server: SandboxServer) -> SandboxServer:
    """The server as it was when it started, its clock stopped: a run takes 10 s of ``control.advance``."""
    server.control.reset()
    server.control.stop_clock()
    return server


@pytest.fixture
def control(sandbox: SandboxServer) -> Control:
    return sandbox.control


@pytest.fixture
def eggplant(sandbox: SandboxServer) -> Iterator[Client]:
    url = f"{sandbox.url}/eggplant"
    form = {
        "grant_type": "client_credentials",
        "client_id": eggplant_platform.CLIENT_ID,
        "client_secret": eggplant_platform.CLIENT_SECRET,
    }
    path = "/auth/realms/eggplant/protocol/openid-connect/token"
    token = requests.post(url + path, data=form, timeout=60).json()["access_token"]
    client = Client(url, {"Authorization": f"Bearer {token}"})
    with client.session:
        yield client


@pytest.fixture
def futureagi(sandbox: SandboxServer) -> Iterator[Client]:
    """The current dialect."""
    keys = {"X-Api-Key": futureagi_platform.API_KEY, "X-Secret-Key": futureagi_platform.SECRET_KEY}
    client = Client(f"{sandbox.url}/futureagi", keys)
    with client.session:
        yield client


@pytest.fixture
def documented(sandbox: SandboxServer) -> Iterator[Client]:
    """Future AGI in the documented dialect."""
    client = Client(f"{sandbox.url}/futureagi", {"Authorization": f"Bearer {futureagi_platform.API_KEY}"})
    with client.session:
        yield client


@pytest.fixture
def omilia(sandbox: SandboxServer) -> Iterator[Client]:
    client = Client(f"{sandbox.url}/omilia", {"Authorization": f"Bearer {omilia_platform.STATIC_BEARER}"})
    with client.session:
        yield client
