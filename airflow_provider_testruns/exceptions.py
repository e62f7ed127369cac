"""What can go wrong, as types that a retry policy or an ``on_failure_callback`` can name.

All of them are :class:`AirflowException`, so Airflow's own handling (retries, ``soft_fail``) applies.
Two families are kept apart on purpose: the run *ended badly* (:class:`RunEndedError` and its children), and
the platform *could not be asked* (:class:`ApiError` and its children). The second never stands for the first.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_testruns import limits
from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.redaction import redact


class ConfigurationError(AirflowException, ValueError):
    """An argument, or a field of the connection, can't be right. Nothing was sent."""


class RunEndedError(AirflowException):
    """A run did not end with a passing verdict. The parent of the verdicts below; never raised itself."""


class RunFailedError(RunEndedError):
    """The tests ran and some did not pass, or a gate of the task was missed."""


class RunErroredError(RunEndedError):
    """The platform could not run the tests: there is no verdict on what was to be tested."""


class RunCancelledError(RunEndedError):
    """The run was cancelled, aborted or revoked before it had a result."""


class RunTimeoutError(AirflowException):
    """The run was not final, or could not even be started, when the task's ``timeout`` (or ``execution_timeout``) was
    over."""


class TriggerFailedError(AirflowException):
    """The trigger that waited for the run has failed, again and again. The run may still be running: the next try waits
    for it (Airflow 3.3 and later)."""


class ReportNotWrittenError(AirflowException):
    """The run passed, and its report file (``junit_path``) could not be written."""


class StartOutcomeUnknownError(AirflowException):
    """A start was sent, its outcome is not known, and a lookup was inconclusive. Nothing is started again."""


class StartSupersededError(AirflowException):
    """A later try of the task has taken over; this one stops and leaves the run alone."""


class StartAbandonedError(AirflowException):
    """The task was killed before its start was sent. Nothing was started."""


class ApiError(AirflowException):
    """The platform could not be asked, or did not answer as its documents say.

    :param message: which connection and call, what was answered, what to do next. It is cleaned here, whoever made it:
        what a platform answers is in it, and it goes to logs, events and reports.
    :param status: the HTTP status, when there was a response.
    :param retry_after: seconds that the platform asked to wait, when it did.
    """

    #: Asking again later may help, without anybody changing anything.
    transient: bool = False
    #: Whether it is proven that the call did nothing on the platform; only then a start may be sent again
    #: without a lookup.
    not_executed: bool = False
    #: The platform's own words in an error response: masked, cleaned and cut, as the message quotes them.
    answer: str = ""

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(clean(redact(message), limits.LINE))
        self.status = status
        self.retry_after = retry_after


class ConnectionUnavailableError(ApiError):
    """The Airflow connection could not be read in the triggerer, or can't be used as it is: the secrets backend or the
    database was away, it is missing, or somebody is editing it. The wait continues until its deadline."""

    transient = True


class AuthenticationError(ApiError):
    """The credentials of the connection were not accepted (HTTP 401, or the token endpoint refused them)."""


class PermissionDeniedError(ApiError):
    """The credentials are good, what was asked is not allowed or not paid for (HTTP 402, 403)."""


class NotFoundError(ApiError):
    """What was asked for does not exist, or not for this user (HTTP 404)."""


class InvalidRequestError(ApiError):
    """The platform refused the request (HTTP 400, 409, 422 and the other 4xx)."""


class RateLimitedError(ApiError):
    """Too many requests (HTTP 429)."""

    transient = True


class ServerError(ApiError):
    """The platform, or a gateway before it, failed (HTTP 5xx)."""

    transient = True


class TransportError(ApiError):
    """No complete response: refused or lost connection, timeout, name not found, certificate not accepted.

    :param message: as for :class:`ApiError`.
    :param sent: whether the request may have reached the platform. ``False`` proves that it did not.
    """

    transient = True

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent
        self.not_executed = not sent


class InvalidReplyError(ApiError):
    """A response that is not what the documents say: not JSON, a field missing or of a wrong type, too large."""
