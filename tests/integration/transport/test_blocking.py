"""What only workers do: move files, in any size, with little memory and for as long as it takes."""

from __future__ import annotations

import threading
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from airflow_provider_testruns.exceptions import ApiError, InvalidReplyError, NotFoundError, TransportError
from airflow_provider_testruns.sandbox import omilia
from airflow_provider_testruns.steps import Call, Sleep, Upload, ask, no_value
from airflow_provider_testruns.transport.blocking import BlockingClient
from tests.integration.transport.wires import (
    API,
    SMOKE,
    RawServer,
    answering,
    get,
    password_grant,
    session,
    to_sandbox,
    within,
)

pytestmark = pytest.mark.integration

_MEGABYTE = 1024 * 1024


def _upload(file: Path) -> Call[None]:
    return Call("upload it", "POST", "/suites/", no_value, upload=Upload("file", file), idempotent=False)


def _download(to: Path, path: str = "/file") -> Call[None]:
    return Call("download it", "GET", path, no_value, save_to=to)


def _suites(folder: Path) -> Path:
    file = folder / 'our "best" suites.zip'
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tests/a.yml", "name: a")
    return file


def test_an_upload_arrives_as_it_is(sandbox, tmp_path):
    file = _suites(tmp_path)
    with BlockingClient(to_sandbox(sandbox)) as client:
        client.run(ask(API.upload_test_suites(SMOKE, file)))
        client.run(ask(API.download_test_suites(SMOKE, tmp_path / "back.zip")))
    assert (tmp_path / "back.zip").read_bytes() == file.read_bytes()
    assert sandbox.control.violations() == []


def test_an_upload_is_sent_again_from_its_beginning_with_a_new_token(sandbox, tmp_path):
    file = _suites(tmp_path)
    with BlockingClient(to_sandbox(sandbox, password_grant(sandbox))) as client:
        client.run(ask(API.list_projects()))
        sandbox.control.expire_tokens()
        client.run(ask(API.upload_test_suites(SMOKE, file)))
        client.run(ask(API.download_test_suites(SMOKE, tmp_path / "back.zip")))
    assert [seen.status for seen in sandbox.control.requests("omilia.upload_suites")] == [401, 204]
    assert (tmp_path / "back.zip").read_bytes() == file.read_bytes()


def test_a_large_file_is_uploaded_with_little_memory(tmp_path):
    file = tmp_path / "large.zip"
    with file.open("wb") as sparse:
        sparse.truncate(200 * _MEGABYTE)
    with RawServer(answering(lambda seen: (204, b""))) as server, BlockingClient(session(server.url)) as client:
        tracemalloc.start()
        try:
            client.run(ask(_upload(file)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        (seen,) = server.seen
    assert peak < 8 * _MEGABYTE  # of which the server has its part
    assert seen.headers["content-length"] == str(seen.size)
    assert "transfer-encoding" not in seen.headers
    assert 200 * _MEGABYTE < seen.size < 200 * _MEGABYTE + 500
    boundary = seen.headers["content-type"].removeprefix("multipart/form-data; boundary=")
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="large.zip"\r\n'
        "Content-Type: application/zip\r\n\r\n"
    )
    assert seen.body.startswith(head.encode() + bytes(10))


def test_a_file_moves_for_as_long_as_it_takes(tmp_path):
    """The connection's timeout is for one request, and for a file from one of its pieces to the next."""
    file = tmp_path / "large.zip"
    with file.open("wb") as sparse:
        sparse.truncate(40 * _MEGABYTE)

    def talk(line):
        if line.number == 1:
            line.read(pause=0.03)
            line.response(200, b'{"data": []}')
            return
        line.read()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n")
        for _ in range(15):
            time.sleep(0.1)
            line.send(b"x")

    with RawServer(talk) as server, BlockingClient(session(server.url, timeout=1)) as client:
        began = time.monotonic()
        client.run(ask(_upload(file)))
        assert time.monotonic() - began > 1.2
        client.run(ask(_download(tmp_path / "file")))
    assert (tmp_path / "file").read_bytes() == b"x" * 15


def test_a_file_that_stops_moving_is_given_up(tmp_path):
    def talk(line):
        line.read()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\nxx")
        line.linger()

    with (
        RawServer(talk) as server,
        BlockingClient(session(server.url, timeout=0.5)) as client,
        within(1.5),
        pytest.raises(TransportError, match="no complete response"),
    ):
        client.run(ask(_download(tmp_path / "file")))


def test_an_upload_that_nobody_reads_is_given_up(tmp_path):
    file = tmp_path / "large.zip"
    with file.open("wb") as sparse:
        sparse.truncate(50 * _MEGABYTE)

    def talk(line):
        line.read_head()
        line.linger()

    with RawServer(talk) as server, BlockingClient(session(server.url, timeout=0.5)) as client:
        with within(2), pytest.raises(TransportError) as caught:
            client.run(ask(_upload(file)))
        assert caught.value.sent
        assert server.connections == 1


def test_a_large_file_is_downloaded_with_little_memory(sandbox, tmp_path):
    sandbox.control.configure(artifact_bytes=100 * _MEGABYTE)
    (run_id,) = sandbox.control.add_runs("omilia", SMOKE, duration=0.0)
    to = tmp_path / "artifact.zip"
    with BlockingClient(to_sandbox(sandbox, timeout=20)) as client:
        tracemalloc.start()
        try:
            client.run(ask(API.download_run_artifact(run_id, to)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert to.stat().st_size >= 100 * _MEGABYTE
    assert peak < 24 * _MEGABYTE
    assert zipfile.is_zipfile(to)


def test_an_error_is_not_taken_for_the_file(sandbox, tmp_path):
    to = tmp_path / "artifact.zip"
    with BlockingClient(to_sandbox(sandbox)) as client, pytest.raises(NotFoundError):
        client.run(ask(API.download_run_artifact(omilia.named_id(99), to)))
    assert not to.exists()


def test_a_redirect_is_not_taken_for_the_file(tmp_path):
    to = tmp_path / "file"

    def answer(seen):
        if seen.path == "/file":
            return 302, b"a page that says where it is", {"Location": "/there"}
        return (200, b"the file") if seen.path == "/there" else (404, b"")

    with RawServer(answering(answer)) as server, BlockingClient(session(server.url)) as client:
        client.run(ask(_download(to)))
        assert to.read_bytes() == b"the file"
        to.unlink()
    with (
        RawServer(answering(lambda seen: (302, b"elsewhere", {"Location": "http://other.invalid/"}))) as server,
        BlockingClient(session(server.url)) as client,
        pytest.raises(InvalidReplyError),
    ):
        client.run(ask(_download(to)))
    assert not to.exists()


@pytest.mark.parametrize("kind", ["truncate", "drop"])
def test_half_a_file_is_an_error(sandbox, tmp_path, kind):
    (run_id,) = sandbox.control.add_runs("omilia", SMOKE, duration=0.0)
    sandbox.control.fault(kind, operation="omilia.run_artifacts", when="after")
    with BlockingClient(to_sandbox(sandbox)) as client, pytest.raises(TransportError):
        client.run(ask(API.download_run_artifact(run_id, tmp_path / "artifact.zip")))


def test_steps_can_wait_and_are_closed_when_they_fail(sandbox):
    slept, log = [], []

    def steps():
        try:
            yield Sleep(1.5)
            yield API.get_run_call(omilia.named_id(99))
        finally:
            log.append("closed")

    with BlockingClient(to_sandbox(sandbox), sleep=slept.append) as client, pytest.raises(NotFoundError):
        client.run(steps())
    assert slept == [1.5]
    assert log == ["closed"]


def test_a_client_in_the_middle_of_another_has_times_of_its_own(sandbox):
    """As in a signal handler: a new_connection client runs in the same thread while the first is at work."""
    refused = []

    def answer(seen):
        time.sleep(0.4)
        return 200, b'{"access_token": "canary-token-1", "expires_in": 60}'

    def interrupt() -> float:
        if not refused:
            refused.append(None)
            with BlockingClient(session(server.url, timeout=0.1)) as inner:
                # With the other's time, it would get its answer.
                with pytest.raises(ApiError, match="within the time allowed") as caught:
                    inner.run(ask(get()))
                refused.append(caught.value)
        return time.monotonic()

    with RawServer(answering(answer)) as server:
        auth = password_grant(sandbox, clock=interrupt)
        with BlockingClient(to_sandbox(sandbox, auth, timeout=30)) as client:
            assert client.run(ask(API.list_projects()))
    assert len(refused) == 2


def test_the_time_of_one_thread_is_not_that_of_another(sandbox):
    sandbox.control.configure(latency=0.3)
    results: dict[float, object] = {}

    def work(timeout: float) -> None:
        with BlockingClient(to_sandbox(sandbox, timeout=timeout)) as client:
            try:
                results[timeout] = client.run(ask(API.list_projects()))
            except TransportError as e:
                results[timeout] = e

    threads = [threading.Thread(target=work, args=(timeout,)) for timeout in (60.0, 0.1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert isinstance(results[0.1], TransportError)
    assert isinstance(results[60.0], list)
