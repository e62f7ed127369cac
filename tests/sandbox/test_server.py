"""The server itself: several at once, TLS, connections, pages, and the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.omilia import STATIC_BEARER, named_id
from airflow_provider_testruns.sandbox.platform import Settings
from airflow_provider_testruns.sandbox.server import SandboxServer

pytestmark = pytest.mark.integration

AUTH = {"Authorization": f"Bearer {STATIC_BEARER}"}


def test_it_answers_when_it_has_started_and_leaves_nothing_behind() -> None:
    threads = threading.active_count()
    with SandboxServer() as sandbox:
        assert requests.get(f"{sandbox.url}/omilia/api/healthcheck/", timeout=60).ok
        url = sandbox.url
    assert threading.active_count() == threads
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/omilia/api/healthcheck/", timeout=60)


def test_closing_cuts_what_still_hangs() -> None:
    with SandboxServer() as sandbox:
        sandbox.control.fault("hang", platform="omilia", seconds=60)
        outcome: list[Exception] = []

        def ask() -> None:
            try:
                requests.get(f"{sandbox.url}/omilia/api/healthcheck/", timeout=60)
            except requests.RequestException as problem:
                outcome.append(problem)

        asking = threading.Thread(target=ask)
        asking.start()
        while not sandbox.control.stats()["connections"]["open"]:
            time.sleep(0.01)
    # The request would hang for a minute, and the client wait for half of one.
    asking.join(20)
    assert [type(problem) for problem in outcome] == [requests.ConnectionError]


def test_servers_share_nothing() -> None:
    with SandboxServer() as one, SandboxServer() as other:
        one.control.create_project("mine", id="0a000000-0000-4000-8000-0000000000aa")
        one.control.add_runs("omilia", "smoke")
        one.control.fault("status", platform="omilia", status=500)
        one.control.configure(run_seconds=1)
        assert requests.get(f"{other.url}/omilia/api/projects/", headers=AUTH, timeout=60).json()["meta"]["count"] == 5
        assert other.control.runs() == []
        assert other.control.settings() == {**one.control.settings(), "run_seconds": 6.0}
        assert one.control.stats()["requests"] == 0


def test_a_seed_repeats_the_ids() -> None:
    def ids() -> list[str]:
        with SandboxServer(seed=3) as sandbox:
            return sandbox.control.add_runs("futureagi", "nightly-support-sim", 2)

    assert ids() == ids()


def test_settings_at_the_start() -> None:
    given = Settings(run_seconds=5, cancel_seconds=0)
    with SandboxServer(given, run_seconds=2) as sandbox:
        sandbox.control.configure(latency=0.1)
        sandbox.control.reset()
        assert sandbox.control.settings() == {**asdict(given), "run_seconds": 2}
    assert given == Settings(run_seconds=5, cancel_seconds=0)


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, bundle = tmp_path / "server.pem", tmp_path / "ca.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(chain))
    authority.cert_pem.write_to_path(str(bundle))
    with SandboxServer(certfile=str(chain), keyfile=str(chain), verify=str(bundle)) as sandbox:
        url = f"{sandbox.url}/omilia/api/healthcheck/"
        assert url.startswith("https://")
        assert requests.get(url, verify=str(bundle), timeout=60).ok
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url, timeout=60)
        assert sandbox.connections()["omilia_default"]["extra"]["verify"] == str(bundle)
        sandbox.control.fault("drop", platform="omilia", times=1)
        with pytest.raises((requests.ConnectionError, ssl.SSLError)):
            requests.get(url, verify=str(bundle), timeout=60)
        sandbox.control.fault("truncate", platform="omilia", times=1)
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            requests.get(url, verify=str(bundle), timeout=60)


def test_connections_are_ready_for_airflow(sandbox: SandboxServer) -> None:
    found = json.loads(json.dumps(sandbox.connections()))
    assert list(found) == ["eggplant_default", "futureagi_default", "omilia_default"]
    for name, connection in found.items():
        platform = name.removesuffix("_default")
        assert connection["conn_type"] == platform
        assert connection["host"] == f"{sandbox.url}/{platform}"
        assert "canary" in connection["password"]
    assert found["futureagi_default"]["extra"]["secret_key"]


def test_every_run_has_a_page(control: Control, sandbox: SandboxServer) -> None:
    names = {"eggplant": "Returns", "futureagi": "flaky-support-sim", "omilia": "regression"}
    for platform, name in names.items():
        (run_id,) = control.add_runs(platform, name)
        extra = sandbox.connections()[f"{platform}_default"]["extra"]
        if platform == "futureagi":
            run_test = control.run(run_id)["target_id"]
            url = f"{extra['app_url']}/dashboard/simulate/test/{run_test}/{run_id}"
        else:
            url = extra["run_url_template"].format(run_id=run_id)
        assert 'http-equiv="refresh"' in requests.get(url, timeout=60).text
        control.finish_run(run_id)
        page = requests.get(url, timeout=60)
        assert page.headers["Content-Type"].startswith("text/html")
        assert run_id in page.text
        assert name in page.text
        assert 'http-equiv="refresh"' not in page.text
    assert requests.get(f"{sandbox.url}/_sandbox/runs/omilia/nothing", timeout=60).status_code == 404


def test_names_on_pages_are_escaped(control: Control, sandbox: SandboxServer) -> None:
    control.create_project("<script>alert(1)</script>")
    (run_id,) = control.add_runs("omilia", "<script>alert(1)</script>")
    assert "<script>" not in requests.get(f"{sandbox.url}/_sandbox/runs/omilia/{run_id}", timeout=60).text


def test_responses_carry_the_date_that_runs_go_by(control: Control, sandbox: SandboxServer) -> None:
    control.advance(7 * 86_400.0)
    for path in ("/omilia/api/healthcheck/", "/futureagi/health/", "/eggplant/nothing", "/_sandbox/state"):
        before = int(control.now())
        date = requests.get(sandbox.url + path, timeout=60).headers["Date"]
        assert before <= parsedate_to_datetime(date).timestamp() <= control.now()


def test_requests_from_many_threads(control: Control, sandbox: SandboxServer) -> None:
    def start_some() -> None:
        with requests.Session() as session:
            for _ in range(10):
                body = {"projectId": named_id(1)}
                session.post(f"{sandbox.url}/omilia/api/runs/", json=body, headers=AUTH, timeout=60)
                control.stats()

    threads = [threading.Thread(target=start_some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert control.count("omilia.create_run") == len(control.runs("omilia")) == 80


def command_line(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_testruns.sandbox", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            break
    return lines


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_command_line(stop: signal.Signals) -> None:
    with command_line("--port", "0", "--run-seconds", "1", "--eggplant-generation", "runs_only") as process:
        lines = read_until(process, "smoke-git")
        url = re.findall(r"http://127\.0\.0\.1:\d+", lines[0])[0]
        exports = [line for line in lines if line.startswith("export AIRFLOW_CONN_")]
        assert [line.partition("=")[0].rpartition("CONN_")[2] for line in exports] == [
            "EGGPLANT_DEFAULT",
            "FUTUREAGI_DEFAULT",
            "OMILIA_DEFAULT",
        ]
        connection: dict[str, Any] = json.loads(exports[2].partition("=")[2].strip("'"))
        assert connection["host"] == f"{url}/omilia"
        assert any(named_id(1) in line and "smoke" in line and "passes" in line for line in lines)
        state = requests.get(f"{url}/_sandbox/state", timeout=60).json()
        assert state["settings"]["run_seconds"] == 1
        assert state["settings"]["eggplant_generation"] == "runs_only"
        process.send_signal(stop)
        _, errors = process.communicate(timeout=60)
        assert errors == ""
    # uvicorn hands the signal on once it has cleaned up.
    assert process.returncode in (0, -stop)


@pytest.mark.parametrize("arguments", [("--tls-cert", "x.pem"), ("--port", "1", "--host", "192.0.2.1")])
def test_mistakes_on_the_command_line(arguments: tuple[str, ...]) -> None:
    with command_line(*arguments) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error:" in errors


def test_the_sandbox_stands_alone() -> None:
    """It is imported where neither Airflow nor an HTTP client is installed."""
    program = (
        "import sys, airflow_provider_testruns.sandbox.server, airflow_provider_testruns.sandbox.__main__;"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'airflow', 'requests', 'aiohttp'}),"
        "sorted(m for m in sys.modules if m.startswith('airflow_provider_testruns.') and '.sandbox' not in m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout.split("\n")[0] == "[] []"
