"""The page "Test runs": what it finds in Airflow's database, who may see it, and its HTML."""

from __future__ import annotations

import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.api_fastapi.core_api.security import get_user
from airflow.models.xcom import XComModel
from fastapi import HTTPException
from sqlalchemy import insert, select
from sqlalchemy import text as sql_text
from sqlalchemy.dialects import mysql, postgresql, sqlite

from airflow_provider_testruns.links.run import mark_test_run
from airflow_provider_testruns.model import Run, RunState
from airflow_provider_testruns.plugin import ResultsPlugin
from airflow_provider_testruns.plugin.app import NEWEST, RUNS, TASKS
from airflow_provider_testruns.plugin.stored import _bounded
from tests.harness.outside import ACME, visible
from tests.integration.plugin.pages import BEGAN, Page, Tags, mark, report, rows, text

pytestmark = pytest.mark.integration

_EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def page() -> Iterator[Page]:
    made = Page()
    with made.client:
        yield made
    made.engine.dispose()


def test_a_run_is_shown_with_its_verdict_counts_and_links(page):
    failed = report(7, ("joint account",), finished_at=None, started_at="2026-11-01T05:00:00+00:00", duration=75.4)
    page.add(
        {
            "number": 7,
            "state": "failed",
            "run_id": "manual__2026-11-01T00:07:00+00:00",
            "xcoms": {"return_value": failed},
        }
    )
    (row,) = rows(page.get())
    assert text(row) == (
        "failed shop . test manual__2026-11-01T00:07:00+00:00 Omilia Testing Studio run-7 3 1 4 75 % 1 min 15 s"
        " 2026-11-01 05:00 Task &middot; Test run"
    )
    assert 'href="../dags/shop/runs/manual__2026-11-01T00%3A07%3A00%2B00%3A00/tasks/test"' in row
    assert 'href="http://127.0.0.1/runs/7" target="_blank" rel="noopener noreferrer"' in row


def test_mapped_tasks_lead_to_their_own_pages(page):
    page.add({"number": 1, "map_index": 0}, {"number": 1, "map_index": 1})
    found = rows(page.get())
    assert ["tasks/test/mapped/1" in row for row in found] == [True, False]
    assert ["tasks/test/mapped/0" in row for row in found] == [False, True]


@pytest.mark.parametrize(
    ("state", "value", "said"),
    [
        ("deferred", None, "running"),
        ("running", None, "running"),
        ("up_for_retry", None, "will retry"),
        ("failed", None, "no report"),
        ("success", {"run_id": "run-1", "run_url": "", "state": "running"}, "started"),
        ("failed", report(1, verdict="errored"), "errored"),
        # As a version of Airflow stores what it was given as a text.
        ("success", '{"verdict": "passed", "pass_rate": 1.0}', "passed"),
    ],
)
def test_what_a_task_without_a_verdict_is_said_to_be(page, state, value, said):
    page.add({"number": 1, "state": state, "xcoms": {"return_value": value}})
    (row,) = rows(page.get())
    assert text(row).startswith(f"{said} shop . test")


def test_runs_are_found_by_their_marks_and_other_tasks_are_left_out(page):
    page.add(
        {"number": 1, "operator": "BashOperator", "xcoms": {"test_run": None}},
        # A class that is made of ours, and one of another package.
        {"number": 2, "operator": "NightlyRunOperator"},
        {"number": 3, "operator": "OmiliaRevokeRunOperator", "xcoms": {"test_run": None}},
        {"number": 4, "xcoms": {"run_url": None}},
    )
    assert [re.findall("run-[0-9]", row)[0] for row in rows(page.get())] == ["run-2"]
    assert text(page.get("tasks")).count("1 of the last 1 passed") == 1


@pytest.mark.parametrize(
    "operator",
    [
        "EggplantStartTestConfigurationOperator",
        "FutureAGIExecuteTestRunOperator",
        "OmiliaCreateRunOperator",
        "EggplantRunProgressSensor",
        "OmiliaGenerationSensor",
    ],
)
def test_runs_from_before_there_were_marks_are_shown(page, operator):
    page.add(
        {"number": 1, "operator": operator, "xcoms": {"test_run": None}},
        {"number": 2, "operator": operator, "state": "running", "xcoms": {"test_run": None, "return_value": None}},
    )
    assert [text(row).split()[0] for row in rows(page.get())] == ["running", "passed"]


def test_a_run_without_a_report_is_shown_with_what_its_mark_says(page):
    page.add({"number": 7, "state": "deferred", "xcoms": {"return_value": None}})
    (row,) = rows(page.get())
    assert "running shop . test manual__7 Omilia Testing Studio run-7 - - - - -" in text(row)
    assert '<td title="Connection omilia_default">Omilia Testing Studio' in row


def test_a_platform_of_another_package_has_its_name_while_that_is_installed(page):
    page.add(
        {"number": 1, "state": "running", "xcoms": {"test_run": mark(1, platform="acme"), "return_value": None}},
        {"number": 2, "xcoms": {"return_value": report(2, platform="acme")}},
    )
    with visible(ACME):
        assert ["Acme Labs" in text(row) for row in rows(page.get())] == [True, True]
    assert ["acme run-" in text(row) for row in rows(page.get())] == [True, True]


@pytest.mark.parametrize(
    "value",
    [
        {"platform": _EVIL, "conn_id": _EVIL, "run_id": _EVIL, "kind": _EVIL},
        {"platform": ["omilia"], "conn_id": {"a": 1}, "run_id": 7},
        {"platform": "x" * 100_000, "run_id": "y" * 100_000},
        [],
        "",
        7,
    ],
    ids=["evil", "kinds", "long", "list", "text", "number"],
)
def test_whatever_a_mark_says_breaks_nothing(page, value):
    page.add({"number": 1, "state": "running", "xcoms": {"test_run": value, "return_value": None}})
    html = page.get()
    (row,) = rows(html)
    assert text(row).startswith("running shop . test")
    assert len(row) < 4000
    tags = Tags()
    tags.feed(html)
    assert not {"script", "img"} & {tag for tag, _ in tags.seen}


def test_a_mark_is_small_whatever_the_run_is_named():
    told: dict[str, Any] = {}
    context: Any = {"ti": SimpleNamespace(xcom_push=lambda key, value: told.update({key: value}))}
    mark_test_run(context, Run("p" * 10_000, "r" * 10_000, RunState.QUEUED, ""), "c" * 10_000)
    assert told["test_run"].keys() == {"platform", "conn_id", "run_id", "kind"}
    assert len(str(told)) < 1100


def test_only_dags_that_the_user_may_read_are_shown(page):
    page.add({"number": 1}, {"number": 2, "dag": "secret_dag", "task": "secret_task"})
    for path in ("", "tasks"):
        assert "secret" not in page.get(path)
        hidden, missing = (page.get(path, dag_id=dag_id) for dag_id in ("secret_dag", "nowhere"))
        assert text(hidden) == text(missing)
    assert "secret_task" not in page.get("", dag_id="secret_dag", task_id="secret_task")
    page.manager.dag_ids.add("secret_dag")
    for path in ("", "tasks"):
        assert "secret_dag . secret_task" in page.get(path)


def test_who_may_not_read_xcoms_sees_nothing(page):
    page.add({"number": 1})
    page.manager.xcoms = False
    for path in ("/testruns/", "/testruns/tasks"):
        response = page.client.get(path)
        assert response.status_code == 403
        assert "You don&#39;t have access to XComs" in response.text
        assert "shop" not in response.text


@pytest.mark.parametrize("usually", [True, False])
def test_xcoms_are_asked_for_by_dag(page, usually):
    page.add({"number": 1}, {"number": 2, "dag": "other_dag", "task": "other_task"})
    page.manager.dag_ids.add("other_dag")
    page.manager.xcoms = usually
    page.manager.others = {"other_dag"} if usually else {"shop"}
    for path in ("", "tasks"):
        html = page.get(path)
        assert "shop . test" in html
        assert "other" not in html
        assert "other_task" not in page.get(path, dag_id="other_dag")
    assert "other_task" not in page.get("", dag_id="other_dag", task_id="other_task")


def test_who_is_not_logged_in_is_sent_to_the_login_and_back(page):
    def nobody() -> None:
        raise HTTPException(401, "Not authenticated")

    page.app.dependency_overrides[get_user] = nobody
    response = page.client.get("/testruns/?dag_id=shop")
    assert response.status_code == 302
    assert response.headers["Location"].startswith("../api/v2/auth/login?next=http%3A%2F%2F127.0.0.1%2Ftestruns%2F")
    assert response.headers["Location"].endswith("%3Fdag_id%3Dshop")


@pytest.mark.parametrize("path", ["", "tasks"])
def test_names_are_escaped_and_nothing_may_be_loaded(page, path):
    evil = report(1, (_EVIL,), run_id=_EVIL, platform=_EVIL, verdict="passed", url="javascript:alert(3)")
    page.add({"number": 1, "task": "a", "xcoms": {"return_value": evil, "run_url": "javascript:alert(4)"}})
    response = page.client.get(f"/testruns/{path}")
    tags = Tags()
    tags.feed(response.text)
    assert not {"script", "img", "link", "iframe", "object"} & {tag for tag, _ in tags.seen}
    assert "javascript:" not in response.text
    assert not [name for _, attributes in tags.seen for name in attributes if name.startswith("on") or name == "style"]
    policy = response.headers["Content-Security-Policy"]
    (nonce,) = [attributes["nonce"] for tag, attributes in tags.seen if tag == "style"]
    assert policy.startswith(f"default-src 'none'; style-src 'nonce-{nonce}';")
    assert page.client.get(f"/testruns/{path}").headers["Content-Security-Policy"] != policy
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "changes",
    [
        {"pass_rate": "all", "duration": "long", "total": None, "failures": "none", "metrics": 3},
        {"pass_rate": -4, "duration": -1, "failures": [1, {"name": 7}], "started_at": "yesterday", "url": 5},
        {"pass_rate": True, "passed": [], "failures": None, "failures_left_out": "x", "url": "http://["},
        {"verdict": "odd", "platform": None, "run_id": None, "started_at": "0001-01-01T00:00:00+14:00"},
        {"verdict": "odd", "started_at": "9999-12-31T23:59:59-14:00", "finished_at": "9999-12-31T23:59:59-14:00"},
        {"passed": 10**400, "failed": 10**308, "unavailable": 10**308, "total": -(10**400), "duration": 10**400},
        {"pass_rate": 10**400, "duration": 1e300, "failures_left_out": 10**400, "failed": 1e308, "total": 1e16},
    ],
)
def test_a_report_of_another_shape_breaks_nothing(page, changes):
    page.add({"number": 1, "xcoms": {"return_value": report(1) | changes}}, {"number": 2})
    assert len(rows(page.get())) == 2
    for path in ("", "tasks"):
        html = page.get(path, dag_id="shop")
        assert "nan" not in text(html)
        assert not re.search(r"\d{15}", text(html))


@pytest.mark.parametrize(
    "value",
    [
        # As it may stand in the database, whatever Airflow itself would write.
        '{"pass_rate": 1e999, "verdict": "passed", "duration": -1e999, "total": NaN}',
        '{"verdict": "passed", "pass_rate": ' + "9" * 5000 + "}",
        '{"pass_rate": 1, "verdict": "passed", "failures": ' + "[" * 50_000 + "]" * 50_000 + "}",
        '{"pass_rate": 1',
        '"\\ud800"',
        '{"pass_rate": 1, "verdict": "\\ud800", "run_id": "a\\u0000b", "url": "http://a/\\ud800"}',
    ],
    ids=["infinite", "digits", "deep", "half", "half a character", "odd characters"],
)
def test_whatever_is_stored_is_shown_or_left_out(page, value):
    page.add({"number": 1}, {"number": 2})
    with page.engine.begin() as connection:
        change = "UPDATE xcom SET value = :value WHERE dag_run_id = 1 AND key = 'return_value'"
        connection.execute(sql_text(change), {"value": value})
    for path in ("", "tasks"):
        response = page.client.get(f"/testruns/{path}")
        assert response.status_code == 200
        assert "shop . test" in response.text


def test_a_value_of_any_size_stays_in_the_database(page):
    """The row of another task of the same DAG, or a report that somebody has blown up."""
    long = report(1) | {"metrics": {"note": "x" * 31_000_000}}
    page.add(
        {"number": 1, "xcoms": {"return_value": long}},
        {"number": 2, "operator": "Ours", "xcoms": {"run_url": "y" * 2_000_000}},
    )
    del long
    tracemalloc.start()
    try:
        html = page.get()
        page.get("tasks")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
    assert "no report" in text(html) or "started" in text(html)
    assert len(rows(html)) == 2


@pytest.mark.parametrize("dialect", [sqlite, postgresql, mysql], ids=["sqlite", "postgresql", "mysql"])
def test_the_bound_is_in_the_statement_of_every_database(dialect):
    statement = str(select(_bounded(XComModel.value)).compile(dialect=dialect.dialect()))
    assert re.search(r"CASE WHEN \(length\(CAST\(xcom.value AS (TEXT|CHAR)\)\) <=", statement)


def test_the_cases_that_fail_most_often_are_counted_over_the_newest_runs(page):
    for number in range(1, 26):
        failing = ("often",) if number % 2 else ("often", "often", "rare") if number == 24 else ()
        # Before the newest 20: does not count.
        failing += ("long ago",) if number <= 5 else ()
        page.add({"number": number, "xcoms": {"return_value": report(number, failing)}})
    for html in (page.get("tasks"), page.get("", dag_id="shop", task_id="test")):
        said = text(html)
        assert f"11 of the last {NEWEST} Balance / often" in said
        assert f"1 of the last {NEWEST} Balance / rare" in said
        assert said.index("often") < said.index("rare")
        assert "long ago" not in said
        assert f"9 of the last {NEWEST} passed" in said


def test_the_trend_has_a_mark_for_each_run_from_oldest_to_newest(page):
    page.add(
        {"number": 1, "xcoms": {"return_value": report(1, ("a", "b"))}},
        {"number": 2, "state": "failed", "xcoms": {"return_value": None}},
        {"number": 3},
    )
    html = page.get("tasks")
    marks = re.findall(r"<title>(.*?)</title><(\w+) class=\"(\w+)\"", html[html.index("<svg") :])
    assert marks == [
        ("2026-11-01 00:01: failed, 50 %", "circle", "failed"),
        ("2026-11-01 00:02: no report", "rect", "none"),
        ("2026-11-01 00:03: passed, 100 %", "circle", "passed"),
    ]
    (line,) = re.findall(r'<polyline points="([^"]+)"', html)
    heights = [float(point.split(",")[1]) for point in line.split()]
    assert len(heights) == 2
    assert heights[0] > heights[1]
    assert text(html).count("1 of the last 2 passed") == 1


def test_cases_that_a_report_leaves_out_are_owned_up_to(page):
    page.add({"number": 1, "xcoms": {"return_value": report(1, ("a",), failures_left_out=3)}})
    assert "1 run names only the first of the cases that failed." in text(page.get("tasks"))


def test_pages_go_on_where_the_last_one_ended(page):
    # All at one moment, so that the order is by what else tells runs apart; and mapped, so that it takes all of it.
    page.add(
        *(
            {
                "number": 1 + n // 40,
                "map_index": n % 40,
                "minute": 0,
                "state": "deferred",
                "xcoms": {"return_value": None},
            }
            for n in range(2 * RUNS + 7)
        )
    )
    params: dict[str, str] = {}
    seen: list[str] = []
    sizes = []
    while True:
        html = page.get("", **params)
        found = re.findall(r'href="\.\./dags/([^"]+)"', html)
        sizes.append(len(found))
        seen += found
        params = page.older(html)
        if not params:
            break
    assert sizes == [RUNS, RUNS, 7]
    assert len(set(seen)) == 2 * RUNS + 7


def test_pages_of_tasks_go_on_where_the_last_one_ended(page):
    page.add(*({"number": n + 1, "task": f"task_{n}", "minute": n // 4} for n in range(2 * TASKS + 3)))
    params: dict[str, str] = {}
    seen: list[str] = []
    while True:
        html = page.get("tasks", **params)
        seen += re.findall(r"task_id=(\w+)\">shop", html)
        params = page.older(html)
        if not params:
            break
    assert len(seen) == len(set(seen)) == 2 * TASKS + 3


@pytest.mark.parametrize(
    "before",
    [
        "x",
        "[]",
        "{}",
        '["2026-11-01T00:00:00+00:00", 1, "t"]',
        '["2026-11-01T00:00:00+00:00", true, "t", 1]',
        '["then", 1, "t", 1]',
        '["2026-11-01T00:00:00", 1, "t", 1]',
        f'["2026-11-01T00:00:00+00:00", {10**30}, "t", 1]',
        f'["2026-11-01T00:00:00+00:00", {"9" * 1900}, "t", 1]',
        '["2026-11-01T00:00:00+00:00", 1e999, "t", 1]',
        '["0001-01-01T00:00:00+14:00", 1, "t", 1]',
        '["0001-01-01T00:00:00+00:00", "a", "t"]',
        '["9999-12-31T23:59:59-14:00", 1, "t", 1]',
        '["9999-12-31T23:59:59-14:00", "a", "t"]',
        '["2026-11-01T00:00:00+00:00", "a", "\\ud800"]',
        '["2026-11-01T00:00:00+00:00", "a\\u0000", "t"]',
        '["2026-11-01T00:00:00+00:00", ["a"], {"b": "c"}]',
        "[" * 1990,
        '{"a":' * 390,
        "[" * 900 + "]" * 900,
    ],
)
def test_a_place_that_is_none_is_refused(page, before):
    for path in ("/testruns/", "/testruns/tasks"):
        response = page.client.get(path, params={"before": before})
        assert response.status_code == 422
        assert "not a position in the list" in response.text


@pytest.mark.parametrize(
    "params",
    [{"dag_id": "x" * 300}, {"task_id": "x" * 300, "dag_id": "shop"}, {"before": "[" * 3000}, {"dag_id": "a\0b"}],
    ids=["dag_id", "task_id", "before", "NUL"],
)
def test_a_query_of_another_kind_is_refused_with_a_sentence(page, params):
    page.add({"number": 1})
    response = page.client.get("/testruns/", params=params)
    assert response.status_code == 422
    assert response.headers["Content-Type"].startswith("text/html")
    assert next(iter(params)) + ": " in text(response.text)
    assert page.client.get("/testruns/", params={"dag_id": "shop", "task_id": "a\0b"}).status_code == 422


def test_without_runs_it_says_what_will_be_here(page):
    assert "No test runs yet." in page.get()
    assert "No test runs yet." in page.get("tasks")


@pytest.mark.parametrize(
    ("path", "params", "most"),
    [
        ("", {}, 3),
        ("", {"dag_id": "dag_3"}, 3),
        ("", {"dag_id": "dag_3", "task_id": "task_1"}, 3),
        ("tasks", {}, 5),
        ("tasks", {"dag_id": "dag_3"}, 5),
    ],
)
def test_queries_are_few_whatever_is_stored(full: Callable[[], Page], path, params, most):
    page = full()
    began = datetime.now(UTC)
    html = page.get(path, **params)
    assert len(page.statements) <= most
    assert all(" LIMIT " in each or "DISTINCT" in each or " IN (" in each for each in page.statements)
    # Nor do the later pages take more.
    older = page.older(html)
    assert older or path == "tasks"
    page.get(path, **older)
    assert len(page.statements) <= most + ("task_id" in params) * 2
    assert len(html) < 200_000
    # Generous: it takes some tenths of a second.
    assert (datetime.now(UTC) - began).total_seconds() < 20


@pytest.fixture(scope="module")
def full() -> Iterator[Callable[[], Page]]:
    """10 000 reports of 20 DAGs with 3 tasks each, among 20 000 XComs of other tasks."""
    page = Page()
    page.manager.dag_ids = {f"dag_{n}" for n in range(20)}
    for start in range(0, 10_000, 2000):
        page.add(
            *(
                {
                    "number": n + 1,
                    "dag": f"dag_{n % 20}",
                    "task": f"task_{n // 20 % 3}",
                    "xcoms": {"return_value": report(n, ("one", "two") if n % 7 == 0 else ())},
                }
                for n in range(start, start + 2000)
            )
        )
    with page.engine.begin() as connection:
        others = [
            {
                "dag_id": "other",
                "task_id": "t",
                "run_id": str(n),
                "dag_run_id": 100_000 + n,
                "map_index": -1,
                "key": "return_value",
                "value": {"n": n},
                "timestamp": BEGAN,
            }
            for n in range(20_000)
        ]
        connection.execute(insert(XComModel.__table__), others)
    with page.client:
        yield lambda: page
    page.engine.dispose()


def test_airflow_finds_the_plugin():
    entries = metadata.distribution("airflow-provider-testruns").entry_points
    (entry,) = [each for each in entries if each.group == "airflow.plugins"]
    assert entry.load() is ResultsPlugin
    ResultsPlugin.validate()
    (view,) = ResultsPlugin.external_views
    # Framed views can't open tasks and platforms.
    assert "url_route" not in view
    assert (view["category"], view["href"]) == ("browse", "testruns/")
    (app,) = ResultsPlugin.fastapi_apps
    assert app["url_prefix"] == "/testruns"


def test_the_plugin_is_light_as_every_process_of_airflow_loads_it():
    code = (
        "import sys, airflow.plugins_manager; before = set(sys.modules); import airflow_provider_testruns.plugin;"
        "print(sorted(n for n in set(sys.modules) - before if not n.startswith('airflow_provider_testruns')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
