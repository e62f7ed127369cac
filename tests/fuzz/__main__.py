"""``make fuzz``: every answer of every operation, each in turn as a hostile server would have it, in both clients.

Bounded in time and number, and idempotent: a failure says with which seed, and which trial it was.
"""

from __future__ import annotations

import argparse
import logging
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

import structlog
from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz.changes import chosen, mixed
from tests.fuzz.drawn import answers
from tests.fuzz.operations import Operation, World, recorded
from tests.fuzz.trial import Change, EndlessError, Laboratory, laboratory

#: How many failures are shown of one kind.
_OF_A_KIND = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides the order, and what is mixed")
    parser.add_argument("--seconds", type=float, default=600.0, help="at most so long")
    parser.add_argument("--trials", type=int, default=150_000, help="at most so many, an equal share of each operation")
    parser.add_argument("--mixed", type=int, default=20_000, help="of these, so many with several odd values")
    parser.add_argument("--drawn", type=int, default=5_000, help="so many more that Hypothesis thinks of")
    parser.add_argument("--only", default="", help="operations whose name holds this")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    until = time.monotonic() + arguments.seconds
    with recorded() as world, tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        if arguments.only:
            world.operations = [one for one in world.operations if arguments.only in one.name]
        with laboratory(world, Path(folder)) as lab:
            return _run(lab, world, arguments, until)


def _run(lab: Laboratory, world: World, arguments: argparse.Namespace, until: float) -> int:
    found = chosen(world, arguments.seed, arguments.trials)
    print(f"{len(found)} changes of {len(world.operations)} operations, seed {arguments.seed}", flush=True)
    order = random.Random(arguments.seed)
    kinds: dict[str, int] = {}
    left = 0
    for number in range(len(found) + arguments.mixed):
        if time.monotonic() > until:
            left = len(found) + arguments.mixed - number
            break
        operation, change = found[number] if number < len(found) else mixed(world, order)
        for asynchronous in (False, True):
            problem = _problem(lab, operation, change, asynchronous)
            if problem is None:
                continue
            kind, detail = problem
            kinds[kind] = kinds.get(kind, 0) + 1
            if kinds[kind] <= _OF_A_KIND:
                client = "aiohttp" if asynchronous else "requests"
                print(f"\n--- {operation.name} ({client}): {change.what}\n{detail}", flush=True)
            break
    if not left:
        _drawn(lab, world, arguments, until, kinds)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"\n{lab.made} trials, {lab.told} of them ended in an error of ours; {memory} MB of memory at most.")
    if left:
        print(f"The time was over: {left} changes were left out. --seconds for more.")
    if not kinds:
        return 0
    print(f"{sum(kinds.values())} failures of {len(kinds)} kinds:")
    for kind, count in sorted(kinds.items(), key=lambda item: -item[1]):
        print(f"{count:6} {kind}")
    print(f"Once more: python -m tests.fuzz --seed {arguments.seed}, with --only and a part of an operation's name.")
    return 1


def _drawn(lab: Laboratory, world: World, arguments: argparse.Namespace, until: float, kinds: dict[str, int]) -> None:
    """What Hypothesis thinks of. It makes what fails as small as it can."""

    @seed(arguments.seed)
    @settings(
        max_examples=arguments.drawn,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(answers(world))
    def trial(drawn: tuple[Operation, Change, bool]) -> None:
        if time.monotonic() < until:
            lab.trial(*drawn[:2], asynchronous=drawn[2])

    try:
        trial()
    except (Exception, EndlessError) as e:
        kinds[f"Hypothesis: {type(e).__name__}: {str(e)[:100]!r}"] = 1
        print("".join(traceback.format_exception(e))[-4_000:], flush=True)


def _problem(lab: Laboratory, operation: Operation, change: Change, asynchronous: bool) -> tuple[str, str] | None:
    try:
        lab.trial(operation, change, asynchronous=asynchronous, thorough=lab.made % 5 == 0)
    except (Exception, EndlessError) as e:
        frames = traceback.extract_tb(e.__traceback__)
        ours = next((frame for frame in reversed(frames) if "airflow_provider_testruns" in frame.filename), frames[-1])
        kind = f"{type(e).__name__} at {Path(ours.filename).name}:{ours.lineno}: {str(e)[:60]!r}"
        return kind, "".join(traceback.format_exception(e)[-6:])[-2_500:]
    return None


if __name__ == "__main__":
    sys.exit(main())
