"""How long everything is tried and waited for: one table, in one place.

Times are in seconds. What a user can change (``timeout``, ``poll_interval``, the connection's ``timeout``,
``[testruns] event_delay``) is an argument or a setting; what is here is fixed, or the default of such a setting.
Read as ``timing.GRACE``, so that a test that needs another value sets it here.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Backoff(NamedTuple):
    """Pauses that grow.

    :param first: the first pause.
    :param most: the longest.
    :param factor: by how much each is longer than the one before.
    """

    first: float
    most: float
    factor: float = 2.0

    def after(self, failures: int) -> float:
        """The pause after so many failures before; seconds."""
        return min(self.most, self.first * self.factor ** min(failures, 20))


# A call

#: Between two tries of a call that failed transiently.
CALL_BACKOFF: Final = Backoff(1.0, 30.0)
#: The longest that a Retry-After is obeyed: nobody meant a day.
MAX_RETRY_AFTER: Final = 300.0
#: How long a hook's method keeps trying a call that failed transiently and can be repeated.
CALL_PATIENCE: Final = 20.0

# Tokens and connections

#: How long a token goes unrenewed after a renewal that did not help.
TOKEN_BACKOFF: Final = Backoff(1.0, 30.0)
#: The same after a token endpoint that failed; short, so that the end of its trouble is noticed.
TOKEN_FAILED_BACKOFF: Final = Backoff(1.0, 5.0)
#: How long a new token is used at least, however short the endpoint says that it lasts.
TOKEN_AT_LEAST: Final = 1.0
#: How long reading a connection may take in the triggerer.
CONNECTION_WITHIN: Final = 30.0
#: How long a connection that could not be read is left alone, however many wait for it.
CONNECTION_BACKOFF: Final = Backoff(1.0, 5.0)
#: How often, at most, a connection whose credentials are not accepted any more is read again.
REOPEN_AFTER: Final = 15.0

#: What ``max_requests_per_minute`` of a connection counts in.
MINUTE: Final = 60.0
#: How long nothing of a process asks a platform that has answered 429 without saying for how long.
REFUSED_BACKOFF: Final = Backoff(1.0, 30.0)
#: Between the first two requests after that. It is multiplied from request to request, until there is hardly any.
REFUSED_GAP: Final = Backoff(0.1, 5.0)
FASTER: Final = 0.8
LAST_GAP: Final = 0.01
#: How often whoever waits to start a run asks whether it is its turn.
ASK_FOR_TURN: Final = 0.25

#: How long requests wait for a connection in the triggerer until there is another one, and how long one that is not
#: needed is kept.
ROOM_AFTER: Final = 0.25
ROOM_FOR: Final = 60.0

# A start

#: How long calls that only read are tried again while a start is prepared or looked up.
LOOKUP_PATIENCE: Final = 60.0
#: Between two lookups for the run of a lost start.
LOOKUP_BACKOFF: Final = Backoff(1.0, 5.0, 1.5)
#: How long a platform may take to show a run in its list after the start's own deadline.
LISTING_LAG: Final = 60.0
#: What is allowed for clocks that differ, where the platform's own can't be read.
CLOCK_ALLOWANCE: Final = 60.0
#: How long a start that provably did nothing (connection refused, 429 …) is tried again.
START_PATIENCE: Final = 300.0
#: How many starts of unknown outcome, each shown by a lookup to have done nothing, one try may send.
MAX_UNKNOWN_STARTS: Final = 3
#: How long a run is watched that was started while the task was being killed.
LATE_START_WITHIN: Final = 5.0

# A wait

#: The shortest time between two polls of a run: what is asked for more often is a mistake, which the platform and
#: everybody else in the triggerer would pay for.
MIN_INTERVAL: Final = 0.1
#: A longest interval below this is not obeyed.
SHORTEST_MAX_INTERVAL: Final = 1.0
#: How far a poll may stray from its interval, as a fraction, so that polls of many runs do not march in step.
JITTER: Final = 0.1
#: How long a run may be missing, the credentials not accepted or the responses unreadable, without a break, before
#: the wait ends with an error.
GRACE: Final = 60.0
#: How long a run may be pending that was adopted after an error of its start, before it counts as never to begin, where
#: there is a limit for runs that stall.
BEGINS_WITHIN: Final = 600.0
#: How often a wait warns of a status that the provider does not know, and a watcher of a list that is unavailable.
WARN_AGAIN_AFTER: Final = 3600.0
#: How soon a wait in place notices that its run was stopped.
WAKE_WITHIN: Final = 0.5
#: How long a poll may take that is made when a wait times out.
LAST_POLL: Final = 1.0
#: How long runs are polled individually after their list turned out more expensive, or unavailable.
INDIVIDUALLY_FOR: Final = 300.0
#: For how long at most the event loop is held up by what a list has shown of many runs. One line in a task's log takes
#: a tenth of that.
LOOP_TURN: Final = 0.005
#: How often a list may fail transiently until it is tried whether a single run can be seen all the same.
LIST_FAILURES: Final = 3
#: How often a wait is handed to a new trigger after one that has failed.
MAX_TRIGGER_FAILURES: Final = 3
#: How long after its deferral a task gets no event, unless the setting ``[testruns] event_delay`` says otherwise.
#: Airflow fails a task ("executor finished with state success, but the task is queued") whose trigger fires, and which
#: its scheduler puts into the queue again, before that has processed its executor's report of the end of the task's
#: first part. A trigger can't find out when that has happened.
EVENT_DELAY: Final = 5.0
#: A deferral that is longer ago than this, by whatever clock, has been seen by all of Airflow.
SURELY_DEFERRED: Final = 60.0
#: How much later than Airflow's alarm the provider's own check of ``execution_timeout`` comes.
OVERTIME: Final = 5.0

#: How often metrics are sent at most.
METRICS_EVERY: Final = 10.0
#: How long OpenTelemetry may take to send the last of them.
METRICS_LAST: Final = 5.0

# A report

#: How long the calls that fetch the report of a finished run are tried again when they fail transiently.
REPORT_PATIENCE: Final = 300.0
#: How long they are tried again when the credentials are not accepted or the response can't be read.
REPORT_GRACE: Final = 15.0
#: How often, and how far apart, a detail is requested that Future AGI's server breaks on.
DETAIL_TRIES: Final = 3
DETAIL_PAUSE: Final = 2.0
#: How often, and how far apart, results that Eggplant DAI has not settled yet are read again.
UNSETTLED_TRIES: Final = 2
UNSETTLED_PAUSE: Final = 2.0
#: How often, and how far apart, the list of a run test is read for an execution that exists and is not in it.
UNLISTED_TRIES: Final = 2
UNLISTED_PAUSE: Final = 2.0

# Finished runs, whoever started them

#: How long before the newest end a run may have ended that is shown only now.
FINISHED_OVERLAP: Final = 600.0
#: A run that has not ended so long after its start is not watched any longer for its end.
LONGEST_WATCHED_RUN: Final = 2 * 86_400.0
#: How long the cursor's last write may take when the trigger ends.
LAST_WRITE: Final = 2.0
#: How long a trigger whose ``asset_name`` can't be right waits before it fails: Airflow starts it again at once.
MISTAKEN_PAUSE: Final = 60.0
#: Before Airflow 3.3 nothing tells when events are stored: the pause after some tens of them.
EVENTS_PAUSE: Final = 1.0

# A cancel

#: How long a cancelled run is watched until it is final. All three platforms stop in the background.
CONFIRM_WITHIN: Final = 30.0
#: Between two polls of a run that was asked to stop.
CONFIRM_BACKOFF: Final = Backoff(0.5, 5.0, 1.6)
#: What a worker that is being stopped has before it is killed, with something to spare.
WORKER_KILL_WITHIN: Final = 3.5
#: How long a cancel may take when a deferred task is killed; Airflow allows 30 s for all of it.
TRIGGER_KILL_WITHIN: Final = 20.0
#: How often a cancel that Future AGI did not take is sent, and the longest pause between two: whoever cancels has
#: little time.
CANCEL_TRIES: Final = 3
CANCEL_LONGEST_PAUSE: Final = 10.0
