"""The short form of ``make fuzz``: some of its trials, chosen by a fixed seed, and all that is odd on the wire."""

from __future__ import annotations

import logging
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from airflow_provider_testruns import limits
from airflow_provider_testruns.exceptions import ApiError
from tests.fuzz.changes import chosen, mixed
from tests.fuzz.drawn import answers
from tests.fuzz.operations import Operation, World, public_methods, recorded
from tests.fuzz.trial import Change, Laboratory, fit_for_a_log, laboratory
from tests.fuzz.values import BODIES, ODD, paths, replaced, restructured
from tests.fuzz.wire import broken, responses
from tests.integration.transport.wires import Line, RawServer, get, post, session

pytestmark = pytest.mark.integration

#: Of what ``make fuzz`` tries, so much is tried here.
TRIALS = 1_200
SEED = 1


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with recorded() as found:
        yield found


@pytest.fixture
def lab(world: World, tmp_path: Path) -> Iterator[Laboratory]:
    logging.disable(logging.CRITICAL)
    with laboratory(world, tmp_path) as made:
        yield made
    logging.disable(logging.NOTSET)


def test_every_call_of_every_hook_is_among_the_operations(world: World) -> None:
    for platform in world.hooks:
        covered = {method for one in world.operations if one.platform == platform for method in one.methods}
        assert public_methods(platform) <= covered, "give tests/fuzz/operations.py the new method, with arguments"
    assert all(one.exchanges for one in world.operations)


def test_an_answer_that_is_not_changed_is_a_success(world: World, lab: Laboratory) -> None:
    """Else the trials would show nothing: all of them would end at once."""
    for operation in world.operations:
        for asynchronous in (False, True):
            change = Change(0, "nothing", lambda operation=operation: operation.exchanges[0].response)
            lab.trial(operation, change, asynchronous=asynchronous, thorough=True)
    assert lab.told == 0


def test_whatever_a_platform_answers_ends_in_a_result_or_an_error_of_ours(world: World, lab: Laboratory) -> None:
    order = random.Random(SEED)
    tried = chosen(world, SEED, TRIALS) + [mixed(world, order) for _ in range(TRIALS // 6)]
    for number, (operation, change) in enumerate(tried):
        asynchronous = number % 2 == 1
        try:
            lab.trial(operation, change, asynchronous=asynchronous, thorough=number % 10 == 0)
        except BaseException as e:
            e.add_note(f"{operation.name}, {'aiohttp' if asynchronous else 'requests'}: {change.what}")
            e.add_note(f"All of its kind: python -m tests.fuzz --only '{operation.name}'")
            raise
    # Some changes are of no consequence, and most are.
    assert 0.1 * lab.made < lab.told < 0.9 * lab.made


def test_nor_does_anything_that_hypothesis_thinks_of(world: World, lab: Laboratory) -> None:
    @settings(max_examples=300, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(answers(world))
    def trial(drawn: tuple[Operation, Change, bool]) -> None:
        operation, change, asynchronous = drawn
        lab.trial(operation, change, asynchronous=asynchronous)

    trial()


@pytest.mark.parametrize("name", ["deep and closed", "many", "many keys", "one key many times", "a huge number"])
def test_a_body_costs_no_more_than_its_limit(world: World, lab: Laboratory, name: str) -> None:
    of_reports = [one for one in world.operations if one.name.endswith(".get_report")]
    body = BODIES[name]
    for operation in of_reports:
        good = operation.exchanges[-1].response
        change = Change(len(operation.exchanges) - 1, name, lambda good=good: replace(good, body=body))
        tracemalloc.start()
        try:
            lab.trial(operation, change, asynchronous=True)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 64 * limits.MB + len(body), operation.name


class _Wire:
    """A server that answers each request with the bytes it is given, and hangs up."""

    def __init__(self) -> None:
        self.data = b""

    def __call__(self, line: Line) -> None:
        if line.read() is not None:
            line.send(self.data)


@pytest.mark.parametrize("call", [get(), post()], ids=["GET", "POST"])
def test_whatever_comes_over_the_wire_ends_in_a_result_or_an_error_of_ours(drive, call) -> None:
    wire = _Wire()
    ended = []
    with RawServer(wire) as server:
        client = drive(session(server.url, timeout=10.0))
        cases = [*responses(), *((f"broken {number}", broken(SEED, number)) for number in range(60))]
        for name, data in cases:
            wire.data = data
            said = ""
            try:
                client.ask(call)
            except ApiError as e:
                ended.append(name)
                said = str(e)
            except BaseException as e:
                e.add_note(name)
                raise
            fit_for_a_log(said)
            assert len(said) <= limits.LINE, name
    assert 0.3 * len(cases) < len(ended) < len(cases)
    assert {"nothing", "a gzip bomb", "half a gzip", "length b'3'", "TLS"} <= set(ended)
    assert not {"chunks", "gzip", "no length", "a continue first"} & set(ended)


def test_odd_values_stand_where_they_should() -> None:
    good = {"a": [{"b": 1}, {"b": 2}, {"b": 3}], "c": "x"}
    ways = list(paths(good))
    assert ("a", 1, "b") in ways
    assert ("a", 2, "b") not in ways
    assert replaced(good, ("a", 0, "b"), "NaN").startswith(b'{"a": [{"b": NaN}')
    assert b'"\\ud800"' in replaced(good, ("c",), '"\\ud800"')
    assert len(set(restructured(good, ("a", 0, "b")))) == 6
    assert len(set(ODD)) == len(ODD)
