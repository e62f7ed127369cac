"""Answers that Hypothesis thinks of: any JSON in any place, any bytes, status, headers; what fails is made small."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.operations import Operation, World
from tests.fuzz.trial import Change
from tests.fuzz.values import ODD, paths, replaced
from tests.unit.strategies import json_values

_FRAGMENTS = json_values.map(json.dumps) | st.sampled_from(ODD) | st.text(max_size=20).map(json.dumps)
_HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "date", "location", "retry-after", "content-length", "x-odd"]),
    st.text(st.characters(codec="latin-1"), max_size=40),
    max_size=2,
)


@st.composite
def answers(draw: Any, world: World) -> tuple[Operation, Change, bool]:
    """An operation, what is answered instead of one of its answers, and whether it is the triggerer's client."""
    operation = draw(st.sampled_from(world.operations))
    at = draw(st.integers(0, len(operation.exchanges) - 1))
    response = operation.exchanges[at].response
    body = response.body
    try:
        value = json.loads(body)
    except ValueError:
        body = draw(st.binary(max_size=200) | st.just(body))
    else:
        if draw(st.integers(0, 9)) == 0:
            body = draw(st.binary(max_size=200) | json_values.map(json.dumps).map(str.encode))
        for _ in range(draw(st.integers(0, 3))):
            try:
                value = json.loads(body)
            except (ValueError, RecursionError):
                break
            body = replaced(value, draw(st.sampled_from(list(paths(value, 3)))), draw(_FRAGMENTS))
    status = draw(st.just(response.status) | st.integers(200, 599))
    made = partial(replace, response, status=status, headers={**response.headers, **draw(_HEADERS)}, body=body)
    return operation, Change(at, f"answer {at} is HTTP {status}: {body[:2_000]!r}", made), draw(st.booleans())
