"""What the production cluster is made of; and set-ups that can't work, which end with one sentence."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pytest_mock import MockerFixture

from demo.airflow import free_port
from tests.chaos.storm import PLANNED
from tests.production import parts
from tests.production.__main__ import main
from tests.production.parts import Programs, Servers, SetUpError
from tests.production.proxy import Proxy
from tests.production.storm import FAULTS, interleave

pytestmark = pytest.mark.integration

_PASSWORD = "canary-of-a-broker"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken


def _port(taken: socket.socket) -> int:
    return int(taken.getsockname()[1])


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which a set-up is refused, which has started nothing."""
    before = set(psutil.Process().children())
    assert main(arguments) == 2
    assert set(psutil.Process().children()) == before
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert _PASSWORD not in err
    return err


def test_a_port_that_is_taken_is_named(listener: socket.socket, capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(capsys, "--port", str(_port(listener)))
    assert said.startswith(f"Port {_port(listener)} of 127.0.0.1 can't be used")
    assert "--port" in said


def test_a_broker_that_does_not_answer_is_named_without_its_password(
    listener: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    port = _port(listener)
    listener.close()
    said = _refused(capsys, "--broker", f"redis://:{_PASSWORD}@127.0.0.1:{port}/0")
    assert said.startswith(f"The broker at 127.0.0.1:{port} does not answer")


def test_a_broker_that_is_something_else_is_named(listener: socket.socket, capsys: pytest.CaptureFixture[str]) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    said = _refused(capsys, "--broker", f"redis://127.0.0.1:{_port(listener)}/0")
    thread.join()
    assert "is not Redis" in said
    assert "is not a URL of Redis" in _refused(capsys, "--broker", f"amqp://:{_PASSWORD}@127.0.0.1/")


def test_programs_that_are_missing_are_named_with_the_command_that_installs_them(
    mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    mocker.patch.object(parts, "_find", return_value=None)
    said = _refused(capsys, "--no-install")
    assert "apt-get install libfaketime pgbouncer postgresql redis-server" in said


def test_a_server_that_does_not_start_says_why_and_leaves_nothing(listener: socket.socket, tmp_path: Path) -> None:
    folder = tmp_path / "servers"
    anything = Path("/bin/false")
    ports = {"postgresql": free_port(), "redis": _port(listener)}
    servers = Servers(folder, Programs(anything, anything, anything, anything, anything), ports)
    with pytest.raises(SetUpError, match="PostgreSQL did not start"):
        servers.start_postgresql()
    with pytest.raises(SetUpError, match=r"Redis did not start on port \d+ of 127.0.0.1: the port is taken"):
        servers.start_redis()
    assert list((folder / "pids").iterdir()) == []


def test_a_proxy_spreads_connections_and_can_be_cut_and_mended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        closed = socket.create_server(("127.0.0.1", 0))
        ports = [_port(one), _port(closed), _port(other)]
        closed.close()
        with Proxy(ports) as proxy:
            first = socket.create_connection(("127.0.0.1", proxy.port), timeout=30)
            second = socket.create_connection(("127.0.0.1", proxy.port), timeout=30)
            far, _ = one.accept()
            farther, _ = other.accept()
            first.sendall(b"to the one")
            assert far.recv(100) == b"to the one"
            farther.sendall(b"from the other")
            assert second.recv(100) == b"from the other"
            proxy.cut()
            assert first.recv(100) == b""
            assert far.recv(100) == b""
            third = socket.create_connection(("127.0.0.1", proxy.port), timeout=0.5)
            with pytest.raises(TimeoutError):
                third.recv(100)
            proxy.mend()
            fourth = socket.create_connection(("127.0.0.1", proxy.port), timeout=30)
            fourth.sendall(b"mended")
            (ready,), _, _ = select.select([one, other], [], [], 30)
            last, _ = ready.accept()
            assert last.recv(100) == b"mended"
        for connection in (first, second, third, fourth, far, farther, last):
            connection.close()


def test_the_plan_has_all_faults_of_one_machine_and_of_several() -> None:
    names = [fault.name for fault in FAULTS]
    planned = interleave(PLANNED, names)
    assert [one for one in planned if one in PLANNED] == list(PLANNED)
    assert [one for one in planned if one in names] == names
    assert len(planned) == len(PLANNED) + len(names)
    # They don't come all at once.
    assert planned.index(names[0]) < len(planned) / 4
