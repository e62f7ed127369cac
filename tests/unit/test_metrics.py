"""Metrics are added up, sent seldom, bounded, and never in anybody's way."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_testruns import metrics as module
from airflow_provider_testruns.metrics import Metrics, span
from tests.unit.steps import Clock

pytestmark = pytest.mark.unit


class _Sent(list[tuple[str, str, object, dict[str, str] | None]]):
    """Stands for Airflow's module of metrics."""

    def incr(self, name, number, tags=None) -> None:
        self.append(("incr", name, number, tags))

    def gauge(self, name, value, tags=None) -> None:
        self.append(("gauge", name, value, tags))

    def timing(self, name, duration, tags=None) -> None:
        self.append(("timing", name, duration.total_seconds(), tags))


@pytest.fixture
def sent(monkeypatch):
    found = _Sent()
    monkeypatch.setattr(module, "_stats", lambda: module._Stats(found, None))
    return found


def test_counters_are_sent_once_in_ten_seconds_and_gauges_when_they_have_moved(sent):
    clock = Clock()
    metrics = Metrics(clock)
    for second in range(40):
        for _ in range(100):
            metrics.count("polls", platform="omilia")
        if second == 5:
            metrics.level("watched", 3, platform="omilia")
            metrics.duration("duration", 12.5, platform="omilia", verdict="failed")
        clock.now += 1
    tags = {"platform": "omilia"}
    assert [each for each in sent if each[0] == "incr"] == [
        ("incr", "testruns.polls", number, tags) for number in (1001, 1000, 1000)
    ]
    assert [each for each in sent if each[0] != "incr"] == [
        ("gauge", "testruns.watched", 3, tags),
        ("timing", "testruns.duration", 12.5, {**tags, "verdict": "failed"}),
    ]
    metrics.level("watched", -3, platform="omilia")
    metrics.flush()
    assert sent[-2:] == [("incr", "testruns.polls", 999, tags), ("gauge", "testruns.watched", 0, tags)]
    metrics.flush()
    assert len([each for each in sent if each[0] == "gauge"]) == 2


@pytest.mark.parametrize(
    ("backend", "name", "tags"),
    [
        (None, "testruns.finished", {"platform": "omilia", "verdict": "passed"}),
        (SimpleNamespace(influxdb_tags_enabled=True), "testruns.finished", {"platform": "omilia", "verdict": "passed"}),
        (SimpleNamespace(influxdb_tags_enabled=False), "testruns.finished.omilia.passed", None),
        (SimpleNamespace(metrics_tags=True), "testruns.finished", {"platform": "omilia", "verdict": "passed"}),
        (SimpleNamespace(metrics_tags=False), "testruns.finished.omilia.passed", None),
    ],
)
def test_where_tags_are_dropped_the_name_has_what_they_say(monkeypatch, backend, name, tags):
    found = _Sent()
    monkeypatch.setattr(module, "_stats", lambda: module._Stats(found, backend))
    metrics = Metrics(Clock())
    metrics.count("finished", platform="omilia", verdict="passed")
    metrics.flush()
    assert found == [("incr", name, 1, tags)]


def test_names_are_clean_short_and_not_too_many(sent):
    metrics = Metrics(Clock())
    metrics.count("started", platform="a.b c|\n" + "x" * 100)
    metrics.count("started", platform="")
    for number in range(500):
        metrics.count("started", platform=f"p{number}")
    metrics.flush()
    assert sent[0][3] == {"platform": "a_b_c_" + "x" * 34}
    assert sent[1][3] == {"platform": "none"}
    assert len(sent) == 200


def test_what_goes_wrong_there_is_nobody_s_trouble(monkeypatch):
    def broken():
        raise OSError("no route to host")

    monkeypatch.setattr(module, "_stats", broken)
    metrics = Metrics(Clock())
    metrics.count("started", platform="omilia")
    metrics.flush()


def test_a_span_is_nothing_where_opentelemetry_is_not_there(monkeypatch):
    monkeypatch.delitem(module.sys.modules, "opentelemetry.trace", raising=False)
    with span("start", platform="omilia"):
        pass
    with pytest.raises(ValueError, match="x"), span("start", platform="omilia"):
        raise ValueError("x")
