"""A run's log is told once, line by line, whatever the responses look like; large transfers say how far they are."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns import limits
from airflow_provider_testruns.exceptions import RateLimitedError, ServerError
from airflow_provider_testruns.lifecycle import run_log
from airflow_provider_testruns.lifecycle.run_log import RunLog
from airflow_provider_testruns.transport.progress import Progress

pytestmark = pytest.mark.unit

LINES = st.lists(st.tuples(st.sampled_from(["", "Clone", "Run"]), st.sampled_from(["a", "b", "c"])), max_size=12)


class Log:
    """Takes what is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.warnings: list[str] = []

    def info(self, text: str, *arguments: object) -> None:
        self.told.append(text % arguments)

    def warning(self, text: str, *arguments: object) -> None:
        self.warnings.append(text % arguments)


def test_only_what_is_new_is_told():
    log = Log()
    followed = RunLog(log)
    assert followed.write([("Clone", "Cloning"), ("Clone", "Done")]) == 2
    assert followed.write([("Clone", "Cloning"), ("Clone", "Done"), ("Run", "Done"), ("Run", "Done")]) == 2
    assert followed.write([("Clone", "Cloning"), ("Clone", "Done"), ("Run", "Done"), ("Run", "Done")]) == 0
    assert log.told == ["[Clone] Cloning", "[Clone] Done", "[Run] Done", "[Run] Done"]


def test_a_line_between_others_is_told():
    log = Log()
    followed = RunLog(log)
    followed.write([("Run", "first"), ("Run", "last")])
    followed.write([("Run", "first"), ("Load", "nested"), ("Run", "second"), ("Run", "last")])
    assert log.told == ["[Run] first", "[Run] last", "[Load] nested", "[Run] second"]


@given(responses=st.lists(LINES, max_size=5))
def test_every_line_is_told_as_often_as_any_response_holds_it(responses):
    log = Log()
    followed = RunLog(log)
    most: Counter[str] = Counter()
    for response in responses:
        # Another process may go on at any time.
        followed = RunLog(log, followed.cursor)
        followed.write(response)
        most |= Counter(f"[{section}] {text}" if section else text for section, text in response)
    assert Counter(log.told) == most


def test_a_text_of_several_lines_and_of_none():
    log = Log()
    RunLog(log).write([("Run", "\n-----\r\none\x1b[31m\ttwo\n\n"), ("Run", ""), ("", "bare\n")])
    assert log.told == ["[Run] -----", "[Run] one two", "bare"]


def test_a_log_of_any_size_is_cut(monkeypatch):
    monkeypatch.setattr(run_log, "MAX_LINES", 5)
    log = Log()
    followed = RunLog(log)
    lines = [("Run", str(number)) for number in range(9)]
    followed.write(lines[:4])
    followed.write(lines)
    followed.write([*lines, ("Run", "more")])
    RunLog(log, followed.cursor).write([*lines, ("Run", "more")])
    assert log.told == [f"[Run] {number}" for number in range(5)]
    assert log.warnings == ["The run's log has more than 5 lines: the rest is on the platform."]


def test_trouble_is_told_once_until_it_is_over():
    now = 0.0
    log = Log()
    followed = RunLog(log, clock=lambda: now)
    followed.failed(ServerError("first"))
    followed.failed(ServerError("second"))
    assert followed.due
    followed.write([])
    followed.failed(RateLimitedError("third", retry_after=30.0))
    assert log.warnings == [f"The run's log is not available. {which}" for which in ("first", "third")]
    assert not followed.due
    now = 31.0
    assert followed.due


def test_a_small_transfer_goes_without_a_word(caplog):
    with caplog.at_level(logging.INFO):
        progress = Progress("Sent", 20_000_000, clock=lambda: 0.0)
        for _ in range(20):
            progress.add(1_000_000)
    assert caplog.messages == []


def test_a_large_transfer_speaks_every_tenth(caplog):
    with caplog.at_level(logging.INFO):
        progress = Progress("Sent", 500_000_000, clock=lambda: 0.0)
        for _ in range(500):
            progress.add(1_000_000)
    assert caplog.messages == [f"Sent: {done}.0 of 500.0 MB" for done in range(50, 501, 50)]


def test_a_slow_transfer_speaks_every_half_minute(caplog):
    now = 0.0
    with caplog.at_level(logging.INFO):
        progress = Progress("Received", clock=lambda: now)
        for _ in range(100):
            now += 1.0
            progress.add(100_000)
    assert caplog.messages == ["Received: 3.0 MB", "Received: 6.0 MB", "Received: 9.0 MB"]


def test_a_log_of_long_lines_has_an_end(monkeypatch):
    monkeypatch.setattr(limits, "RUN_LOG", 1000)
    log = Log()
    following = RunLog(log)
    lines = [("s", f"{number} " + "x" * 98) for number in range(30)]
    assert following.write(lines) == 30
    assert log.warnings == ["The run's log has more than 1000 characters: the rest is on the platform."]
    assert len(log.told) == 11
    assert following.write([*lines, ("s", "one more")]) == 1
    assert len(log.told) == 11


def test_an_event_loop_gets_its_turn_in_a_long_log():
    assert len(list(RunLog(Log()).write_in_steps([("s", str(number)) for number in range(500)]))) == 10
