"""The one vocabulary that every platform is translated into. Plain data: no I/O, no Airflow, no HTTP.

*Is it over?* and *what does it mean?* are two questions. A poll answers the first with a :class:`Run`; only a
:class:`RunReport` answers the second, through :func:`judge`, for operators and sensors alike.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from sys import getsizeof
from typing import Any

from airflow_provider_testruns import limits
from airflow_provider_testruns.cleaning import CUT, clean, clean_json, distinct
from airflow_provider_testruns.exceptions import ApiError, InvalidReplyError

#: The most cases that a counter can mean: beyond it somebody means something else.
_MOST_CASES = 10**15
#: About what a case takes beside its strings, in bytes.
_CASE = 150
#: Stands for a message that is left out.
_LEFT_OUT = CUT.strip()

#: What a platform's fields are named that hold secrets.
_SECRET = re.compile(
    "token|secret|passw|passphrase|pwd|authorization|credential|cookie|(api|access|private|signing|auth)[ _-]?key",
    re.IGNORECASE,
)
#: The most values of a run's raw form.
_MOST_RAW = 1000


#: Shared by all cases without any: there may be a hundred thousand.
_NO_DETAILS: Mapping[str, str | int | bool] = {}


def _detail(value: Any) -> str | int | bool:
    """A detail of a case as it may be kept."""
    if isinstance(value, bool | int) and abs(value) <= _MOST_CASES:
        return value
    return distinct(str(value))


def _without_secrets(value: Any) -> Any:
    """The same, without what is named like a secret, at whatever depth."""
    if isinstance(value, Mapping):
        return {name: _without_secrets(item) for name, item in value.items() if not _SECRET.search(str(name))}
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value


class RunState(enum.StrEnum):
    """Where a run is in its life. What it amounts to is not said here."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"


class Verdict(enum.StrEnum):
    """What a finished run means."""

    #: The tests ran and all that was asked of them was met.
    PASSED = "passed"
    #: The tests ran and some did not pass, or a gate was missed.
    FAILED = "failed"
    #: The platform could not run the tests.
    ERRORED = "errored"
    #: Somebody stopped the run.
    CANCELLED = "cancelled"


class Outcome(enum.StrEnum):
    """How one test case ended."""

    PASSED = "passed"
    FAILED = "failed"
    #: It was executed without a conclusive result (the system under test was not reachable, say).
    UNAVAILABLE = "unavailable"
    NOT_RUN = "not_run"


class Kind(enum.StrEnum):
    """What was started: some calls of a platform differ by it."""

    RUN = "run"
    GENERATION = "generation"
    TEST_CONFIGURATION = "test_configuration"
    #: Not one run, but the runs of a model, watched together.
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    :param done: pieces of work done (test cases, calls).
    :param total: pieces of work in all; ``None`` when the platform does not say.
    """

    done: int
    total: int | None = None

    def __str__(self) -> str:
        return f"{self.done}/{self.total}" if self.total is not None else str(self.done)


#: The names of fields of :class:`Run` in what Airflow has stored, where they are other ones.
_STORED_NAMES: Mapping[str, str] = {"platform_verdict": "ending", "ids": "context"}


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as a platform's response tells of it.

    :param platform: ``eggplant``, ``futureagi`` or ``omilia``.
    :param run_id: the platform's own id.
    :param state: whether it has finished.
    :param raw_state: the platform's own word for it, as it came.
    :param kind: what was started.
    :param platform_verdict: what the platform itself calls a finished run; ``None`` before that, and where the
        platform's word says only that it has finished.
    :param started_at: when it began, by the platform's clock; aware, UTC.
    :param finished_at: when it ended, by the platform's clock; aware, UTC.
    :param progress: how far it is, when the platform says.
    :param url: a page for people; empty when there is none.
    :param ids: the ids that its API needs beside ``run_id`` (``project_id``, ``run_test_id``, …).
    :param started_with: the arguments of its start that the platform shows again, for the lookup of a lost start.
    :param message: what the platform says about how it ended (an error reason), empty when it says nothing.
    :param known_state: whether ``raw_state`` is a word that the provider knows.
    :param start_unreadable: whether the platform gives a start that is no time: then ``started_at`` is ``None``, and
        the run may have begun whenever.
    :param parts: where it stands for several runs that are watched together: they, once all have finished.
    :param stalled: whether it counts as ended only because all of its work was done and the platform did not close it,
        or because it was adopted after its start and never began.
    :param start_error: what came instead of a good response to its start, of a run that was found and adopted after it.
    :param stopped_early: why it was stopped before its end, as a gate could not be met any more; a sentence, empty
        for a run that went to its end.
    :param source: of the object of the response as much as may be kept; see :attr:`raw`. Never stored.
    """

    platform: str
    run_id: str
    state: RunState
    raw_state: str
    kind: Kind = Kind.RUN
    platform_verdict: Verdict | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: Progress | None = None
    url: str = ""
    ids: Mapping[str, str] = field(default_factory=dict)
    started_with: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    known_state: bool = True
    parts: tuple[Run, ...] = ()
    start_unreadable: bool = False
    stalled: bool = False
    start_error: str = ""
    stopped_early: str = ""
    source: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def context(self) -> Mapping[str, str]:
        """The former name of :attr:`ids`."""
        return self.ids

    @property
    def final(self) -> bool:
        """Whether the run has finished."""
        return self.state is RunState.FINISHED

    @property
    def raw(self) -> dict[str, Any]:
        """What the platform's response shows of the run, under the API's own field names: cleaned, bounded, without
        what is named like a secret. Empty for a run that comes from what Airflow has stored."""
        cleaned: dict[str, Any] = clean_json(_without_secrets(self.source or {}), mask=True, most=_MOST_RAW)
        return cleaned

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, for the places in which Airflow stores it; :meth:`from_dict` reads it back.

        Everything that has its default is left out: rows of the metadata database stay small.
        """
        out: dict[str, Any] = {}
        for item in fields(self):
            if item.name == "source":
                continue
            value = getattr(self, item.name)
            if item.name == "progress" and value is not None:
                value = [value.done, value.total]
            elif isinstance(value, datetime):
                value = value.isoformat()
            elif isinstance(value, enum.Enum):
                value = value.value
            elif isinstance(value, Mapping):
                value = dict(value)
            elif item.name == "parts" and value:
                value = [part.to_dict() for part in value]
            default = {} if item.name in ("ids", "started_with") else item.default
            if item.name == "kind":
                default = Kind.RUN.value
            if value != default:
                out[_STORED_NAMES.get(item.name, item.name)] = value
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Run:
        """Read what :meth:`to_dict` wrote; fields that this version does not know are passed over.

        :raises KeyError, ValueError, TypeError: when it is not such data.
        """
        known = {_STORED_NAMES.get(item.name, item.name): item.name for item in fields(cls) if item.name != "source"}
        kept = {known[key]: value for key, value in data.items() if key in known}
        kept["state"] = RunState(kept["state"])
        if "kind" in kept:
            kept["kind"] = Kind(kept["kind"])
        if kept.get("platform_verdict") is not None:
            kept["platform_verdict"] = Verdict(kept["platform_verdict"])
        for moment in ("started_at", "finished_at"):
            if kept.get(moment) is not None:
                kept[moment] = datetime.fromisoformat(kept[moment])
        if kept.get("progress") is not None:
            kept["progress"] = Progress(*kept["progress"])
        if "parts" in kept:
            kept["parts"] = tuple(cls.from_dict(part) for part in kept["parts"])
        return cls(**kept)


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one test case (a call, a scenario) ended.

    Its strings are cleaned here, whoever made it. Different names stay different by that (see :func:`.distinct`), and
    what ``allowed_failures`` is compared with are the names as they came: so cleaning changes no verdict.

    :param name: its name on the platform.
    :param outcome: how it ended.
    :param duration: seconds, ``None`` when the platform does not say.
    :param message: why it did not pass, in one text; empty when it did.
    :param suite: the suite, scenario or model that it belongs to; empty when the platform does not say.
    :param earlier: the tries of the same case before the one that counts, where the platform ran it again.
    :param tries: how often the platform ran it, by its own count; 0 when it does not say.
    :param details: what else the platform says of it and people look for (how often it was tried, the ids of its
        dialogs), under the API's own field names: texts, whole numbers, true and false.
    :param as_it_came: suite and name as the platform spells them, where they are not clean; for comparing only, never
        to be shown or stored.
    """

    name: str
    outcome: Outcome
    duration: float | None = None
    message: str = ""
    suite: str = ""
    earlier: tuple[CaseResult, ...] = ()
    tries: int = 0
    details: Mapping[str, str | int | bool] = field(default_factory=lambda: _NO_DETAILS, hash=False)
    as_it_came: tuple[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Clean what the platform says."""
        if self.details:
            cleaned = {clean(name): _detail(value) for name, value in self.details.items()}
            object.__setattr__(self, "details", cleaned)
        suite, name = distinct(self.suite), distinct(self.name)
        if (suite, name) != (self.suite, self.name):
            if self.as_it_came is None:
                object.__setattr__(self, "as_it_came", (self.suite, self.name))
            object.__setattr__(self, "suite", suite)
            object.__setattr__(self, "name", name)
        if self.message:
            object.__setattr__(self, "message", clean(self.message, limits.MESSAGE, lines=True))

    @property
    def passed_after_rerun(self) -> bool:
        """Whether it passed, and not at its first try."""
        if self.outcome is not Outcome.PASSED:
            return False
        return self.tries > 1 or any(one.outcome is not Outcome.PASSED for one in self.earlier)


class CaseTexts:
    """Bounds what the strings of a report's cases take, all together, while they are read.

    Messages become shorter (see :data:`.limits.MESSAGES`), details are left out (see :data:`.limits.DETAILS`). Names
    stay as they are: by them cases are told apart and forgiven. A
    report with more of those than :data:`.limits.CASES` is not read.
    """

    __slots__ = ("_details", "_messages", "_room", "_suites")

    def __init__(self) -> None:
        self._messages = limits.MESSAGES
        self._details = limits.DETAILS
        self._room = limits.CASES
        self._suites: dict[str, str] = {}

    def message(self, text: str) -> str:
        """A message, or what is left of it when the ones before it have used up what there is.

        :param text: the message, clean.
        """
        if not text:
            return text
        size = getsizeof(text)
        if size > self._messages and len(text) > limits.ANSWER:
            text = clean(text, limits.ANSWER, lines=True)
            size = getsizeof(text)
        if size > self._messages + limits.MESSAGES // 2:
            return _LEFT_OUT
        self._messages -= size
        return text

    def with_messages(self, case: CaseResult) -> CaseResult:
        """The case with messages and details that are bounded, and nothing else of it."""
        if case.details:
            size = sum(len(name) + len(str(value)) for name, value in case.details.items())
            # Half of what there is stays for the cases that somebody will look at.
            plain = case.outcome is Outcome.PASSED and not case.passed_after_rerun
            if self._details - size < (limits.DETAILS // 2 if plain else 0):
                case = replace(case, details={})
            else:
                self._details -= size
        if not case.message and not case.earlier:
            return case
        message = self.message(case.message)
        earlier = tuple([self.with_messages(one) for one in case.earlier])
        if message is case.message and all(one is other for one, other in zip(earlier, case.earlier, strict=True)):
            return case
        return replace(case, message=message, earlier=earlier)

    def bounded(self, case: CaseResult) -> CaseResult:
        """The case, as it may be kept.

        :raises InvalidReplyError: when the names of the cases take too much.
        """
        case = self.with_messages(case)
        known = self._suites.get(case.suite)
        size = _CASE + getsizeof(case.name)
        if known is None:
            # The suites of most cases are the same, and each response spells them out.
            self._suites[case.suite] = case.suite
            size += _CASE + getsizeof(case.suite)
        elif known is not case.suite:
            case = replace(case, suite=known)
        if case.as_it_came is not None:
            size += _CASE + sum(map(getsizeof, case.as_it_came))
        self._room -= size
        if self._room < 0:
            raise InvalidReplyError(
                f"the report is too large to be read: its cases and their names take more than"
                f" {limits.CASES // limits.MB} MB"
            )
        return case


@dataclass(frozen=True, slots=True)
class Counts:
    """How many cases ended in which way."""

    passed: int = 0
    failed: int = 0
    unavailable: int = 0
    not_run: int = 0

    @property
    def total(self) -> int:
        """All cases, whether they ran or not."""
        return self.passed + self.failed + self.unavailable + self.not_run

    @property
    def not_passed(self) -> int:
        """The cases that were tried and did not pass."""
        return self.failed + self.unavailable

    @property
    def executed(self) -> int:
        """The cases that were tried: all but those that did not run."""
        return self.passed + self.failed + self.unavailable

    @classmethod
    def of(cls, cases: tuple[CaseResult, ...]) -> Counts:
        """Count ``cases`` by their outcome."""
        outcomes = [case.outcome for case in cases]
        return cls(
            passed=outcomes.count(Outcome.PASSED),
            failed=outcomes.count(Outcome.FAILED),
            unavailable=outcomes.count(Outcome.UNAVAILABLE),
            not_run=outcomes.count(Outcome.NOT_RUN),
        )


def reconcile(counts: Counts | None, cases: tuple[CaseResult, ...]) -> tuple[Counts | None, str]:
    """The worse of what a platform counts and what it lists.

    The list may be shorter than the counters (a page that is lost, a limit): what it does not show is as it is counted.
    Where nothing is counted, the list counts.

    :param counts: by the platform's counters; ``None`` when it has none. A counter that is not a number from 0 on
        counts as 0.
    :param cases: by its list.
    :return: the counts to judge by, ``None`` when there is neither; and how the two contradict each other, a sentence,
        empty when they don't.
    """
    listed = Counts.of(cases)
    if counts is None:
        return (listed if cases else None), ""
    given = (counts.passed, counts.failed, counts.unavailable, counts.not_run)
    counted = Counts(*(_counter(value) for value in given))
    said = "" if given == (counted.passed, counted.failed, counted.unavailable, counted.not_run) else "can't be right"
    if not cases:
        return counted, f"The platform's counters {said}." if said else ""
    if counted.total == 0:
        return listed, ""
    whole = len(cases) >= counted.total
    worse = listed if listed.not_passed >= counted.not_passed else counted
    total = max(counted.total, len(cases))
    passed = min(counted.passed, listed.passed) if whole else counted.passed
    passed = min(passed, max(0, total - worse.not_passed))
    disagreement = ""
    if listed.not_passed > counted.not_passed or (
        whole and (listed.passed, listed.not_passed) != (counted.passed, counted.not_passed)
    ):
        disagreement = (
            f"The platform counts {counted.passed} passed and {counted.not_passed} not passed, and lists"
            f" {listed.passed} and {listed.not_passed}: the worse of the two counts."
        )
    elif said:
        disagreement = f"The platform's counters {said}."
    not_run = max(0, total - passed - worse.not_passed)
    return Counts(passed, worse.failed, worse.unavailable, not_run), disagreement


def _counter(value: Any) -> int:
    """A counter as a number that can be worked with."""
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return min(max(0, value), _MOST_CASES)


@dataclass(frozen=True, slots=True)
class Metric:
    """One evaluation's metric over a whole run.

    :param value: the value; a fraction from 0 to 1 where the platform's value is a rate, ``None`` when
        nothing was scored.
    :param scored: on how many cases it stands, ``None`` when the platform does not say.
    """

    value: float | None
    scored: int | None = None


class CompareWith(enum.StrEnum):
    """Which run of the same tests a run is compared with."""

    #: The run before, whatever became of it.
    PREVIOUS = "previous"
    #: The last run before that passed.
    LAST_PASSED = "last_passed"


@dataclass(frozen=True, slots=True)
class Baseline:
    """The run that another one is compared with.

    :param run_id: the platform's id.
    :param verdict: what it was judged to mean.
    :param finished_at: when it ended, by the platform's clock; aware, UTC.
    :param url: a page for people; empty when there is none.
    :param complete: whether it names all of its cases that did not pass: those that the platform lists, all of them,
        of a run that was neither errored nor cancelled.
    """

    run_id: str
    verdict: Verdict
    finished_at: datetime | None = None
    url: str = ""
    complete: bool = True


@dataclass(frozen=True, slots=True)
class CaseNames:
    """Some cases, of which at most the first :data:`.limits.CHANGED` are named.

    :param named: suite and name of each, as reports show them.
    :param total: how many there are.
    """

    named: tuple[tuple[str, str], ...] = ()
    total: int = 0

    @property
    def left_out(self) -> int:
        """How many are not named."""
        return self.total - len(self.named)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What has changed since an earlier run of the same tests.

    Cases that ``allowed_failures`` excludes are among neither the new failures nor those that are still failing.

    :param compare_with: what was asked for.
    :param baseline: the earlier run; ``None`` when there is none.
    :param new_failures: cases that did not pass and that the baseline does not name; all without a baseline.
    :param still_failing: cases that did not pass in either run.
    :param fixed: cases that did not pass in the baseline and passed now.
    :param metrics: by how much each metric that both runs have has changed.
    :param metrics_before: the metrics of the baseline.
    :param note: why there is no baseline, or what is missing in it; a sentence, empty when nothing is.
    """

    compare_with: CompareWith
    baseline: Baseline | None = None
    new_failures: CaseNames = CaseNames()
    still_failing: CaseNames = CaseNames()
    fixed: CaseNames = CaseNames()
    metrics: Mapping[str, float] = field(default_factory=dict)
    metrics_before: Mapping[str, Metric] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class RunReport:
    """All that is known of a finished run.

    A platform counts its cases and lists them, and the two may contradict each other. No counter hides a failure that
    the list shows, and no list one that is counted: :attr:`counts` are the worse of the two, whoever made the report.

    :param run: the run, in its last state.
    :param counts: how many cases ended in which way by the platform's counters; ``None`` when it has none. They are
        reconciled with ``cases`` here: see :func:`reconcile`.
    :param cases: the cases; may be empty although ``counts`` is not (an older server, a list that expired).
    :param metrics: evaluation metrics by name; of an evaluation that chooses, each choice's share as ``name=choice``.
    :param metrics_error: why evaluation metrics are not available; ``None`` when ``metrics`` has all there are. A gate
        on one that ``metrics`` has is judged all the same.
    :param disagreement: how counters and list contradict each other, a sentence; empty when they don't.
    :param commit: the Git commit that was tested, where the platform shows it; empty where it does not.
    :param remarks: what else should be looked at and changes no verdict, each a sentence.
    :param comparison: what has changed since an earlier run; ``None`` when it was not compared with any.
    :param unstable: of cases that changed their outcome at least twice in their last ten runs, by suite and name: those
        outcomes, the newest last, ``P`` for passed and ``F`` for all else.
    """

    run: Run
    counts: Counts | None = None
    cases: tuple[CaseResult, ...] = ()
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    metrics_error: ApiError | None = None
    disagreement: str = ""
    commit: str = ""
    remarks: tuple[str, ...] = ()
    comparison: Comparison | None = None
    unstable: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reconcile the counters with the list, bound the messages, and clean the names of metrics."""
        texts = CaseTexts()
        bounded = tuple([texts.with_messages(case) for case in self.cases])
        if any(one is not other for one, other in zip(bounded, self.cases, strict=True)):
            object.__setattr__(self, "cases", bounded)
        if any(metric_name(name) != name for name in self.metrics):
            object.__setattr__(self, "metrics", {metric_name(name): metric for name, metric in self.metrics.items()})
        counts, disagreement = reconcile(self.counts, self.cases)
        object.__setattr__(self, "counts", counts)
        if disagreement:
            object.__setattr__(self, "disagreement", disagreement)

    @property
    def pass_rate(self) -> float | None:
        """Passed cases as a fraction of those that were tried (passed, failed and unavailable; not those that
        did not run); ``None`` when none was."""
        if self.counts is None or self.counts.executed == 0:
            return None
        return self.counts.passed / self.counts.executed

    @property
    def duration(self) -> float | None:
        """Seconds from the run's start to its end, by the platform's clock."""
        if self.run.started_at is None or self.run.finished_at is None:
            return None
        return max(0.0, (self.run.finished_at - self.run.started_at).total_seconds())

    @property
    def failures(self) -> list[CaseResult]:
        """The cases that were tried and did not pass: failed ones first, then unavailable ones."""
        return sorted(
            (case for case in self.cases if case.outcome in (Outcome.FAILED, Outcome.UNAVAILABLE)),
            key=lambda case: case.outcome is Outcome.UNAVAILABLE,
        )

    @property
    def flaky(self) -> list[CaseResult]:
        """The cases that passed only at a later try, or whose outcome has changed at least twice in their last ten
        runs."""
        return [case for case in self.cases if case.passed_after_rerun or (case.suite, case.name) in self.unstable]


def metric_name(name: str) -> str:
    """The name of a metric as it is shown. Its parts are cleaned each for itself: ``a=b`` is what becomes of ``a``, an
    equals sign, and what becomes of ``b``."""
    if len(name) > 8 * limits.NAME:
        return distinct(name)
    return "=".join(distinct(part) for part in name.split("="))


def utc(moment: datetime) -> datetime:
    """The same moment in UTC; a naive one is taken as UTC, as the platforms' documents have it."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
