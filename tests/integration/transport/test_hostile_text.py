"""Strings that Airflow's database, logs or terminals choke on, over a real socket: no error carries them."""

from __future__ import annotations

import json
import unicodedata

import pytest

from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    InvalidReplyError,
    PermissionDeniedError,
    RateLimitedError,
)
from airflow_provider_testruns.platforms.eggplant import EggplantPlatform
from airflow_provider_testruns.platforms.futureagi import FutureAGIPlatform
from airflow_provider_testruns.platforms.omilia import OmiliaPlatform
from airflow_provider_testruns.transport.auth import OAuthToken
from tests.integration.transport.wires import Drive, RawServer, answering, get, session

pytestmark = pytest.mark.integration

#: As JSON spells them.
HOSTILE = [
    r"half \ud800 of a pair",
    r"the other \udfff half",
    r"NUL \u0000 in it",
    r"\u001b[31mred\u001b[0m and \u009b2J",
    r"\u001b]0;a title\u0007",
    r"first line\nERROR - a line that is not ours\r\u2028and another",
    r"turned \u202e around \u2066",
    r"\ufffe\uffff no characters",
    r"DEL \u007f and C1 \u0085\u0090",
]


def is_harmless(text: str) -> bool:
    """Whether it can be encoded, stored in PostgreSQL and logged on one line."""
    text.encode()
    return len(text.splitlines()) <= 1 and not any(
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff"
        for character in text
    )


@pytest.mark.parametrize("said", HOSTILE)
def test_an_errors_text(drive: Drive, said: str) -> None:
    bodies = iter(
        [
            f'{{"detail": "{said}"}}',
            f'{{"{said}": ["{said}", {{"x": "{said}"}}]}}',
            f'"{said}"',
            # No JSON: as they come over the wire.
            json.loads(f'"{said}"'),
        ]
    )
    talk = answering(lambda seen: (403, next(bodies).encode("utf-8", "surrogatepass")))
    with RawServer(talk) as server:
        client = drive(session(server.url))
        for _ in range(4):
            with pytest.raises(PermissionDeniedError) as caught:
                client.ask(get())
            assert is_harmless(str(caught.value))
            assert "HTTP 403" in str(caught.value)


HEADERS = [
    (302, {"Location": "http://elsewhere.example/\x1b[31m\x9b\x80"}, InvalidReplyError),
    (302, {"Location": "http://else\xed\xa0\x80where.example:bad/"}, InvalidReplyError),
    (429, {"Retry-After": "\xed\xa0\x80"}, RateLimitedError),
    (200, {"Content-Type": "text/\x1b[31m\xed\xa0\x80html"}, InvalidReplyError),
]


@pytest.mark.parametrize(("status", "headers", "kind"), HEADERS)
def test_headers(drive: Drive, status: int, headers: dict[str, str], kind: type[ApiError]) -> None:
    with RawServer(answering(lambda seen: (status, b"no JSON", headers))) as server, pytest.raises(ApiError) as caught:
        drive(session(server.url)).ask(get())
    # A client may refuse the header itself; what it says of it is as harmless.
    assert is_harmless(str(caught.value))


@pytest.mark.parametrize("said", HOSTILE)
def test_what_a_token_endpoint_says(drive: Drive, said: str) -> None:
    body = f'{{"error": "invalid_grant", "error_description": "{said}"}}'.encode()
    with RawServer(answering(lambda seen: (400, body))) as server:
        auth = OAuthToken(f"{server.url}/token", {"grant_type": "password", "password": "canary-password"})
        with pytest.raises(AuthenticationError) as caught:
            drive(session(server.url, auth)).ask(get())
    assert is_harmless(str(caught.value))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_has_not(drive: Drive, number: str) -> None:
    body = f'{{"data": {{"runId": "r-1", "status": "SUCCESS", "x": {number}}}}}'.encode()
    with RawServer(answering(lambda seen: (200, body))) as server, pytest.raises(InvalidReplyError, match="not JSON"):
        drive(session(server.url)).run(OmiliaPlatform().get_run(OmiliaPlatform().run_by_id("r-1")))


BAD_IDS = ["../../../etc/x", "..", ".", "a/b", "a b", r"a\u0000", r"\ud800", "{{ var.value.x }}", "x" * 201, r"a\nb"]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_ids_that_are_none(drive: Drive, bad: str) -> None:
    """Ids of runs go into paths, file names and templates of users."""
    bodies = {
        "/api/runs/": f'{{"data": {{"runId": "{bad}", "status": "PENDING"}}}}',
        "/api/runs/r-1": f'{{"data": {{"runId": "{bad}", "status": "PENDING"}}}}',
        "/execution_service/api/v1/executions": f'{{"execution_id": "{bad}"}}',
        "/simulate/run-tests/985eb69c-2e94-42ab-b0f2-5be252bb14f4/execute/": f'{{"execution_id": "{bad}"}}',
    }
    with RawServer(
        answering(lambda seen: (200, bodies.get(seen.path, '{"results": [], "items": []}').encode()))
    ) as server:
        client = drive(session(server.url))
        starts = [
            OmiliaPlatform().prepare_start(project_id="p-1"),
            EggplantPlatform(server.url).prepare_start(script="s"),
            FutureAGIPlatform(base_url=server.url).prepare_start(
                run_test_id="985eb69c-2e94-42ab-b0f2-5be252bb14f4", select_all=True
            ),
        ]
        for steps in starts:
            with pytest.raises(InvalidReplyError, match="should be") as caught:
                client.ask(client.run(steps).call)
            assert is_harmless(str(caught.value))
        with pytest.raises(InvalidReplyError, match="should be an id"):
            client.run(OmiliaPlatform().get_run(OmiliaPlatform().run_by_id("r-1")))
