"""The provider in Airflow's UI, in a real browser: the chromium of the machine.

With ``UI_SCREENSHOTS`` in the environment the pictures in docs/images are made again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_testruns.sandbox import omilia
from airflow_provider_testruns.sandbox.server import SandboxServer
from demo.airflow import FINAL_RUN_STATES, LocalAirflow
from tests.e2e.conftest import RUN_SECONDS, SharedAirflow
from tests.harness.waiting import wait_until

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright's Python package is not installed")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
#: The first takes two thirds of the CPU time that the others take: it has nothing around the pages.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser"))), None)
TITLES = {"eggplant": "Eggplant DAI", "futureagi": "Future AGI", "omilia": "Omilia Testing Studio"}
FORMS = {
    "eggplant": ["DAI address", "Client ID (client_id)", "Client secret (client_secret)", "Realm", "Token URL"],
    "futureagi": ["API address", "API key", "Secret key", "App address"],
    "omilia": ["Testing Studio address", "User name or client id", "Personal access token", "Grant type"],
}
#: DAG to trigger; what its form says. Each has a kind of parameter that the others have not; that those of all examples
#: have a title and a description is seen without a browser.
TRIGGERS = {
    "example_eggplant": ["Model", "Returns has a test that fails", "Test case", "Agent"],
    "example_eggplant_nightly": ["Models"],
    "example_futureagi": ["Test run", "Evaluation gates"],
    "example_omilia": ["Project", "Group", "Only test cases of this group"],
    "example_release_gate": ["Version", "What to release, such as 1.4.0.", "Omilia: projects"],
}


@dataclass
class World:
    """An Airflow, the sandbox behind its connections, and the DAG runs that the tests look at."""

    airflow: LocalAirflow
    sandbox: SandboxServer
    failing: str
    gate: str

    def finish_runs(self) -> None:
        """End the runs that go on until somebody does so; those to come end by themselves."""
        control = self.sandbox.control
        control.configure(run_seconds=RUN_SECONDS)
        dag_runs = {"example_failing_tests": self.failing, "example_release_gate": self.gate}

        def over() -> bool:
            for run in control.runs():
                if run["finished"] is None:
                    control.finish_run(run["run_id"])
            states = [self.airflow.api.dag_run(dag_id, run_id)["state"] for dag_id, run_id in dag_runs.items()]
            return all(state in FINAL_RUN_STATES for state in states)

        wait_until(over, "the DAG runs are over", within=600, every=0.5)

    def task(self, dag_id: str, run_id: str, task_id: str, tab: str = "") -> str:
        """The address of a task instance's page; of a mapped one with its index in ``task_id``."""
        return f"{self.airflow.url}/dags/{dag_id}/runs/{quote(run_id, safe='')}/tasks/{task_id}{tab}"


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> World:
    if CHROMIUM is None:
        pytest.skip("There is no chromium on this machine: apt-get install chromium")
    shared: SharedAirflow = request.getfixturevalue("shared")
    failing = shared.dag_run("example_failing_tests")
    platforms = shared.examples.control
    project = omilia.named_id(2)
    wait_until(lambda: any(run["target_id"] == project for run in platforms.runs("omilia")), "the run is started")
    # So that there is time to look at a run that goes on: the first test ends it.
    platforms.configure(run_seconds=3600.0)
    return World(shared.airflow, shared.examples, failing, shared.dag_run("example_release_gate"))


@pytest.fixture(scope="module")
def browser(world: World) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    # For hanging only.
    context.set_default_timeout(300_000)
    sync_api.expect.set_options(timeout=300_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def picture() -> Callable[..., None]:
    """Takes a picture for docs/images, when they are asked for."""

    def take(page: Any, name: str, height: int = 800, keep: int | None = None) -> None:
        if not os.environ.get("UI_SCREENSHOTS"):
            return
        from PIL import Image

        IMAGES.mkdir(exist_ok=True)
        size = page.viewport_size
        page.set_viewport_size({"width": size["width"], "height": height})
        page.wait_for_timeout(1000)
        path = IMAGES / f"{name}.png"
        page.screenshot(path=path)
        with Image.open(path) as whole:
            kept = whole.crop((0, 0, whole.width, keep or whole.height))
            kept.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
        page.set_viewport_size(size)
        assert path.stat().st_size < 100_000, path

    return take


def dialog(page: Any) -> Any:
    return page.locator("[role=dialog][data-scope=dialog][data-state=open]")


def new_connection(page: Any, world: World, kind: str) -> Any:
    """Open the form of a new connection; return it."""
    page.goto(f"{world.airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").first.click()
    form = dialog(page)
    form.locator("input[name=connection_id]").fill(f"my_{kind}")
    form.get_by_role("combobox").first.click()
    page.keyboard.type(TITLES[kind][:8])
    page.get_by_role("option", name=TITLES[kind], exact=True).click()
    form.get_by_role("button", name="Standard Fields").wait_for()
    return form


def press_test(page: Any, row: str) -> dict[str, Any]:
    """Press a connection's Test button; return Airflow's answer."""
    page.reload()
    button = page.get_by_role("row").filter(has_text=row).get_by_role("button", name="Test Connection")
    with page.expect_response(lambda response: response.url.endswith("/connections/test")) as response:
        button.click()
    answer: dict[str, Any] = response.value.json()
    return answer


# First, since the run that it looks at begins with the fixture.
def test_the_button_is_there_while_a_mapped_run_is_deferred_and_when_it_has_passed(page, world):
    for state in ("deferred", "success"):
        if state == "success":
            # An open page asks for news all the time.
            page.goto("about:blank")
            world.finish_runs()
        world.airflow.wait_for_task("example_release_gate", world.gate, "voice", {state}, map_index=1)
        page.goto(world.task("example_release_gate", world.gate, "voice/mapped/1", "/details"))
        button = page.get_by_role("link", name="Open test run").or_(page.locator("a", has_text="Open test run"))
        button.first.wait_for()
        target = button.first.get_attribute("href")
        run_id = world.airflow.api.xcom("example_release_gate", world.gate, "voice", "run_id", map_index=1)
        assert target is not None
        assert target.endswith(f"/omilia/{run_id}")
    with page.context.expect_page() as opened:
        button.first.click()
    opened.value.wait_for_load_state()
    assert run_id in opened.value.content()


@pytest.mark.parametrize("kind", list(TITLES))
def test_a_connection_is_made_tested_and_edited(page, world, picture, kind):
    made = world.sandbox.connections()[f"{kind}_default"]
    form = new_connection(page, world, kind)
    form.locator("input[name=host]").fill(made["host"])
    form.locator("input[name=port]").fill("0")
    for field in ("login", "password"):
        if made.get(field):
            form.locator(f"input[name={field}]").fill(made[field])
    if kind == "eggplant":
        picture(page, "connection-form", 760)
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    form.locator("#element_verify").wait_for()
    for label in FORMS[kind]:
        assert form.get_by_text(label, exact=True).count() == 1
    assert form.get_by_text("null", exact=True).count() == 0
    assert form.locator("input[name=password]").get_attribute("type") == "password"
    for name, value in made["extra"].items():
        field = form.locator(f"#element_{name}")
        if field.count() and isinstance(value, str):
            field.fill(value)
        if name in ("secret_key", "personal_access_token"):
            assert field.get_attribute("type") == "password"
    form.get_by_role("button", name="Save").click()
    sync_api.expect(form).to_have_count(0)
    stored = world.airflow.api.ask("GET", f"/connections/my_{kind}")
    assert (stored["conn_type"], stored["host"], stored["password"]) == (kind, made["host"], "***")
    assert all(secret not in str(stored) for secret in (made["password"], made["extra"].get("secret_key", "***.")))
    # As the form stores what was left as it is: all of it is accepted.
    assert '"timeout": 30' in stored["extra"]
    assert '"verify": "true"' in stored["extra"]
    answer = press_test(page, f"my_{kind}")
    assert answer["status"] is True, answer

    page.get_by_role("row").filter(has_text=f"my_{kind}").get_by_role("button", name="Edit Connection").click()
    dialog(page).locator("input[name=password]").fill("canary-of-a-wrong-secret")
    dialog(page).get_by_role("button", name="Save").click()
    sync_api.expect(dialog(page)).to_have_count(0)
    answer = press_test(page, f"my_{kind}")
    assert answer["status"] is False
    assert "password" in answer["message"]
    assert "canary" not in answer["message"]
    # The message is shown, not only an icon.
    page.get_by_text("Test Connection Failed").wait_for()
    page.get_by_text(answer["message"][:60]).first.wait_for()
    if kind == "eggplant":
        picture(page, "connection-test", 420)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"host": "http://127.0.0.1:9"}, "host"),
        ({"extra": {"realm": "nowhere"}}, "realm"),
        ({"extra": {"verify": "/nowhere/ca.pem"}}, "verify"),
        ({"extra": {"timeout": 0}}, "timeout"),
        ({"password": "canary-of-a-wrong-secret"}, "client_secret"),
    ],
)
def test_what_is_wrong_with_a_connection_is_named_by_its_field(world, changes, field):
    made = world.sandbox.connections()["eggplant_default"]
    extra = {**made["extra"], "auth_url": None, **changes.get("extra", {})}
    body = {**made, **changes, "connection_id": "not_stored", "extra": json.dumps(extra)}
    answer = world.airflow.api.ask("POST", "/connections/test", json=body)
    assert answer["status"] is False
    assert field in answer["message"]
    assert "canary" not in answer["message"]


def test_a_certificate_that_is_not_known_points_to_verify(world, tmp_path):
    import trustme

    authority = trustme.CA()
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(key)
    for part in certificate.cert_chain_pems:
        part.write_to_path(chain, append=True)
    with SandboxServer(certfile=str(chain), keyfile=str(key)) as sandbox:
        made = sandbox.connections()["omilia_default"]
        body = {**made, "connection_id": "not_stored", "extra": json.dumps(made["extra"])}
        answer = world.airflow.api.ask("POST", "/connections/test", json=body)
    assert answer["status"] is False
    assert "verify" in answer["message"]


@pytest.mark.parametrize("dag_id", list(TRIGGERS))
def test_an_example_has_a_form(page, world, picture, dag_id):
    page.goto(f"{world.airflow.url}/dags/{dag_id}")
    page.get_by_role("button", name="Trigger").first.click()
    form = dialog(page)
    form.get_by_text("Run Parameters").wait_for()
    for words in TRIGGERS[dag_id]:
        form.get_by_text(re.compile(re.escape(words))).first.wait_for()
    assert form.get_by_text("null", exact=True).count() == 0
    if dag_id == "example_eggplant":
        picture(page, "trigger-form", 900)
    if dag_id == "example_release_gate":
        form.locator("#element_version").fill("tomorrow")
        with page.expect_response(
            lambda response: response.url.endswith("/dagRuns") and response.request.method == "POST"
        ) as r:
            form.get_by_role("button", name="Trigger").click()
        assert r.value.status == 400
        form.get_by_text("Invalid input for param version").first.wait_for()


def test_the_log_tells_the_story_once_and_the_report_stays(page, world, picture):
    assert world.airflow.wait_for_run("example_failing_tests", world.failing) == "failed"
    page.goto(world.task("example_failing_tests", world.failing, "run_regression"))
    page.get_by_text("Result of run").first.wait_for()
    # Without the paths of the machine that the traceback shows further down.
    picture(page, "task-log", 1250, keep=878)
    log = world.airflow.api.log("example_failing_tests", world.failing, "run_regression")
    mine = [line["event"] for line in log if "testruns" in str(line.get("logger", ""))]
    assert len(mine) <= 14, mine
    beginnings = ["Using connection 'omilia_default'", "Started run", "The run: http", "Run ", "Waiting for run"]
    for line, beginning in zip(mine, beginnings, strict=False):
        assert line.startswith(beginning)
    assert len(set(mine)) == len(mine)
    assert sum("is finished (FAILURE)" in line for line in mine) == 1
    (_, message), *_ = world.airflow.api.errors("example_failing_tests", world.failing, "run_regression")
    assert message.count("failed: balance_joint_account") == 1
    assert "expected" in message
    # What failed is in the message, and so not in the table before it.
    assert not [line for line in mine if "balance_joint_account" in line.partition("note:")[0]]
    assert "canary" not in str(log)

    page.goto(world.task("example_failing_tests", world.failing, "run_regression", "/details"))
    page.locator("a", has_text="Open test run").first.wait_for()
    picture(page, "task-link", 700)
    page.goto(world.task("example_failing_tests", world.failing, "run_regression", "/xcom"))
    page.get_by_role("button", name="Expand all extra JSON").click()
    page.wait_for_timeout(1500)
    picture(page, "xcom", 900)
    page.get_by_text(re.compile("raw_state")).first.wait_for()


def test_results_of_all_dags_are_on_a_page_of_their_own(page, world, picture):
    world.airflow.wait_for_run("example_failing_tests", world.failing)
    page.goto(world.airflow.url)
    page.get_by_role("button", name="Browse").click()
    with page.context.expect_page() as opened:
        page.get_by_role("menuitem", name="Test runs").click()
    results = opened.value
    problems: list[str] = []
    results.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    asked: list[str] = []
    results.on("request", lambda request: asked.append(request.url))
    results.set_viewport_size({"width": 1200, "height": 700})
    results.reload()
    row = results.get_by_role("row").filter(has_text="example_failing_tests").first
    assert row.get_by_text("failed", exact=True).count() == 1
    run_id = world.airflow.api.xcom("example_failing_tests", world.failing, "run_regression", "run_id")
    assert (row.get_by_role("link", name="Test run").get_attribute("href") or "").endswith(f"/omilia/{run_id}")
    assert asked == [f"{world.airflow.url}/testruns/"]
    world.airflow.wait_for_run("example_release_gate", world.gate)
    results.reload()
    assert results.get_by_role("row").filter(has_text="example_release_gate").count() == 6
    picture(results, "results-runs", 740)
    results.get_by_role("link", name="Trends").click()
    results.get_by_text(re.compile("1 of the last 1")).first.wait_for()
    results.locator("svg").first.wait_for()
    picture(results, "results-trends", 640)
    assert problems == []
    # Its links lead back into Airflow.
    results.go_back()
    row.get_by_role("link", name="Task", exact=True).click()
    results.get_by_text("run_regression").first.wait_for()
    assert results.url == world.task("example_failing_tests", world.failing, "run_regression")
