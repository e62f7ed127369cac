from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_testruns.sandbox.server import SandboxServer
from tests.integration.transport.wires import Blocking, Drive, Driver, Nonblocking


@pytest.fixture(scope="session")
def _sandbox_server() -> Iterator[SandboxServer]:
    with SandboxServer(run_seconds=60) as server:
        yield server


@pytest.fixture
def sandbox(_sandbox_server: SandboxServer) -> SandboxServer:
    """The sandbox, as new."""
    _sandbox_server.control.reset()
    return _sandbox_server


@pytest.fixture(autouse=True)
def _no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(params=[Blocking, Nonblocking], ids=["requests", "aiohttp"])
def drive(request: pytest.FixtureRequest) -> Iterator[Drive]:
    """Makes a client over either library; closed when the test ends."""
    opened: list[Driver] = []

    def make(*args: object, **options: object) -> Driver:
        opened.append(request.param(*args, **options))
        return opened[-1]

    yield make
    for client in opened:
        client.close()
