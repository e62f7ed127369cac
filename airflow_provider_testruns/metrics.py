"""What the provider counts and measures, through Airflow's own metrics: StatsD, Datadog or OpenTelemetry.

Counters are added up in the process and sent at most every :data:`.timing.METRICS_EVERY` seconds, and when it ends.
Tags are few and have few values. Nothing of Airflow is imported before something is sent, and nothing that goes wrong
here reaches a task or a trigger.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import RLock
from typing import Any

from airflow_provider_testruns import timing

log = logging.getLogger(__name__)

#: Airflow's modules of metrics. Which of them a process has initialised differs: the first in a task, the second in the
#: triggerer and the API server, and the last before Airflow 3.2. In the others it is one that sends nothing.
_MODULES = ("airflow.sdk.observability.stats", "airflow.observability.stats", "airflow.stats")
_PREFIX = "testruns."
_NO_PART_OF_A_NAME = re.compile(r"[^A-Za-z0-9_]+")
#: The longest part of a name, and the most series of a process: a mistake must not fill somebody's database.
_LONGEST = 40
_MOST = 200

_Series = tuple[str, tuple[tuple[str, str], ...]]


class Metrics:
    """The metrics of one process. Used by several threads, and in signal handlers.

    :param clock: seconds that never go back; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # A signal handler may interrupt the thread that holds it.
        self._lock = RLock()
        self._counts: dict[_Series, int] = {}
        self._durations: list[tuple[_Series, float]] = []
        self._levels: dict[_Series, int] = {}
        self._moved: set[_Series] = set()
        self._sent_at = clock()
        self._ends_with_process = False

    def count(self, name: str, number: int = 1, **tags: str) -> None:
        """Add to a counter.

        :param name: without the prefix.
        :param number: how much.
        :param tags: few, of few values.
        """
        with self._lock:
            self._add(self._counts, _series(name, tags), number)
            self._send_if_due()

    def level(self, name: str, change: int, **tags: str) -> None:
        """Change a gauge, which begins at 0.

        :param name: without the prefix.
        :param change: by how much.
        :param tags: few, of few values.
        """
        with self._lock:
            series = _series(name, tags)
            if self._add(self._levels, series, change):
                self._moved.add(series)
            self._send_if_due()

    def duration(self, name: str, seconds: float, **tags: str) -> None:
        """Note how long something took.

        :param name: without the prefix.
        :param seconds: how long.
        :param tags: few, of few values.
        """
        with self._lock:
            if len(self._durations) < _MOST:
                self._durations.append((_series(name, tags), seconds))
            self._send_if_due()

    def flush(self, *, at_end: bool = False) -> None:
        """Send what has not been sent yet.

        :param at_end: whether the process ends.
        """
        with self._lock:
            counts, self._counts = self._counts, {}
            durations, self._durations = self._durations, []
            moved, self._moved = self._moved, set()
            levels = {series: self._levels[series] for series in moved}
            self._sent_at = self._clock()
        if not counts and not durations and not levels:
            return
        try:
            stats = _stats()
            if stats is None:
                return
            for series, number in counts.items():
                stats.incr(number, series)
            for series, value in levels.items():
                stats.gauge(value, series)
            for series, seconds in durations:
                stats.timing(seconds, series)
            if at_end:
                stats.finish()
        except Exception as e:  # whatever Airflow's metrics, or what they send to, raise
            log.debug("Metrics could not be sent: %s: %s", type(e).__name__, e)

    def _add(self, where: dict[_Series, int], series: _Series, number: int) -> bool:
        if series not in where and len(where) >= _MOST:
            return False
        where[series] = where.get(series, 0) + number
        return True

    def _send_if_due(self) -> None:
        if not self._ends_with_process:
            # Airflow ends the process of a task, and of the triggerer, so that these are called (3.0 and later).
            self._ends_with_process = True
            atexit.register(self.flush, at_end=True)
        if self._clock() - self._sent_at < timing.METRICS_EVERY:
            return
        self._sent_at = self._clock()
        loop = _running_loop()
        if loop is None:
            self.flush()
        else:
            # What sends them may look up a host, or import OpenTelemetry, at first.
            loop.run_in_executor(None, self.flush)

    def flush_if_due(self) -> None:
        """Send what has not been sent yet, unless that was done a moment ago."""
        with self._lock:
            self._send_if_due()


def _running_loop() -> Any:
    asyncio = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.get_running_loop()
    except RuntimeError:
        return None


def _series(name: str, tags: dict[str, str]) -> _Series:
    cleaned = ((key, _NO_PART_OF_A_NAME.sub("_", str(value))[:_LONGEST] or "none") for key, value in tags.items())
    return _PREFIX + name, tuple(cleaned)


class _Stats:
    """Airflow's metrics, as far as they are needed.

    :param module: of Airflow, or its class of that time.
    :param backend: what the metrics are sent with; ``None`` where it can't be told.
    """

    def __init__(self, module: Any, backend: Any) -> None:
        self._module = module
        self._backend = backend
        # StatsD itself knows no tags: Airflow drops them, unless it writes them in the form of InfluxDB.
        self._tags = not (
            getattr(backend, "influxdb_tags_enabled", None) is False or getattr(backend, "metrics_tags", None) is False
        )

    def incr(self, number: int, series: _Series) -> None:
        name, options = self._named(series)
        self._module.incr(name, number, **options)

    def gauge(self, value: float, series: _Series) -> None:
        name, options = self._named(series)
        self._module.gauge(name, value, **options)

    def timing(self, seconds: float, series: _Series) -> None:
        name, options = self._named(series)
        self._module.timing(name, timedelta(seconds=seconds), **options)

    def finish(self) -> None:
        """OpenTelemetry sends from time to time, and once more where Airflow ends: which may have been a moment ago."""
        provider: Any = getattr(self._backend, "otel", None)
        if provider is not None and hasattr(provider, "force_flush"):
            provider.force_flush(timeout_millis=int(timing.METRICS_LAST * 1000))

    def _named(self, series: _Series) -> tuple[str, dict[str, Any]]:
        """The name, with what the tags say in it where they would be dropped, and the tags."""
        name, tags = series
        if self._tags:
            return name, {"tags": dict(tags)}
        return ".".join((name, *(value for _, value in tags))), {}


def _stats() -> _Stats | None:
    """Airflow's metrics in this process; ``None`` where it sends none."""
    from importlib import import_module

    for name in _MODULES:
        try:
            module = import_module(name)
        except ImportError:
            continue
        if not hasattr(module, "incr"):
            # Before Airflow 3.3: a class, which initialises itself where it is used, or is initialised as these are.
            found = getattr(module, "Stats", None)
            if found is not None and (name == "airflow.stats" or getattr(found, "factory", None) is not None):
                return _Stats(found, getattr(found, "instance", None))
            continue
        # The public module only repeats the functions of another one, which keeps what they need.
        kept = module.incr.__globals__
        if kept.get("_factory") is not None:
            backend = kept.get("_get_backend")
            return _Stats(module, backend() if backend is not None else None)
    return None


#: Of this process.
metrics = Metrics()


def _begin_again() -> None:
    """In a new process: another thread of the one that it comes from may hold the lock for ever, and what that has
    counted it sends itself."""
    metrics.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_begin_again)


@contextmanager
def span(name: str, **attributes: str) -> Iterator[None]:
    """A span of OpenTelemetry around what is done, below the current one; nothing where OpenTelemetry is not on.

    Not the current one itself, so that it may be ended in another context than it was begun in.

    :param name: without the prefix.
    :param attributes: of the span.
    """
    # Airflow has imported it where it is on. It costs nothing where it is not.
    tracing = sys.modules.get("opentelemetry.trace")
    if tracing is None:
        yield
        return
    begun = tracing.get_tracer(__name__).start_span(
        _PREFIX + name, attributes={f"{_PREFIX}{key}": value for key, value in attributes.items()}
    )
    try:
        yield
    except BaseException as e:
        begun.set_attribute(f"{_PREFIX}ended_by", type(e).__name__)
        raise
    finally:
        begun.end()
