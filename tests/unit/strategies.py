"""What Hypothesis draws the core's values from."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from airflow_provider_testruns.model import Counts, Kind, Progress, Run, RunState, Verdict

#: Any text that JSON and a database can hold.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)

moments = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))

#: Any JSON value, as json.loads gives it from a hostile response.
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, -(10**400), 10**400])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "\ud800", "2024-02-30", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1e999"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)

counts = st.builds(Counts, *[st.integers(0, 500)] * 4)

_parts = {
    "platform": st.sampled_from(["eggplant", "futureagi", "omilia"]),
    "run_id": texts,
    "state": st.sampled_from(RunState),
    "raw_state": texts,
    "kind": st.sampled_from(Kind),
    "platform_verdict": st.none() | st.sampled_from(Verdict),
    "started_at": st.none() | moments,
    "finished_at": st.none() | moments,
    "progress": st.none() | st.builds(Progress, st.integers(0), st.none() | st.integers(0)),
    "url": texts,
    "ids": st.dictionaries(texts, texts, max_size=3),
    "started_with": st.dictionaries(texts, plain_json, max_size=3),
    "message": texts,
    "known_state": st.booleans(),
}
runs = st.builds(Run, **_parts, parts=st.lists(st.builds(Run, **_parts), max_size=2).map(tuple))
