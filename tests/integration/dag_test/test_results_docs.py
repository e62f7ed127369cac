"""The DAGs of docs/results.md are run; their mail is really sent."""

from __future__ import annotations

import json
import re
import socketserver
import threading
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from airflow_provider_testruns.sandbox.control import Control
from tests.integration.dag_test.running import AirflowProcess
from tests.unit.junit_files import outcomes_of_two_readers

pytestmark = pytest.mark.integration

TEXT = (Path(__file__).parents[3] / "docs" / "results.md").read_text()
BLOCKS = dict(
    reversed((block, re.findall(r"^(\w+)\(\)$", block, re.MULTILINE)[-1]))
    for block in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
)


class Mailbox(socketserver.ThreadingTCPServer):
    """A mail server that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Delivery)
        self.messages: list[Message] = []

    @property
    def connection(self) -> str:
        """The Airflow connection that leads here."""
        extra = {"disable_ssl": True, "disable_tls": True}
        host, port = self.server_address[:2]
        return json.dumps({"conn_type": "smtp", "host": host, "port": port, "extra": extra})


class _Delivery(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline():
            command = line[:4].upper()
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                self.server.messages.append(message_from_bytes(b"".join(lines)))
            self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 ok\r\n")


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def source(dag_id: str) -> str:
    return BLOCKS[dag_id].replace(f"\n{dag_id}()", f"\ndag = {dag_id}()")


def test_all_blocks_are_run_here() -> None:
    assert set(BLOCKS) == {"known_failures", "mail_on_failure"}


def test_known_failures(airflow: AirflowProcess, platforms: Control, tmp_path: Path) -> None:
    platforms.configure(run_seconds=0.0)
    code = source("known_failures").replace("/tmp/testruns/", f"{tmp_path}/")
    done = airflow.run_file(code, "known_failures")["regression"]
    assert done.state == "success"
    assert [case["name"] for case in done.result["allowed_failures"]] == [
        "balance_joint_account",
        "transfer_above_limit",
    ]
    assert [case["name"] for case in done.result["failures"]] == ["block_then_replace"]
    file = Path(done.result["junit_path"])
    assert file.is_relative_to(tmp_path)
    assert file.name == f"omilia-{done.result['run_id']}.xml"
    assert len(outcomes_of_two_readers(file)) == 9


def test_mail_on_failure(airflow: AirflowProcess, platforms: Control, mailbox: Mailbox) -> None:
    platforms.configure(run_seconds=0.0)
    code = f"import os\n\nos.environ['AIRFLOW_CONN_SMTP_DEFAULT'] = {mailbox.connection!r}\n\n"
    done = airflow.run_file(code + source("mail_on_failure"), "mail_on_failure")["regression"]
    assert done.state == "failed"
    assert len(mailbox.messages) == 1
    mail = mailbox.messages[0]
    assert (mail["To"], mail["Subject"]) == ("testers@example.com", "regression: failed")
    part = next(part for part in mail.walk() if part.get_content_type() == "text/html")
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    html = payload.decode()
    assert f'<a href="{done.result["url"]}">The run</a>' in html
    assert "6 of 9 passed" in html
    assert html.count("<li>") == 3
    assert (
        "<li>unavailable: <code>block_then_replace</code>: Voice application did not answer within 10 seconds</li>"
        in html
    )
