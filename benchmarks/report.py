"""What was measured, as ``RESULTS.md`` and a plot."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.plan import COLUMNS, GROUPS, OLDER, OURS
from benchmarks.subjects import SUBJECTS

_TITLES = {
    "ours, listed": "ours, listed",
    "ours, individually": "ours, individually",
    **{name: SUBJECTS[name].title for name in ("databricks", "dbt", "airbyte", "http")},
}
_FAULT_TITLES = {
    "503": "2 % of responses are 503",
    "outage": "10 s without a server",
    "429": "4 s of 429, Retry-After 3",
    "401": "2 s of 401",
}
Cell = tuple[float, str]
_NONE: Cell = (math.nan, "-")


def machine() -> dict[str, str]:
    """What it was measured on; nothing that names it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    packages = dict.fromkeys(("apache-airflow", "aiohttp", *(subject.distribution for subject in SUBJECTS.values())))
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _measured(values: Iterable[float], form: str = "{:.1f}") -> Cell:
    """The median, and the smallest and the largest beside it."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return _NONE
    middle = statistics.median(known)
    said = form.format(middle)
    low, high = form.format(min(known)), form.format(max(known))
    return middle, said if low == high else f"{said} ({low}-{high})"


class _Steady:
    """Figures of the scenarios with steady waits, net of the empty trigger's."""

    def __init__(self, found: dict[str, Any], part: str = "steady") -> None:
        self._found = found[part]
        empty = self._rounds("empty")
        self._idle = statistics.median(one["cpu"] / one["seconds"] for one in empty) if empty else 0.0
        self._memory = statistics.median(one["memory"] for one in empty) if empty else 0.0
        self._own = empty

    def _rounds(self, column: str) -> list[dict[str, Any]]:
        measured = self._found.get(column, [])
        return measured if isinstance(measured, list) else [measured]

    def each(self, column: str, value: Callable[[dict[str, Any]], float]) -> list[float]:
        """A figure of every round."""
        return [value(one) for one in self._rounds(column)]

    def cpu(self, column: str) -> list[float]:
        """Seconds for each 10 000 observed states."""
        return self.each(
            column,
            lambda one: (
                (one["cpu"] - self._idle * one["seconds"]) / one["states"] * 10_000 if one["states"] else math.nan
            ),
        )

    def memory(self, column: str) -> list[float]:
        """MB for each 1000 waits."""
        return self.each(
            column, lambda one: (one["memory"] / one["runs"] * 1000 - self._memory) / 1e6 if one["runs"] else math.nan
        )


def markdown(found: dict[str, Any]) -> str:
    """The whole of ``RESULTS.md``."""
    steady, slow = _Steady(found), _Steady(found, "slow")
    columns = [column for column in COLUMNS if column in found["steady"] or column in found["faults"]]
    lines = _head(found)
    lines += ["## 1000 waits, a look every 5 s", ""]
    rows: list[tuple[str, str, list[str]]] = []

    def row(title: str, wanted: str, value: Callable[[str], Cell]) -> None:
        rows.append((title, wanted, [value(column)[1] for column in columns]))

    row("CPU seconds for 10 000 observed states", _wanted_cpu(steady), lambda c: _measured(steady.cpu(c), "{:.2f}"))
    if found["slow"]:
        row("the same, a look every 30 s (once, side by side)", "", lambda c: _measured(slow.cpu(c), "{:.2f}"))
    row(
        "requests for each round of 1000 states",
        "<= 10 listed",
        lambda c: _measured(steady.each(c, lambda one: one["requests"] / max(1, one["states"]) * 1000)),
    )
    row(
        "rounds done, of those due",
        "",
        lambda c: _measured(steady.each(c, lambda one: one["states"] / one["runs"] / (one["seconds"] / 5.0)), "{:.2f}"),
    )
    row("connections opened", "<= 8", lambda c: _measured(steady.each(c, lambda one: one["connections"]), "{:.0f}"))
    row("token requests", "1", lambda c: _measured(steady.each(c, lambda one: one["tokens"]), "{:.0f}"))
    row("memory, MB", "<= 10", lambda c: _measured(steady.memory(c)))
    row("stalls over 200 ms", "0", lambda c: _measured(steady.each(c, lambda one: one["stalls"]), "{:.0f}"))
    row(
        "p99 lag of the loop, ms", "<= 20", lambda c: _measured(steady.each(c, lambda one: one["lag"] * 1000), "{:.0f}")
    )
    row("longest lag, ms", "", lambda c: _measured(steady.each(c, lambda one: one["longest"] * 1000), "{:.0f}"))
    row(
        "arguments of a trigger in the database, bytes",
        "",
        lambda c: _measured(steady.each(c, lambda one: one["row"]), "{:.0f}"),
    )
    row("detection delay p50, in intervals", "<= 0.55", lambda c: _delay(found, c, 0.5))
    row("detection delay p90, in intervals", "", lambda c: _delay(found, c, 0.9))
    lines += _table(["", "wanted of ours", *(_TITLES[column] for column in columns)], rows)
    lines += [
        "",
        "Of every figure: the median, and the smallest and the largest of the rounds. Less than 1 round done of those"
        " due: the loop was too slow for the interval, so that the runs were looked at less often than asked for.",
        *_faults(found, columns),
        *_starts(found, columns),
        *_imports(found),
        *_growth(found, steady),
        *many(found.get("many", {})),
        "",
        "![CPU seconds for 10 000 observed states](results.svg)",
        "",
        *_method(found, steady),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _wanted_cpu(steady: _Steady) -> str:
    databricks = _measured(steady.cpu("databricks"))[0]
    if math.isnan(databricks):
        return ""
    return f"<= {0.05 * databricks:.2f} listed, <= {0.85 * databricks:.2f} individually"


def _head(found: dict[str, Any]) -> list[str]:
    about = found["machine"]
    lines = ["# What a thousand waits cost", "", "Written by `make bench`. How it is measured is said at the end.", ""]
    if found.get("quick"):
        lines += ["**One round only (`--quick`).**", ""]
    if found.get("note"):
        lines += [f"**{found['note']}**", ""]
    of_machine = f"{about['cores']} cores, {about['memory']} of memory, {about['system']}, Python {about['python']}"
    packages = ", ".join(
        f"{name} {about[name]}" for name in about if name not in ("date", "cores", "memory", "system", "python")
    )
    return [*lines, f"{about['date']}; {of_machine}.", "", f"Versions: {packages}.", ""]


def _table(head: Sequence[str], rows: Iterable[tuple[str, str, list[str]]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join([title, wanted, *cells]) + " |" for title, wanted, cells in rows]


def _delay(found: dict[str, Any], column: str, share: float) -> Cell:
    from benchmarks.client import percentile

    measured = found["detect"].get(column)
    if not measured or not measured["delays"]:
        return _NONE
    value = percentile(measured["delays"], share)
    return value, f"{value:.2f}"


def _faults(found: dict[str, Any], columns: Sequence[str]) -> list[str]:
    columns = [column for column in columns if column in found["faults"]]
    if not columns:
        return []
    rows = []
    for fault, title in _FAULT_TITLES.items():
        cells = []
        for column in columns:
            one = found["faults"][column][fault]
            said = str(one["failed"]) + (f" and {one['waiting']} never ended" if one["waiting"] else "")
            if one["too_early"]:
                said += f"; {one['too_early']} requests too early"
            if fault in ("429", "401"):
                runs = one["failed"] + one["waiting"] + len(one["delays"])
                said += f"; {one['in_fault'] / runs / {'429': 4.0, '401': 2.0}[fault]:.1f}/s"
            cells.append(said)
        runs = sum(found["faults"][columns[0]][fault][key] for key in ("failed", "waiting"))
        runs += len(found["faults"][columns[0]][fault]["delays"])
        rows.append((title, f"0 of {runs}", cells))
    head = ["", "wanted of ours", *(_TITLES[column] for column in columns)]
    return [
        "",
        "## Waits that fail although their runs do not",
        "",
        *_table(head, rows),
        "",
        "A look every second (every 2 s in the outage). Behind the semicolon: how often each wait asked a second"
        " while it lasted, and how many requests came before the Retry-After was over.",
    ]


def _starts(found: dict[str, Any], columns: Sequence[str]) -> list[str]:
    if not found["starts"]:
        return []
    lines = ["", "## Runs created by one start whose response is lost", ""]
    for column in columns:
        if column == "ours, individually":
            continue
        name = _TITLES[column] if column not in OURS else "ours"
        if column not in found["starts"]:
            lines.append(f"* {name}: starts nothing.")
            continue
        one = found["starts"][column]
        outcome = (
            f"and the task fails ({one['outcome'].split(':')[0]})"
            if one["failed"]
            else "and the task continues with one"
        )
        lines.append(f"* {name}: {one['starts']}, {outcome}.")
    return lines


def _imports(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, parts in found["imports"].items():
        cells = [
            _measured([value * 1000 for value in parts.get(part, [])])[1]
            for part in ("operators", "sensors", "trigger")
        ]
        wanted = "<= 15, <= 15, <= 25" if name == "ours" else ""
        rows.append((SUBJECTS[name].title, wanted, cells))
    return [
        "",
        "## Import beyond `airflow.sdk`, ms",
        "",
        *_table(["", "wanted", "operators", "sensors", "trigger"], rows),
        "",
        "In fresh processes, bytecode there. Ours: all three platforms' modules together.",
    ]


def _growth(found: dict[str, Any], steady: _Steady) -> list[str]:
    if not found["growth"]:
        return []
    numbers = [int(number) for number in next(iter(found["growth"].values()))]
    head = ["waits", *(f"{name}: {what}" for name in OURS for what in ("CPU, % of a core", "requests a round"))]
    rows = []
    for number in [*numbers, 1000]:
        cells = []
        for column in OURS:
            rounds = found["steady"][column] if number == 1000 else [found["growth"][column][str(number)]]
            cells.append(_measured([one["cpu"] / one["seconds"] * 100 for one in rounds])[1])
            cells.append(_measured([one["requests"] / one["states"] * number for one in rounds if one["states"]])[1])
        rows.append((str(number), cells[0], cells[1:]))
    return [
        "",
        "## Growth",
        "",
        *_table(head, rows),
        "",
        f"In {GROUPS} groups. A group of two (10 waits) is polled individually: its list, with {OLDER} older runs in"
        " it, would be dearer.",
    ]


def many(found: dict[str, Any]) -> list[str]:
    """Thousands of waits.

    :param found: as :func:`.plan.many` gives it.
    """
    if not found:
        return []
    empty = found["empty"]
    head = ["", *(f"{'triggers that do nothing' if c == 'empty' else _TITLES[c]}: {found[c]['runs']}" for c in found)]

    def row(title: str, value: Callable[[dict[str, Any]], str]) -> tuple[str, str, list[str]]:
        first, *others = (value(one) for one in found.values())
        return title, first, others

    def net(one: dict[str, Any], key: str) -> float:
        return float(one[key] - empty[key] * one["runs"] / empty["runs"])

    rows = [
        row("CPU, % of a core, all of it", lambda one: f"{one['cpu'] / one['seconds'] * 100:.1f}"),
        row(
            "rounds done, of those due",
            lambda one: "-" if one is empty else f"{one['states'] / one['runs'] / one['seconds'] * 10:.2f}",
        ),
        row("requests a second", lambda one: f"{one['requests'] / one['seconds']:.1f}"),
        row("connections opened", lambda one: f"{one['connections']}"),
        row(
            "memory for each 1000, MB, net",
            lambda one: "-" if one is empty else f"{net(one, 'memory') / one['runs'] / 1000:.1f}",
        ),
        row("stalls over 200 ms", lambda one: f"{one['stalls']}"),
        row("p99 lag of the loop, ms", lambda one: f"{one['lag'] * 1000:.0f}"),
        row("longest lag, ms", lambda one: f"{one['longest'] * 1000:.0f}"),
    ]
    return [
        "",
        "## Thousands of waits, a look every 10 s",
        "",
        *_table(head, rows),
        "",
        "All of them begin together, as after a restart. The lag is that of the first minute and of the 20 s after it,"
        " everything else of those 20 s. Most of the lag of triggers that do nothing is Python's garbage collector,"
        " which looks at all that each of them has.",
    ]


def _method(found: dict[str, Any], steady: _Steady) -> list[str]:
    seconds = _measured(steady.each("empty", lambda one: one["seconds"]), "{:.0f}")[1]
    idle = _measured(steady.each("empty", lambda one: one["cpu"] / one["seconds"] * 100))[1]
    memory = _measured(steady.each("empty", lambda one: one["memory"] / 1e6))[1]
    return [
        "## How it is measured",
        "",
        "* One server process answers for all platforms over TLS (a private CA), 20 ms after each request;"
        " it has one core, the clients have the other. Each scenario has a listener of its own.",
        "* Each scenario of a steady load is a fresh process that runs triggers as the triggerer does: tasks of one"
        " event loop, each with a greenback portal, going through `trigger.run()`. One wait comes first and is not"
        " counted, so that imports and first look-ups are not. Connections come from the environment; log lines go"
        " through Airflow's own logging and are thrown away.",
        f"* CPU is the process's own, over {seconds} s after the first interval, less that of as many triggers which do"
        f" nothing ({idle} % of a core, measuring included); memory is what the process has for itself, less what"
        f" those need ({memory} MB).",
        f"* Ours is measured twice: with runs whose project is not known, which are polled individually, and with"
        f" {GROUPS} projects of 200 runs each, whose lists hold {OLDER} older runs beside them. The others have no list"
        " call.",
        "* Lag: a task wants to run every 10 ms; a loop that is held up is late for each of these times. From the start"
        " of all waits at once to the end.",
        "* Airbyte's trigger calls synchronously and holds the loop up: a round of 1000 takes longer than the interval."
        " It is measured once, with a quarter of the waits (so are its connections; its memory is that of 1000).",
        "* HttpSensor tells final from not final by the status 404 alone, and knows no failed run.",
        "* The scenarios of faults, lost starts and detection are children of one process for each provider, side by"
        " side; those of the long interval are processes side by side. Their failures, requests and own CPU count, not"
        " their speed.",
        "* Databricks runs with the retries that its operator asks for (3, 1 s), the others with their defaults.",
        "* Not measured here: duplicate runs after a worker has died, which needs a whole Airflow (see the tests).",
    ]


def plot(found: dict[str, Any]) -> str:
    """CPU for 10 000 states as bars, each labelled; a logarithmic scale, for they differ by so much."""
    steady = _Steady(found)
    bars = [
        (_TITLES[column], _measured(steady.cpu(column), "{:.2f}")) for column in COLUMNS if column in found["steady"]
    ]
    bars = [(title, cell) for title, cell in bars if cell[0] > 0]
    if not bars:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    low = 10 ** math.floor(math.log10(min(cell[0] for _, cell in bars)))
    high = 10 ** math.ceil(math.log10(max(cell[0] for _, cell in bars)))
    left, width, step, top = 130, 420, 30, 44
    height = top + step * len(bars) + 34
    scale = width / (math.log10(high) - math.log10(low))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}"'
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="720" height="{height}" fill="#ffffff"/>',
        '<text x="14" y="24" font-size="15" font-weight="bold">CPU seconds for 10 000 observed run states</text>',
    ]
    mark = low
    while mark <= high * 1.001:
        x = left + (math.log10(mark) - math.log10(low)) * scale
        parts.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{top - 6}" y2="{height - 28}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x:.0f}" y="{height - 10}" text-anchor="middle" fill="#555555">{mark:g}</text>')
        mark *= 10
    for index, (title, (value, said)) in enumerate(bars):
        y = top + step * index
        length = max(2.0, (math.log10(value) - math.log10(low)) * scale)
        colour = "#2f7d4f" if title.startswith("ours") else "#9aa5b1"
        parts.append(f'<text x="{left - 10}" y="{y + 15}" text-anchor="end">{title}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{length:.0f}" height="20" fill="{colour}"/>')
        parts.append(f'<text x="{left + length + 6:.0f}" y="{y + 15}" fill="#333333">{said}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
