"""The page of a run, for the links in the Airflow UI."""

from __future__ import annotations

from html import escape
from typing import Any

from .clock import zulu
from .engine import SimulatedRun
from .platform import RunDescription

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ddd;padding:.3rem .6rem;text-align:left}"
    "b.status{background:#eef;padding:.1rem .5rem;border-radius:.3rem}p.note{color:#666}"
)


def _page(title: str, body: str, refresh: bool = False) -> str:
    again = '<meta http-equiv="refresh" content="2">' if refresh else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>{again}'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>"
    )


def run_page(run: SimulatedRun, described: RunDescription, now: float) -> str:
    """Return the page of a run; it reloads itself while the run continues."""
    phase = run.phase(now)
    finished = run.finished_at(now)
    facts: dict[str, Any] = {
        "Run": run.run_id,
        "Platform": run.platform,
        "Started": zulu(run.created),
        "Ended": "not yet" if finished is None else zulu(finished),
        "Progress": f"{run.progress(now):.0%}",
        **{name.capitalize(): value for name, value in described.counts.items()},
    }
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items())
    head = "".join(f"<th>{escape(name)}</th>" for name in described.columns)
    cases = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in described.rows)
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in described.remarks)
    body = (
        f'<p><b class="status">{escape(described.status)}</b></p><table>{rows}</table>'
        f"<h2>Cases</h2><table><tr>{head}</tr>{cases}</table>"
        f"<ul>{remarks}</ul><p class=note>This run was simulated by the sandbox.</p>"
    )
    return _page(described.title, body, refresh=not phase.is_final)


def missing_page(run_id: str) -> str:
    """Return the page of a run that is not known."""
    return _page(
        "No such run",
        f"<p>The sandbox knows no run {escape(run_id)}. It forgets everything when it stops.</p>",
    )
