"""Do the tests find faults? ``python -m tests.mutation`` makes some, one at a time, and counts those that no test sees.

A sample of changes of the code that decides (``mutants.py``), the same for the same seed and code; for each the tests
that run the changed line. It can be stopped and goes on where it was, as long as neither code nor tests change. To
compare two suites, give each a checkout with the same package and another ``--results``; then ``--compare`` one with
the other.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from .mutants import PACKAGE, Mutant, sample
from .suite import Suite, Test, record, settle_chance, stages
from .trial import Outcome, only_path, prepare, try_tests

FOUND = ("killed", "stuck", "broken")


def main() -> int:
    """Make mutants and try them; the exit status says whether, compared, all that were found are found."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which mutants")
    parser.add_argument("--count", type=int, default=400, help="how many")
    parser.add_argument("--checkout", type=Path, default=Path.cwd(), help="whose code and tests")
    parser.add_argument("--tests", nargs="+", default=["tests/unit", "tests/integration"], help="of the checkout")
    parser.add_argument("--results", type=Path, help="added to, as it goes (default: named after code and tests)")
    parser.add_argument("--again", metavar="OUTCOME", help="try those once more that ended so, 'survived' for one")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time")
    parser.add_argument("--minutes", type=float, default=120, help="stop after this time")
    parser.add_argument("--compare", type=Path, metavar="RESULTS", help="of another suite: try what that found")
    parser.add_argument("--show", action="store_true", help="print the mutants that no test found")
    arguments = parser.parse_args()
    checkout = arguments.checkout.resolve()
    results = (arguments.results or Path(".mutants", f"{_version(checkout)}.jsonl")).resolve()
    results.parent.mkdir(parents=True, exist_ok=True)
    settle_chance()
    os.environ.setdefault("AIRFLOW_HOME", str(results.parent / "airflow"))

    mutants = sample(checkout, arguments.seed, arguments.count)
    known = _read(results)
    todo = [each for each in mutants if each.name not in known or known[each.name]["outcome"] == arguments.again]
    before = _read(arguments.compare) if arguments.compare else {}
    if before:
        # What was not found before can't be lost.
        todo = [each for each in todo if before.get(each.name, {}).get("outcome") in FOUND]
    if todo:
        with only_path(checkout):
            _try(checkout, arguments.tests, todo, results, arguments.minutes * 60, arguments.jobs)
    known = _read(results)
    _tell(mutants, known, checkout, arguments.show)
    return _compare(mutants, before, known) if before else 0


def _version(checkout: Path) -> str:
    """What changes with the code and its tests."""
    digest = hashlib.sha256()
    for file in sorted(file for folder in (PACKAGE, "tests") for file in (checkout / folder).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _try(checkout: Path, folders: list[str], mutants: list[Mutant], results: Path, seconds: float, jobs: int) -> None:
    until = time.monotonic() + seconds
    recorded = results.with_suffix(".tests.json")
    if not recorded.exists():
        print("Recording which test runs which lines", flush=True)
        process = multiprocessing.get_context("fork").Process(target=_record, args=(checkout, folders, recorded))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)
    suite = Suite(recorded, checkout)
    prepare()
    workers = []
    for job in range(jobs):
        worker = multiprocessing.get_context("fork").Process(
            target=_work, args=(checkout, suite, mutants[job::jobs], results, until)
        )
        worker.start()
        workers.append(worker)
    for worker in workers:
        worker.join()


def _work(checkout: Path, suite: Suite, mutants: list[Mutant], results: Path, until: float) -> None:
    with results.open("a") as file:
        for mutant in mutants:
            if time.monotonic() > until:
                return
            tests = suite.for_mutant(mutant)
            outcome, by = _find(checkout, mutant, tests)
            told = {"name": mutant.name, **asdict(mutant), "outcome": outcome, "by": by, "tests": len(tests)}
            file.write(json.dumps(told) + "\n")
            file.flush()
            print(f"{outcome:9} {mutant.name}  {by}", flush=True)


def _find(checkout: Path, mutant: Mutant, tests: list[Test]) -> Outcome:
    text = mutant.code(checkout)
    try:
        compile(text, mutant.path, "exec", dont_inherit=True)
    except SyntaxError:
        # A * between parameters is no multiplication, though cosmic-ray takes it for one.
        return "none", ""
    for stage in stages(tests):
        outcome, by = try_tests(checkout, mutant.path, text, stage)
        if outcome == "killed" and not stage[0].unit:
            # Tests over a socket may fail for another reason: what they find, they find twice.
            again = [test for test in stage if test.id == by]
            if try_tests(checkout, mutant.path, text, again)[0] == "survived":
                return "unclear", by
        if outcome in FOUND:
            return outcome, by
    return "survived", ""


def _record(checkout: Path, folders: list[str], file: Path) -> None:
    os.chdir(checkout)
    record(checkout, folders, file)


def _read(file: Path) -> dict[str, dict]:
    lines = file.read_text().splitlines() if file.exists() else ()
    return {told["name"]: told for told in map(json.loads, lines)}


def _tell(mutants: list[Mutant], known: dict[str, dict], checkout: Path, show: bool) -> None:
    tried = [each for each in mutants if _is_one(known.get(each.name))]
    counts = Counter(known[each.name]["outcome"] for each in tried)
    found = sum(counts[name] for name in FOUND)
    print(f"{len(tried)} mutants tried, {found} found: {dict(counts)}")
    for mutant in tried if show else ():
        if known[mutant.name]["outcome"] not in FOUND:
            print(f"  {mutant.name}")
            changed = mutant.code(checkout).splitlines()
            for line in range(mutant.line, min(mutant.end_line, mutant.line + 2) + 1):
                print(f"      {changed[line - 1].strip() if line <= len(changed) else ''}")


def _is_one(told: dict | None) -> bool:
    return told is not None and told["outcome"] != "none"


def _compare(mutants: list[Mutant], before: dict[str, dict], after: dict[str, dict]) -> int:
    both = [each.name for each in mutants if _is_one(before.get(each.name)) and _is_one(after.get(each.name))]
    found_before = {name for name in both if before[name]["outcome"] in FOUND}
    found_after = {name for name in both if after[name]["outcome"] in FOUND}
    print(f"Of {len(both)} tried with both: {len(found_before)} found before, {len(found_after)} now")
    for name in sorted(found_before - found_after):
        print(f"  found before by {before[name]['by']}, and not now: {name}")
    return 1 if found_before - found_after else 0


if __name__ == "__main__":
    sys.exit(main())
