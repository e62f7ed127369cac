"""The long form: ``python -m tests.chaos --seed 1``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .run import chaos
from .storm import Weather


def main() -> int:
    """Run it; the exit status says whether the books balance."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="repeats all choices")
    parser.add_argument("--tasks", type=int, default=270, help="task instances; most have more than one run")
    parser.add_argument("--folder", type=Path, help="keep everything here (default: a temporary folder)")
    parser.add_argument("--minutes", type=float, default=60, help="give up after this time")
    parser.add_argument("--parallelism", type=int, default=8)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {line}", flush=True)

    books = chaos(
        folder,
        seed=arguments.seed,
        tasks=arguments.tasks,
        weather=Weather(actions=max(5, arguments.tasks // 4)),
        within=arguments.minutes * 60,
        parallelism=arguments.parallelism,
        say=say,
    )
    print(f"\nSeed {arguments.seed}")
    for name, count in sorted(books.counts.items()):
        print(f"{count:7}  {name}")
    for fault in books.faults:
        print(f"  FAULT  {fault}")
    print("The books balance." if not books.faults else f"{len(books.faults)} faults; all is in {folder}")
    if not books.faults and arguments.folder is None:
        shutil.rmtree(folder)
    return 1 if books.faults else 0


if __name__ == "__main__":
    sys.exit(main())
