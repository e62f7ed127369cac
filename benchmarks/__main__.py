"""``python -m benchmarks [--quick]`` measures and writes ``RESULTS.md``; ``make bench`` sets up what it needs first."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks import plan, report

_FOLDER = Path(__file__).parent
_RAW = plan.ROOT / ".bench" / "results.json"


def main() -> None:
    """Measure, or write again what was measured."""
    parser = argparse.ArgumentParser(
        prog="benchmarks", description="Waits for a thousand test runs, and what they cost."
    )
    parser.add_argument("--quick", action="store_true", help="one round of the short interval, without growth")
    parser.add_argument("--tiny", action="store_true", help="ten waits of ours, to see that it works; writes nothing")
    parser.add_argument("--write", action="store_true", help="write the results of last time again")
    parser.add_argument("--note", default="", help="a sentence about the circumstances, for RESULTS.md")
    asked = parser.parse_args()
    if asked.write:
        found = json.loads(_RAW.read_text())
    else:
        mode = plan.TINY if asked.tiny else plan.QUICK if asked.quick else plan.FULL
        began = time.monotonic()
        found = plan.run(
            mode, lambda line: print(f"[{time.monotonic() - began:5.0f} s] {line}", file=sys.stderr, flush=True)
        )
        found |= {"machine": report.machine(), "quick": asked.quick, "note": asked.note}
    if asked.tiny:
        print(json.dumps(found, indent=1))
        return
    _RAW.parent.mkdir(exist_ok=True)
    _RAW.write_text(json.dumps(found))
    (_FOLDER / "RESULTS.md").write_text(report.markdown(found))
    (_FOLDER / "results.svg").write_text(report.plot(found))
    print(report.markdown(found))


if __name__ == "__main__":
    main()
