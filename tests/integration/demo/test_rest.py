"""What the demo asks of an Airflow that does not answer at once."""

from __future__ import annotations

import pytest
import requests

from demo.rest import AirflowApi
from tests.harness.waiting import wait_until
from tests.integration.transport.wires import Line, RawServer

pytestmark = pytest.mark.integration


def test_what_only_reads_is_asked_again_and_what_starts_a_dag_is_not() -> None:
    def talk(line: Line) -> None:
        # It hangs up on whoever comes first, and on whoever wants something done.
        while (seen := line.read()) is not None and line.number > 1 and seen.method == "GET":
            line.response(200, b'{"dag_id": "one", "state": "running"}')

    with RawServer(talk) as server:
        api = AirflowApi(server.url)
        assert api.dag_run("one", "first")["state"] == "running"
        assert [seen.method for seen in server.seen] == ["GET", "GET"]
        with pytest.raises(requests.ConnectionError):
            api.trigger("one")
        api.close()
        assert [seen.method for seen in server.seen] == ["GET", "GET", "POST"]


def test_a_server_that_hangs_is_given_up_in_the_end() -> None:
    def talk(line: Line) -> None:
        line.read()
        line.server.closing.wait()

    with RawServer(talk) as server:
        api = AirflowApi(server.url, timeout=0.1)
        with pytest.raises(requests.Timeout):
            api.dags()
        api.close()
        wait_until(lambda: server.connections == 3, "it is asked three times")
