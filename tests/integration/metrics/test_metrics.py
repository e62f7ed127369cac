"""Every metric and span arrives, from a worker and from the triggerer, at a StatsD server and at an OTLP receiver."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from airflow_provider_testruns.sandbox.server import SandboxServer

pytestmark = pytest.mark.integration

_WITHIN = 300.0
#: What a worker and the triggerer send, without the prefix of Airflow's and ours.
_OF_WORKER = {"started", "polls", "poll_errors", "finished", "duration"}
_OF_TRIGGERER = {"polls", "watched", "of_the_triggerer"}


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(run_seconds=0.5) as server:
        server.control.fault("status", operation="omilia.get_run", status=503, times=1)
        yield server


def _run(sandbox: SandboxServer, home: Path, settings: Mapping[str, str]) -> None:
    """Both processes, with settings of Airflow."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW__", "OTEL_"))}
    environment |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_OMILIA_DEFAULT": json.dumps(sandbox.connections()["omilia_default"]),
        **settings,
    }
    command = [sys.executable, "-m", "tests.integration.metrics.processes"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_WITHIN, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_statsd_gets_each_with_platform_and_verdict_in_its_name(sandbox: SandboxServer, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        settings = {"STATSD_ON": "True", "STATSD_HOST": "127.0.0.1", "STATSD_PORT": str(receiver.getsockname()[1])}
        _run(sandbox, tmp_path, {f"AIRFLOW__METRICS__{name}": value for name, value in settings.items()})
        receiver.setblocking(False)
        lines: list[str] = []
        while True:
            try:
                lines += receiver.recv(65_536).decode().splitlines()
            except BlockingIOError:
                break
    found: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        if (ours := re.fullmatch(r"airflow\.testruns\.([\w.]+):([^|]+\|\w+).*", line)) is not None:
            found[ours[1]].append(ours[2])
    assert found["started.omilia"] == ["1|c"]
    assert found["finished.omilia.passed"] == ["1|c"]
    assert found["poll_errors.omilia.ServerError"] == ["1|c"]
    assert found["of_the_triggerer.omilia"] == ["1|c"]
    assert found["watched.omilia"] == ["0|g"]
    (duration,) = found["duration.omilia.passed"]
    assert duration.endswith("|ms")
    assert float(duration.removesuffix("|ms")) >= 400
    # One for each process, whatever was polled.
    assert len(found["polls.omilia"]) == 2
    assert {name.partition(".")[0] for name in found} == _OF_WORKER | _OF_TRIGGERER


class _Receiver(BaseHTTPRequestHandler):
    """Takes what OTLP sends over HTTP."""

    bodies: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.bodies.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


def test_opentelemetry_gets_each_with_its_tags_and_spans(sandbox: SandboxServer, tmp_path: Path) -> None:
    bodies: list[tuple[str, bytes]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Receiver", (_Receiver,), {"bodies": bodies}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        settings = {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "AIRFLOW__TRACES__OTEL_ON": "True",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp_proto_http",
        }
        _run(sandbox, tmp_path, settings)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    spans: list[str] = []
    for path, body in bodies:
        if path.endswith("/metrics"):
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for metric in (each for scope in resource.scope_metrics for each in scope.metrics):
                    data = getattr(metric, metric.WhichOneof("data"))
                    for point in data.data_points:
                        found[metric.name].append({each.key: each.value.string_value for each in point.attributes})
        else:
            for traced in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans += [each.name for scope in traced.scope_spans for each in scope.spans]
    ours = {name.removeprefix("airflow.testruns."): tags for name, tags in found.items() if ".testruns." in name}
    assert set(ours) == _OF_WORKER | _OF_TRIGGERER
    assert {"platform": "omilia", "verdict": "passed"} in ours["finished"]
    assert {"platform": "omilia", "error": "ServerError"} in ours["poll_errors"]
    assert ours["started"][-1] == {"platform": "omilia"}
    # The worker waited in place; the triggerer once more.
    assert sorted(name for name in spans if name.startswith("testruns.")) == [
        "testruns.judge",
        "testruns.start",
        "testruns.wait",
        "testruns.wait",
    ]
