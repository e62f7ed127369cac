"""Large test suites go up and come down in a process that grows by little, and that says how far it is.

What counts is that it does not grow with the file: with 500 MB it is the same.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from airflow_provider_testruns.sandbox.archives import stream_zip
from airflow_provider_testruns.transport.progress import STEP

pytestmark = pytest.mark.integration

SIZE = 64_000_000
#: How much the process may grow; for 500 MB, 64 MB are allowed.
MOST = 16_000_000
PROJECT = "0a000000-0000-4000-8000-000000000001"
#: The process that is measured. What it needs for anything at all it needs for a small transfer, which comes first.
CHILD = """
import logging, re, sys
from pathlib import Path
from airflow_provider_testruns.hooks.omilia import OmiliaHook

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s", force=True)

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

hook, what, small, large = OmiliaHook(), *sys.argv[1:]
move = getattr(hook, what)
move("small", small)
Path("/proc/self/clear_refs").write_text("5")
before = peak()
move("large", large)
print(peak() - before)
"""


class Server(ThreadingHTTPServer):
    """Takes and gives suites without keeping them: the sandbox holds them in memory."""

    daemon_threads = True
    received = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        assert isinstance(self.server, Server)
        self.server.received = left
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        self.send_response(204)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/zip")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in stream_zip("a.raw", SIZE if "/large/" in self.path else 1000):
            if chunk:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def moved(server: Server, what: str, small: Path, large: Path) -> tuple[int, str]:
    """Move two files in a process of its own.

    :return: by how much it grew at most, in bytes, and what it said.
    """
    connection = {"conn_type": "omilia", "host": f"http://127.0.0.1:{server.server_port}", "password": "canary"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, what, str(small), str(large)],
        env={
            **os.environ,
            "AIRFLOW_CONN_OMILIA_DEFAULT": json.dumps(connection),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "NO_PROXY": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]), done.stderr


def sparse(path: Path) -> Path:
    """A large file that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def test_a_large_zip_goes_up(server: Server, tmp_path: Path) -> None:
    # What stands before an archive belongs to nothing in it.
    for path in (tmp_path / "small.zip", sparse(tmp_path / "large.zip")):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("tests/a.yml", "a")
    grown, said = moved(server, "upload_test_suites", tmp_path / "small.zip", tmp_path / "large.zip")
    assert server.received > SIZE
    assert grown < MOST
    steps = re.findall(r"Sent of POST /api/projects/large/suites/: ([\d.]+) of 64.0 MB", said)
    assert len(steps) == SIZE // STEP


def test_a_large_folder_goes_up(server: Server, tmp_path: Path) -> None:
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
    (tmp_path / "small" / "a.yml").write_text("a")
    sparse(tmp_path / "large" / "a.raw")
    grown, said = moved(server, "upload_test_suites", tmp_path / "small", tmp_path / "large")
    assert 0 < server.received < SIZE / 100
    assert grown < MOST
    assert len(re.findall(r"Packed so far: [\d.]+ MB", said)) == SIZE // STEP
    assert "Packed 1 files: 0.1 MB" in said


def test_a_large_zip_comes_down(server: Server, tmp_path: Path) -> None:
    grown, said = moved(server, "download_test_suites", tmp_path / "small.zip", tmp_path / "large.zip")
    with zipfile.ZipFile(tmp_path / "large.zip") as archive:
        assert archive.getinfo("a.raw").file_size == SIZE
    assert grown < MOST
    assert len(re.findall(r"Received of GET /api/projects/large/suites/download/: [\d.]+ MB", said)) == SIZE // STEP
