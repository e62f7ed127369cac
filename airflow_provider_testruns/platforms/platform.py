"""What the rest of the provider needs of a platform: the part of each API that a run's life is made of.

A new platform is a subclass of :class:`Platform` in a module of its own, a hook that fills it from a connection,
and thin operators and sensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar

from airflow_provider_testruns import limits
from airflow_provider_testruns.exceptions import ConfigurationError, InvalidReplyError
from airflow_provider_testruns.model import Kind, Run, RunReport, RunState, Verdict
from airflow_provider_testruns.steps import Call, Steps


@dataclass(frozen=True, slots=True)
class Start:
    """A start that is ready to be sent, and what a lookup for it would compare.

    :param what: it in words, for the log: "run of project p-1".
    :param call: the one request that starts the run.
    :param ids: what :meth:`Platform.find_runs` needs to list runs like it (a project, a run test, a model).
    :param started_with: the arguments that the platform shows again with each run; equal in a candidate.
    :param not_compared: arguments of this start that no listing shows, so that no lookup can compare them.
    :param cannot_list: why runs like it can't be listed; ``None`` when they can.
    :param warnings: what the user should know before it is sent.
    :param start_after_lookup: whether the start may be sent again in the same try when a lookup shows no run of it.
    :param existing_run: the run that is there already, when nothing has to be started; ``call`` then only reads it.
    :param rerun_of: the run whose failed cases a new run tests again, with other filters than the task's; empty for any
        other start.
    """

    what: str
    call: Call[Run]
    ids: Mapping[str, str] = field(default_factory=dict)
    started_with: Mapping[str, Any] = field(default_factory=dict)
    not_compared: tuple[str, ...] = ()
    cannot_list: str | None = None
    warnings: tuple[str, ...] = ()
    start_after_lookup: bool = True
    existing_run: Run | None = None
    rerun_of: str = ""


#: The ids of a run that is there and that the list of where it should be does not show.
NOT_LISTED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Identity:
    """What a run of a task's arguments must show of itself. Comes from the task alone, never from what is stored.

    :param ids: the project, model or run test that it is of, and what was started (``kind``).
    :param started_with: the arguments that the platform shows again with each run.
    :param run_id: the run, where the arguments name it themselves (a rerun continues under its execution's id).
    """

    ids: Mapping[str, str] = field(default_factory=dict)
    started_with: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None


class PollCache:
    """What the polls of one group have shown. Whoever polls the group keeps it from poll to poll.

    Hundreds of rows come each time, and few have changed since: only those are read.
    """

    __slots__ = ("_old", "_old_before", "_read", "size")

    def __init__(self) -> None:
        self._read: dict[str, tuple[Any, Run]] = {}
        self._old: set[str] = set()
        self._old_before: datetime | None = None
        #: How many rows a list needs to show all that is wanted, as far as is known.
        self.size: int | None = None

    def run(self, run_id: str, row: Any, read: Callable[[], Run]) -> Run:
        """The run of a row.

        :param run_id: the run's id.
        :param row: what the response has of it.
        :param read: reads the row, if it is not what it was at the last poll.
        """
        known = self._read.get(run_id)
        if known is None or known[0] != row:
            known = self._read[run_id] = (row, read())
        return known[1]

    def keep(self, wanted: Collection[str]) -> None:
        """Forget the runs that are not wanted any more.

        :param wanted: the ids of those that are.
        """
        for run_id in self._read.keys() - wanted:
            del self._read[run_id]

    def recent(self, rows: Iterable[tuple[str | None, Any, Callable[[], Run]]], since: datetime | None) -> list[Run]:
        """The runs of a list that began at or after a time, or show no start. Where the whole history comes each time,
        most of it is not read again.

        :param rows: of each row the run's id, ``None`` where it can't be told without reading the row; the row; and
            what reads it. One that can't be read is left out.
        :param since: by the platform's clock; ``None`` is from the first.
        :raises InvalidReplyError: when there are more than :data:`.limits.RUNS`.
        """
        # No run gets a later start.
        known = since is not None and self._old_before is not None and self._old_before <= since
        before, old = (self._old if known else set()), set()
        runs: dict[str, Run] = {}
        for run_id, row, read in rows:
            if run_id is not None and run_id in before:
                old.add(run_id)
                continue
            try:
                run = read() if run_id is None else self.run(run_id, row, read)
            except InvalidReplyError:
                continue
            if since is not None and run.started_at is not None and run.started_at < since:
                old.add(run.run_id if run_id is None else run_id)
                continue
            runs.setdefault(run.run_id if run_id is None else run_id, run)
            if len(runs) > limits.RUNS:
                raise InvalidReplyError(f"the list has more than {limits.RUNS:,} runs, which are too many to be read")
        self._old, self._old_before = old, since
        self.keep(runs.keys())
        return list(runs.values())


class Platform(ABC):
    """One platform's API, as far as the life of a run goes. Pure: everything is steps, nothing is sent here."""

    #: ``eggplant``, ``futureagi``, ``omilia``: also the connection type.
    name: ClassVar[str]
    #: For people: "Eggplant DAI".
    title: ClassVar[str]
    #: How many rows of a list are asked for at once; the setting ``[testruns] page_size`` changes it.
    page_size: int = 100

    @abstractmethod
    def prepare_start(self, **arguments: Any) -> Steps[Start]:
        """Check a start's arguments and make it ready. May ask the platform, starts nothing.

        :raises ConfigurationError: for arguments that can't be right, naming them.
        """

    def prepare_rerun_of_failed(self, run: Run, **arguments: Any) -> Steps[Start | str]:
        """What a new try does after a run was judged as failed, when that is not to be another whole run: the cases
        again that did not pass, and no other.

        :param run: the run that failed, final.
        :param arguments: of :meth:`prepare_start`.
        :return: a start, or a sentence that says why there is none.
        """
        yield from ()
        return f"{self.title} has no call that runs the failed cases of run {run.run_id} again."

    def identity(self, **arguments: Any) -> Steps[Identity | None]:
        """What a run of these arguments must show of itself. Asks for no more than it has to.

        :param arguments: of :meth:`prepare_start`.
        :return: ``None`` where a platform can't say: what was noted at the start then stands for it.
        :raises ConfigurationError: for arguments that can't be right, naming them.
        """
        yield from ()
        return None

    def run_by_id(self, run_id: str, **ids: str | None) -> Run:
        """A run of which only the ids are known, to be polled or cancelled.

        :param run_id: the platform's id.
        :param ids: the other ids that its API needs, as in :attr:`.Run.ids`, and the run's ``kind``; ``None`` is none.
        :raises ConfigurationError: for a kind that there is not.
        """
        given = {name: value for name, value in ids.items() if value is not None}
        try:
            kind = Kind(given.get("kind", Kind.RUN))
        except ValueError:
            kinds = ", ".join(repr(each.value) for each in Kind)
            raise ConfigurationError(f"kind must be one of {kinds}, got {given['kind']!r}.") from None
        return Run(self.name, run_id, RunState.QUEUED, "", kind, ids=given)

    def get_stored_run(self, stored: Run, identity: Identity, since: datetime | None) -> Steps[Run]:
        """One run whose ids were stored where others can write, as the platform itself shows it: its ids are only what
        a response says, and where no response says which project, model or run test a run is of, the run is looked for
        in theirs; its ids are :data:`NOT_LISTED` when it is not there.

        :param stored: the run as it was stored, not trusted: its ids are only for what polls need besides and no
            comparison uses.
        :param identity: what it should be.
        :param since: the earliest start that it can have, by the platform's clock; ``None`` when not known.
        :raises NotFoundError: when the platform does not show it.
        """
        return (yield from self.get_run(self.run_by_id(stored.run_id, **(identity.ids or stored.ids))))

    #: Whether a run's start time is that of its execution, which may come long after the run was asked for.
    begins_late: ClassVar[bool] = False

    @abstractmethod
    def newest_run(self, start: Start) -> Steps[Run | None]:
        """The newest run among those that :meth:`find_runs` would list for this start, in one cheap call;
        ``None`` when there is none yet."""

    @abstractmethod
    def get_run(self, run: Run) -> Steps[Run]:
        """One run in its present state.

        :param run: as it was seen last, or :meth:`run_by_id`: its kind and its ids count.
        """

    def poll_with_failures(self, run: Run) -> Steps[tuple[Run, int | None]]:
        """One run in its present state, and how many of its cases have failed for good: they have ended without
        passing, and the platform does not try them again.

        :param run: as it was seen last.
        :return: of a final run, and where it isn't known now, ``None`` in place of the number.
        """
        raise NotImplementedError(f"{self.title} shows no failures of a run that is running.")

    @abstractmethod
    def find_runs(self, since: datetime | None, **ids: str) -> Steps[list[Run]]:
        """The runs that began at or after ``since`` (the platform's clock), newest first.

        Runs that have no start time yet are listed too: they are new.

        :param since: the earliest start; ``None`` for all.
        :param ids: of the project, run test or model whose runs are listed, as in :attr:`Start.ids`.
        """

    @abstractmethod
    def cancel_run(self, run: Run) -> Steps[None]:
        """Ask the platform to stop a run. A run that is already final is no error and is left as it is.

        :param run: as for :meth:`get_run`.
        :raises InvalidRequestError: for a run that is not final, of a kind that the API has no call to stop.
        """

    @abstractmethod
    def get_report(self, run: Run) -> Steps[RunReport]:
        """The results of a final run."""

    @abstractmethod
    def check(self) -> Steps[str]:
        """Prove that the address and the credentials are right; returns a sentence for people."""

    def group_of(self, run: Run) -> str | None:
        """The group in which :meth:`list_group` can poll ``run`` together with others; ``None`` when there is
        no call for it."""
        return None

    def list_group(
        self, group: str, wanted: Collection[str], oldest: datetime | None, cache: PollCache | None = None
    ) -> Steps[list[Run]]:
        """Look at runs of a group in as few calls as the API allows.

        :param group: as :meth:`group_of` gave it.
        :param wanted: the ids of the runs that are looked for; the others of the group need not be read.
        :param oldest: the earliest start among them, ``None`` when it is not known: what began before is of no
            interest.
        :param cache: of the polls of this group before, for this one to use and to add to.
        :return: those of the wanted runs that the list shows.
        """
        raise NotImplementedError(f"{self.title} has no call that lists the runs of a group.")

    def listed_by(self, **ids: str) -> Steps[Mapping[str, str]]:
        """The ids by which :meth:`list_recent` lists runs: those that were given, or what the platform says of them.

        :param ids: where to look (a project, a run test, a model).
        :raises ConfigurationError: when there is no list of it.
        """
        yield from ()
        return ids

    def list_recent(self, since: datetime | None, cache: PollCache, **ids: str) -> Steps[list[Run]]:
        """Every run that began at or after a time, or shows no start, in as few calls as the API allows. Unlike
        :meth:`find_runs` it is asked for again and again: rows that can't be read are left out, so that one of them
        does not hide all others.

        :param since: by the platform's clock; ``None`` is from the first.
        :param cache: of the polls before, for this one to use and to add to.
        :param ids: as :meth:`listed_by` gave them.
        """
        return (yield from self.find_runs(since, **ids))

    def listed_verdict(self, run: Run) -> Verdict | None:
        """What the platform's own word for a final run means; ``None`` where only its report shows that.

        :param run: as a list shows it.
        """
        return run.platform_verdict

    def read_log(self, run: Run) -> Steps[list[tuple[str, str]]]:
        """What a run has written to its log so far: all of it, line by line, each with the section it stands in."""
        raise NotImplementedError(f"{self.title} has no call for the log of a run.")


def settled(run: Run) -> Run:
    """The same run; one whose status is unknown to the provider has ended, as errored, when it has an end time.

    Without an end time an unknown status is taken for that of a run that continues, until the deadline of the wait.

    :param run: as a response shows it.
    """
    if run.known_state or run.final or run.finished_at is None:
        return run
    ended = f"Status {run.raw_state!r} is not known; the run has ended, and whether it passed can't be determined."
    message = f"{ended} {run.message}".strip()
    return replace(run, state=RunState.FINISHED, platform_verdict=Verdict.ERRORED, message=message)


def error_message_reader(*names: str) -> Any:
    """Find a platform's own words in the JSON of an error response, by the first of ``names`` that holds some."""

    def find(body: Any) -> str:
        if not isinstance(body, Mapping):
            return ""
        for name in names:
            found = body.get(name)
            if isinstance(found, str) and found.strip():
                return found.strip()
            if isinstance(found, list | Mapping) and found:
                return str(found)
        return ""

    return find
