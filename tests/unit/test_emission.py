"""What leaves through logs and tracebacks."""

from __future__ import annotations

import inspect
import io
import json
import logging
import traceback
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import structlog

from airflow_provider_testruns import limits
from airflow_provider_testruns.emission import ChainedError, GuardedLog, get_logger, outgoing, tidy, tidy_errors
from airflow_provider_testruns.exceptions import RunFailedError, TransportError
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.redaction import ClientSecrets
from airflow_provider_testruns.triggers.run import RunTrigger

pytestmark = pytest.mark.unit

TOKEN = "canary-token-0123456789abcdef"


@pytest.fixture(autouse=True)
def client() -> Iterator[ClientSecrets]:
    secrets = ClientSecrets(["canary-password"])
    secrets.hold()
    secrets.renewed("access", TOKEN)
    yield secrets
    secrets.release()


class LibraryError(Exception):
    """As those of HTTP libraries: it holds the request, and says what it likes."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__("it failed")
        self.headers = headers

    def __str__(self) -> str:
        return f"it failed with {self.headers}"


def _chained() -> Exception:
    try:
        try:
            try:
                raise LibraryError({"Authorization": f"Bearer {TOKEN}"})
            except LibraryError as e:
                raise ValueError(f"canary-password\x1b[31m and {TOKEN}") from e
        except ValueError:
            raise TransportError(f"The connection was lost ({TOKEN}).") from None
    except TransportError as e:
        return e


def _raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as e:
        return e


def _printed(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_text_is_masked_before_it_is_cleaned_and_cut() -> None:
    assert outgoing(f"\x1b[1mIt is {TOKEN}\x00") == "It is ***\N{REPLACEMENT CHARACTER}"
    assert outgoing("a\nb") == "a\nb"
    said = outgoing("x" * (limits.LOG - 10) + TOKEN + "y" * 5 * limits.LOG)
    assert "canary" not in said
    assert len(said) <= limits.LOG
    assert outgoing(_chained()) == "The connection was lost (***)."


def test_the_chain_of_an_error_shows_no_secret_and_no_library_error() -> None:
    error = _raised(RunFailedError(f"It failed: {TOKEN}"), _raised(ValueError(TOKEN), LibraryError({"x": TOKEN})))

    tidied = tidy(error)

    assert tidied is error
    assert str(error) == "It failed: ***"
    assert type(error.__cause__) is ChainedError
    assert str(error.__cause__) == "ValueError: ***"
    assert str(error.__cause__.__cause__).endswith("LibraryError: it failed with {'x': '***'}")
    shown = _printed(error)
    assert "canary" not in shown
    assert "The above exception was the direct cause" in shown
    # Where it happened is still to be seen.
    assert "in _raised" in shown


def test_what_was_suppressed_is_let_go_of() -> None:
    error = tidy(_chained())
    assert str(error) == "The connection was lost (***)."
    assert error.__cause__ is None
    assert error.__context__ is None
    assert error.__suppress_context__


def test_what_an_error_came_up_in_the_middle_of_stays_known_as_such() -> None:
    try:
        try:
            raise LibraryError({"x": TOKEN})
        except LibraryError:
            raise KeyError(TOKEN)  # noqa: B904
    except KeyError as e:
        error = tidy(e)
    assert type(error) is KeyError
    assert error.args == ("***",)
    shown = _printed(error)
    assert "canary" not in shown
    assert "During handling of the above exception" in shown


def test_an_error_whose_text_cannot_be_changed_is_replaced() -> None:
    error = tidy(_raised(LibraryError({"x": TOKEN})))
    assert type(error) is ChainedError
    assert str(error).endswith("LibraryError: it failed with {'x': '***'}")
    assert error.__traceback__ is not None
    harmless = _raised(LibraryError({}))
    assert tidy(harmless) is harmless


def test_what_a_library_quotes_in_full_is_cut() -> None:
    error = tidy(_raised(RunFailedError("x"), _raised(ValueError("y" * 10**6))))
    assert len(str(error.__cause__)) < limits.LINE + 100


def test_notes_and_long_chains() -> None:
    error = _raised(RunFailedError("x"))
    error.add_note(f"by the way: {TOKEN}")
    assert "by the way: ***" in _printed(tidy(error))

    long: Exception = RunFailedError("0")
    for number in range(50):
        long = _raised(RunFailedError(str(number)), long)
    assert _printed(tidy(long)).count("direct cause") == 9

    circle = _raised(RunFailedError("x"), _raised(ValueError(TOKEN)))
    circle.__cause__.__cause__ = circle  # type: ignore[union-attr]
    assert "canary" not in _printed(tidy(circle))


def test_what_airflow_calls_raises_tidy_errors() -> None:
    @tidy_errors
    def execute(error: BaseException) -> None:
        raise error

    with pytest.raises(RunFailedError, match=r"^\*\*\*$") as caught:
        execute(RunFailedError(TOKEN))
    assert caught.value.__context__ is None
    with pytest.raises(ChainedError) as replaced:
        execute(LibraryError({"x": TOKEN}))
    assert "canary" not in _printed(replaced.value)
    for leaves in (KeyboardInterrupt(TOKEN), SystemExit(1)):
        with pytest.raises(type(leaves)):
            execute(leaves)


def test_every_entry_of_every_operator_and_sensor_is_tidy() -> None:
    """Whatever is added later, too: found through the modules, not by a list."""
    found = []
    for kind in ("operators", "sensors"):
        for platform in ("eggplant", "futureagi", "omilia"):
            module = import_module(f"airflow_provider_testruns.{kind}.{platform}")
            found += [one for _, one in inspect.getmembers(module, inspect.isclass) if issubclass(one, GuardedLog)]
    assert len(set(found)) >= 20
    for one in set(found):
        for name in ("execute", "execute_complete", "poke"):
            method = getattr(one, name, None)
            if method is None or not method.__module__.startswith("airflow_provider_testruns"):
                continue
            chain = [method]
            while hasattr(chain[-1], "__wrapped__"):
                chain.append(chain[-1].__wrapped__)
            assert any(step.__code__.co_name == "tidied" for step in chain), f"{one.__name__}.{name}"


def test_a_logger_of_the_standard_library_masks(caplog: pytest.LogCaptureFixture) -> None:
    log = get_logger("airflow_provider_testruns.tests")
    assert get_logger("airflow_provider_testruns.tests").filters == log.filters
    log.warning("It is %s of %s", TOKEN, {"password": "canary-password"})
    log.warning("It does not fit: %s %s", TOKEN)
    try:
        raise LibraryError({"x": TOKEN})
    except LibraryError:
        log.exception("Failed")
    assert "canary" not in caplog.text
    assert "It is *** of {'password': '***'}" in caplog.text
    assert "LibraryError: it failed with {'x': '***'}" in caplog.text
    assert {record.filename for record in caplog.records} == {"test_emission.py"}


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What structlog writes, configured as in a worker: as JSON, with the line of code that a message is from."""
    written = io.StringIO()
    before = structlog.get_config()
    structlog.configure(
        processors=[
            structlog.processors.CallsiteParameterAdder(
                [structlog.processors.CallsiteParameter.FILENAME], additional_ignores=["airflow."]
            ),
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(default=str),
        ],
        logger_factory=lambda *args: structlog.WriteLogger(written),
    )
    yield written
    structlog.configure(**before)


def _tasks() -> list[Any]:
    return [
        OmiliaCreateRunOperator(task_id="x", project_id="p"),
        RunTrigger("omilia", "c", {}, 0.0),
    ]


@pytest.mark.parametrize("task", _tasks(), ids=["operator", "trigger"])
def test_what_tasks_and_triggers_log_is_masked(task: Any, lines: io.StringIO) -> None:
    task.log.warning("It is %s: %s", "canary-password", {"Authorization": f"Bearer {TOKEN}"})
    task.log.info("100 % of \x1b[31mit\n", token=TOKEN)
    try:
        raise _raised(RunFailedError(TOKEN), _raised(LibraryError({"x": TOKEN})))
    except RunFailedError:
        task.log.exception("Failed with %s", TOKEN)
    task.log.error("Again", exc_info=_raised(ValueError(TOKEN)))

    text = lines.getvalue()
    assert "canary" not in text
    found = [json.loads(line) for line in text.splitlines()]
    assert found[0]["event"] == "It is ***: {'Authorization': 'Bearer ***'}"
    assert found[1]["event"] == "100 % of it\n"
    assert found[1]["token"] == "***"
    failed, cause = found[2]["exception"]
    assert (failed["exc_type"], failed["exc_value"]) == ("RunFailedError", "***")
    assert cause["exc_value"].endswith("LibraryError: it failed with {'x': '***'}")
    assert found[3]["exception"][0]["exc_value"] == "***"
    assert {line["filename"] for line in found} == {"test_emission.py"}


def test_loggers_that_a_test_puts_in_stay(caplog: pytest.LogCaptureFixture) -> None:
    trigger = RunTrigger("omilia", "c", {}, 0.0)
    trigger._log = logging.getLogger("somebodys")
    trigger.log.warning("It is %s", TOKEN)
    assert [record.getMessage() for record in caplog.records] == ["It is ***"]
    trigger._log = other = object()
    assert trigger.log is other
