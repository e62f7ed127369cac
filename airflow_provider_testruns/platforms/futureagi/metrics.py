"""Future AGI's evaluations as metrics: worked out from what each call was given, as the platform's own metrics are.

The platform's evaluation summary is right for plain outputs only. Where a template has ``choice_scores``, an output is
an object (``{"score": 0.9, "choice": "Great"}``): the summary counts its Python text as a choice, and has no average
of its scores. Of several choices in one answer it counts the combination. The calls' own outputs hold all of it.

What is counted, and how, is as in the platform's own ``kpis`` and ``eval_averages``: a metric is their ``avg_<name>``
divided by 100, a choice's share is its count divided by the calls that were scored. Two things are different on
purpose: an evaluation that scored nothing has no value, where they show 0, and a choice that one answer names twice
counts once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_testruns import limits
from airflow_provider_testruns.cleaning import distinct
from airflow_provider_testruns.model import Metric
from airflow_provider_testruns.platforms.reading import Fields

#: What a tool evaluation's metric is called: ``tool:lookup``.
TOOL = "tool:"
_PASSED = frozenset({"passed", "pass", "true"})
_FAILED = frozenset({"failed", "fail", "false"})
#: The most evaluations, each choice of one counted, that are kept: one more than a report may have, so that it is
#: refused. A run test has a handful.
_MOST = limits.METRICS + 1


class Room:
    """How many more evaluations, and choices of them, may be kept: of an execution all together."""

    __slots__ = ("_left",)

    def __init__(self, left: int = _MOST) -> None:
        self._left = left

    def take(self) -> bool:
        """Whether there is room for one more, which is then taken."""
        self._left -= 1
        return self._left >= 0


@dataclass(slots=True)
class Tally:
    """What the calls of an execution were given by one evaluation.

    :param name: of the evaluation.
    :param room: for its choices; the first of them is in that of the evaluation itself.
    :param kind: ``pass``, ``score``, ``choices`` or ``number`` (a number in the place of a choice); empty until it has
        scored a call.
    :param scored: how many calls it has scored.
    :param passed: how many of them it has passed, where it passes or fails.
    :param total: the sum of their scores, where it gives scores.
    :param choices: how often each choice was made, where it chooses; a call may have made several.
    """

    name: str
    room: Room = field(repr=False, compare=False)
    kind: str = ""
    scored: int = 0
    passed: int = 0
    total: float = 0.0
    choices: Counter[str] = field(default_factory=Counter)
    #: Upper and lower case of a choice are one to the platform; it stays as it was spelled first.
    _spelled: dict[str, str] = field(default_factory=dict)

    def choose(self, choice: str, count: int = 1) -> None:
        """Count a choice."""
        folded = choice.lower()
        if folded in self._spelled or not self._spelled or self.room.take():
            self.choices[self._spelled.setdefault(folded, choice)] += count

    def merge(self, other: Tally) -> None:
        """Add what other calls were given by the same evaluation."""
        if not self.kind:
            self.kind = other.kind
        elif other.kind != self.kind:
            return
        self.scored += other.scored
        self.passed += other.passed
        self.total += other.total
        for choice, count in other.choices.items():
            self.choose(choice, count)

    @property
    def value(self) -> float | None:
        """The pass rate or the average score, as a fraction; ``None`` for an evaluation that chooses."""
        if not self.scored or self.kind == "choices":
            return None
        if self.kind == "number":
            # As the platform has it: an average that is no percentage, among figures that are.
            return fraction(self.total / self.scored)
        return fraction((self.passed if self.kind == "pass" else self.total) * 100 / self.scored)

    def metrics(self) -> Iterator[tuple[str, Metric]]:
        """By name; of an evaluation that chooses, each choice's share of the calls as ``name=choice``."""
        if self.kind != "choices" or not self.scored:
            yield self.name, Metric(self.value, self.scored)
            return
        for choice, count in self.choices.items():
            yield f"{self.name}={choice}", Metric(fraction(count * 100 / self.scored), self.scored)


class Evaluations:
    """Adds up the outputs of an execution's calls, by the evaluation's id."""

    def __init__(self) -> None:
        self.by_id: dict[str, Tally] = {}
        #: The calls that have been added, by their ids: pages of a list that grows may show one twice.
        self.calls: set[str] = set()
        self._room = Room()

    def merge(self, page: Evaluations) -> None:
        """Add what a page of the list of calls has shown.

        :param page: of calls that were not added before.
        """
        self.calls |= page.calls
        for key, tally in page.by_id.items():
            known = self.by_id.get(key) or self._new(key, tally.name)
            if known is not None:
                known.merge(tally)

    def _new(self, key: str, name: str) -> Tally | None:
        if not self._room.take():
            return None
        tally = self.by_id[key] = Tally(name, self._room)
        return tally

    def add(self, outputs: Any) -> None:
        """What one call was given.

        :param outputs: an object by the evaluation's id, or a list; outputs that can't be read are not scored.
        """
        if isinstance(outputs, Mapping):
            found = list(outputs.items())
        elif isinstance(outputs, list):
            found = [(None, output) for output in outputs]
        else:
            return
        for key, value in found:
            if isinstance(value, Mapping):
                output = Fields(value, "an evaluation's output")
                name = output.verbatim("name") if isinstance(output.get("name"), str) else None
                if name:
                    self._add(distinct(str(key or name)), name, output)

    def add_tools(self, outputs: Any) -> None:
        """What one call's use of tools was given, by the tool's name: one tool may have been used several times.

        :param outputs: an object, as the details of a call have it.
        """
        for value in outputs.values() if isinstance(outputs, Mapping) else ():
            if isinstance(value, Mapping):
                output = Fields(value, "a tool's output")
                name = output.verbatim("name") if isinstance(output.get("name"), str) else None
                if name:
                    self._add(distinct(TOOL + name), TOOL + name, output)

    def _add(self, key: str, name: str, output: Fields) -> None:
        tally = self.by_id.get(key) or self._new(key, distinct(name, limits.NAME))
        if tally is None:
            return
        value = output.get("output", "value")
        if value is None or output.get("error") is True or output.get("skipped") is True:
            return
        kind = _kind(output.get("output_type", "type"), value)
        if kind is None or (tally.kind and tally.kind != kind):
            return
        if kind == "choices":
            choices = choices_of(value)
            if not choices:
                return
            for choice in choices:
                tally.choose(choice)
        elif kind == "pass":
            passed = _passed(value)
            if passed is None:
                return
            tally.passed += passed
        else:
            score = _score(value)
            if score is None:
                return
            tally.total += score
        tally.kind = kind
        tally.scored += 1


def fraction(percentage: float) -> float:
    """A percentage as a fraction, with as many places as the platform shows: 81.82 % is 0.8182."""
    return round(round(percentage, 2) / 100, 6)


def _kind(shown: Any, value: Any) -> str | None:
    """``pass``, ``score`` or ``choices``; ``None`` for an output type that is not known, of which the value tells
    nothing either."""
    known = {"pass/fail": "pass", "score": "score", "numeric": "score", "choices": "choices"}
    kind = known.get(shown.strip().casefold()) if isinstance(shown, str) else None
    if kind is None and not isinstance(shown, str):
        kind = "pass" if _passed(value) is not None else "score" if _score(value) is not None else None
    return "number" if kind == "choices" and _is_number(value) else kind


def _passed(value: Any) -> bool | None:
    if isinstance(value, Mapping):
        value = Fields(value, "an output").get("choice", "result")
    if isinstance(value, bool):
        return value
    word = value.strip().casefold() if isinstance(value, str) else None
    return True if word in _PASSED else False if word in _FAILED else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _score(value: Any) -> float | None:
    if isinstance(value, Mapping):
        value = Fields(value, "an output").get("score")
    if not _is_number(value):
        # The platform averages numbers only, and no strings of digits.
        return None
    try:
        score = float(value)
    except OverflowError:
        return None
    return score if math.isfinite(score) else None


def choices_of(value: Any) -> list[str]:
    """The choices of one answer, each once: upper and lower case are one."""
    if isinstance(value, Mapping):
        fields = Fields(value, "an output")
        several = fields.get("choices")
        value = several if several is not None else fields.get("choice")
    if isinstance(value, str):
        # A list that was made a string, as the platform reads it.
        value = value.strip(" []")
    found: dict[str, str] = {}
    for choice in value if isinstance(value, list) else [value]:
        text = choice if isinstance(choice, str) else str(choice) if _is_number(choice) else ""
        if text:
            found.setdefault(text.lower(), distinct(text, limits.NAME))
    return list(found.values())
