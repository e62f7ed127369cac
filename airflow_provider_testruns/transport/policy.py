"""The rules for carrying calls: how each response, or the lack of one, becomes a result or a typed error.

Written once, free of I/O; :mod:`.blocking` and :mod:`.nonblocking` drive it.
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from traceback import clear_frames
from typing import Any, TypeVar, cast
from urllib.parse import urlencode, urljoin, urlsplit

from airflow_provider_testruns import limits, timing
from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.emission import get_logger
from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    TransportError,
)
from airflow_provider_testruns.parsing import UnreadableError
from airflow_provider_testruns.redaction import redact
from airflow_provider_testruns.steps import Call, Response, Sleep, Steps, through
from airflow_provider_testruns.transport.auth import Auth
from airflow_provider_testruns.transport.effects import (
    EncodingError,
    Flow,
    NetworkError,
    Read,
    RefreshToken,
    Request,
    ResponseTooLargeError,
    send,
)
from airflow_provider_testruns.transport.pace import Pace, Turn

T = TypeVar("T")
log = get_logger(__name__)

#: How far a platform's clock can be from ours, in seconds.
_MOST_OFFSET = 366 * 86_400.0
#: How much of an answer that is not JSON is looked at, in bytes: taking the tags out of more takes its time.
_MAX_READ = 4_000
#: The shortest token that is masked in the errors of its own connection.
_SHORT_TOKEN = 8
#: From which length on a response is read without collecting garbage meanwhile, in bytes.
_LONG = 20_000
_TAGS = re.compile(r"<(script|style).*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)

_NEXT_STEP: dict[type[ApiError], str] = {
    AuthenticationError: "Check {fields} of the connection.",
    PermissionDeniedError: "Check what this user is allowed to do, and the licence or quota, on the platform.",
    NotFoundError: "Check the id, and that the connection's host is the right URL, with the right path.",
    InvalidRequestError: "Check the arguments of the task against what the platform says.",
    RateLimitedError: "Poll less often (a longer poll_interval), or raise the platform's limit.",
    ServerError: "The platform or a gateway before it has a problem; see its own logs or status page.",
}

_HINTS = {
    "verify": "Check the connection's extra 'verify': true, or the path of a CA bundle that the server's certificate is"
    " signed by.",
    "cert": "Check the connection's extras 'cert' and 'key': a client certificate that the server accepts.",
    "proxy": "Check the environment variables http_proxy, https_proxy, all_proxy and no_proxy, here and wherever else"
    " Airflow runs.",
    "sent": "Check the network and the platform; the extra 'timeout' sets how long one request may take.",
    "not sent": "Check the connection's host and port, and that the platform is reachable from here.",
}


@dataclass(frozen=True, slots=True)
class Advice:
    """What a platform's users should know when something is refused, in sentences that end a message.

    :param unauthorized: when the credentials are refused (401).
    :param forbidden: when what was asked is not allowed (402, 403).
    :param token: when the token endpoint refuses the credentials, or is not there.
    :param address: when what answers may not be the API: 404, a redirect, or a response that can't be read.
    """

    unauthorized: str = ""
    forbidden: str = ""
    token: str = ""
    address: str = ""

    def of(self, kind: type[ApiError]) -> str:
        """The sentences for an error, with a blank before them; empty when there are none."""
        said = {
            AuthenticationError: self.unauthorized,
            PermissionDeniedError: self.forbidden,
            NotFoundError: self.address,
            InvalidReplyError: self.address,
        }.get(kind)
        return _after_a_blank(said)

    @property
    def of_token(self) -> str:
        """The same for the token endpoint."""
        return _after_a_blank(self.token)


def _after_a_blank(sentence: str | None) -> str:
    return f" {sentence}" if sentence else ""


@dataclass(slots=True)
class RequestStats:
    """What carrying some steps has cost.

    :param requests: how many were sent for the calls; those for a token are not counted.
    :param bytes: how long their responses were.
    """

    requests: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _Spent:
    """What a step has cost so far.

    :param bytes: of its responses.
    :param seconds: of its calls.
    """

    bytes: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Allowance:
    """What a step may cost, which is one call or many: the pages of a list, the calls of a report.

    :param body: the longest response, in bytes.
    :param nodes: the most JSON values of one.
    :param bytes: how long all of its responses may be together.
    :param seconds: how long all of its calls may take together.
    """

    body: int
    nodes: int
    bytes: int
    seconds: float

    @classmethod
    def on_a_worker(cls) -> Allowance:
        """That of a worker, which has a process of its own."""
        return cls(limits.PAGE_BODY, limits.ALL_NODES, limits.STEP_BYTES, limits.STEP_SECONDS)

    @classmethod
    def in_the_triggerer(cls) -> Allowance:
        """That of the triggerer, which everybody shares."""
        return cls(limits.POLL_BODY, limits.POLL_NODES, limits.STEP_POLL_BYTES, limits.STEP_POLL_SECONDS)


@dataclass
class Session:
    """A connection's way to its platform: address, authentication and what is learnt on the way.

    :param conn_id: the Airflow connection, for messages.
    :param base_url: the platform's address, without a slash at the end; may carry a path.
    :param auth: how requests say who they come from.
    :param auth_fields: the connection's fields that hold the credentials, for messages.
    :param timeout: seconds for one request, from the connection to the last byte.
    :param clock: wall-clock seconds; for tests.
    :param max_file_size: the largest file that is downloaded, in bytes.
    :param advice: what the platform's users should know when something is refused.
    :param pace: how fast this process may ask the platform; one of its own if it is not given.
    """

    conn_id: str
    base_url: str
    auth: Auth
    auth_fields: str = "login and password"
    timeout: float = 30.0
    clock: Callable[[], float] = time.time
    max_file_size: int = limits.FILE_SIZE
    advice: Advice = field(default_factory=Advice)
    pace: Pace = field(default=None, repr=False)  # type: ignore[assignment]  # is set below
    #: The last response's ``Date``, and when it came.
    _dated: tuple[str, float] | None = field(default=None, init=False, repr=False)
    _renewing: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        """Make a pace where none is shared."""
        if cast("Pace | None", self.pace) is None:
            self.pace = Pace(clock=self.clock)

    @property
    def clock_offset(self) -> float | None:
        """The platform's clock minus ours in seconds, by the last response's ``Date``; ``None`` before the first."""
        # Read when it is asked for: few ask, and responses are many.
        if self._dated is None:
            return None
        date, came_at = self._dated
        moment = http_date(date)
        # A clock that is a year off is none that times could be compared by.
        return None if moment is None or abs(moment - came_at) > _MOST_OFFSET else moment - came_at

    def execute(
        self,
        steps: Steps[T],
        until: float | None = None,
        stats: RequestStats | None = None,
        allowance: Allowance | None = None,
    ) -> Flow[T]:
        """Turn a platform's steps into a flow of requests.

        :param steps: what to do.
        :param until: no request may last much beyond this time (seconds of ``clock``).
        :param stats: counts what it costs.
        :param allowance: what each step may cost; that of a worker if it is not given.
        """
        allowance = allowance or Allowance.on_a_worker()
        spent = _Spent()
        self.auth.known.hold()

        def handle(step: Call[Any] | Sleep) -> Flow[Any]:
            nonlocal spent
            if isinstance(step, Sleep):
                yield step
                if step.new_step:
                    spent = _Spent()
                return None
            self._check_allowance(step, allowance, spent)
            began = self.clock()
            try:
                return (yield from self.exchange(step, until, stats, allowance, spent))
            finally:
                if step.save_to is None and step.upload is None:
                    spent.seconds += max(0.0, self.clock() - began)

        return (yield from through(steps, handle))

    def _check_allowance(self, call: Call[Any], allowance: Allowance, spent: _Spent) -> None:
        """Refuse to send one more call of a step that has cost enough.

        :raises ApiError: which says that nothing was sent.
        """
        head = f"Connection {self.conn_id!r} did not {call.what} any more: the calls before it, of the same step,"
        error: ApiError
        if spent.bytes >= allowance.bytes:
            error = InvalidReplyError(
                f"{head} had responses of {spent.bytes / limits.MB:.0f} MB, and {allowance.bytes / limits.MB:.0f} MB"
                " is the limit. The platform sends more than is plausible."
            )
        elif spent.seconds >= allowance.seconds:
            error = TransportError(
                f"{head} took {spent.seconds:.0f} s, and {allowance.seconds:.0f} s is the limit. Check the network"
                " and the platform.",
                sent=False,
            )
        else:
            return
        error.not_executed = True
        raise error

    def exchange(
        self,
        call: Call[T],
        until: float | None = None,
        stats: RequestStats | None = None,
        allowance: Allowance | None = None,
        spent: _Spent | None = None,
    ) -> Flow[T]:
        """Send one call and read its response; a token that was not accepted is renewed once.

        :param call: the call.
        :param until: it may not last much beyond this time (seconds of ``clock``).
        :param stats: counts what it costs.
        :param allowance: what it may cost; that of a worker if it is not given.
        :param spent: what its step has cost so far; kept up to date.
        :raises ApiError: one of its children, by what was answered.
        """
        allowance = allowance or Allowance.on_a_worker()
        renewed = False
        redirects = 0
        began = self.clock()
        request = self._request(call, until, allowance.body)
        while True:
            headers = self.auth.headers()
            if headers is None:
                yield from self._renew(self.auth.current)
                headers = self.auth.headers() or {}
            asked = self.clock()
            turn = yield from self._take_turn(call, until, request)
            # That there are others is nothing that this call has cost.
            waited = max(0.0, self.clock() - asked)
            began += waited
            if spent is not None:
                spent.seconds -= waited
            # Another flow may have renewed the token meanwhile.
            headers = self.auth.headers() or headers
            used = self.auth.current
            if not call.idempotent:
                request = replace(request, timeout=self._time_left(call, request, began))
            try:
                response = yield from send(request.with_headers(headers))
            except NetworkError as e:
                raise self._network_error(e, call.what, request) from e
            except ResponseTooLargeError as e:
                raise self._too_large(call, request) from e
            except EncodingError as e:
                raise self._unreadable(call, request, str(e)) from e
            self._note_date(response)
            if stats is not None:
                stats.requests += 1
                stats.bytes += len(response.body)
            if spent is not None:
                spent.bytes += len(response.body)
            # Another flow may have renewed it while this request was on its way, or be about to.
            elsewhere = self._renewing or self.auth.current != used
            if response.status == 401 and not renewed and (elsewhere or self.auth.may_renew()):
                renewed = True
                yield from self._renew(used)
                continue
            if response.status in (301, 302, 303, 307, 308):
                redirects += 1
                request = self._follow(call, request, response, redirects)
                continue
            if not 200 <= response.status < 300:
                meant = response.status if call.stands_for is None else call.stands_for(response)
                error = self.error_for(response, call.what, request, call.error_text, call.secrets, meant)
                error.not_executed = call.not_executed(response)
                if response.status == 429:
                    self._slow_down(turn, error.retry_after)
                raise error
            self.auth.accepted()
            if len(response.body) > response.nodes:
                # A shorter one can't have more of them.
                response = replace(response, nodes=allowance.nodes)
            try:
                if len(response.body) > limits.READ_HERE:
                    result: T = yield Read(call.read, response)
                    return result
                return call.read(response) if len(response.body) < _LONG else Read(call.read, response)()
            except (InvalidReplyError, UnreadableError) as e:
                status = response.status
                # Whoever keeps the error, until another call has been tried, would keep all of the response.
                del response
                _let_go(e)
                raise self._unreadable(call, request, str(e), status) from e

    def _take_turn(self, call: Call[Any], until: float | None, request: Request) -> Flow[Turn]:
        """Wait until this process may send one more request.

        What has to be over by a time that comes before its turn is sent at once: the cancel of a run, or the last poll
        of a wait.

        :raises RateLimitedError: for a start whose time would be over: nothing was sent.
        """
        ends = [] if call.idempotent else [each for each in (call.deadline, call.send_before) if each is not None]
        times = ends if until is None else [*ends, until]
        while True:
            seconds, turn = self.pace.take(max(0.0, min(times) - self.clock()) if times else math.inf)
            if turn is None and ends:
                error = RateLimitedError(
                    f"{self._head(call.what, request)}: nothing was sent, as nothing of this process may ask the"
                    f" platform for another {seconds:.0f} s. It has answered HTTP 429, or the connection has a"
                    " max_requests_per_minute.",
                    retry_after=min(timing.MAX_RETRY_AFTER, seconds),
                )
                error.not_executed = True
                raise error
            if turn is None:
                return self.pace.take_now()
            if seconds <= 0:
                return turn
            good = False
            try:
                yield Sleep(seconds)
                good = self.pace.is_good(turn)
            finally:
                if not good:
                    self.pace.give_back(turn)
            if good:
                return turn

    def _slow_down(self, turn: Turn, retry_after: float | None) -> None:
        seconds = self.pace.refused(turn, retry_after)
        if seconds is not None:
            log.warning(
                "Connection %r: the platform has answered HTTP 429. This process asks it nothing for %.0f s, then one"
                " request after the other; max_requests_per_minute of the connection can keep it from that.",
                self.conn_id,
                seconds,
            )

    def _renew(self, stale: int | None) -> Flow[None]:
        try:
            yield RefreshToken(self.auth, stale)
        except ApiError as e:
            e.not_executed = True
            raise

    def _time_left(self, call: Call[Any], request: Request, began: float) -> float:
        """What a call that must not be repeated has left of its time, whatever it had to wait for before: beyond that
        nobody would look for its effect any more.

        :raises TransportError: when nothing is left.
        """
        until = began + self.timeout if call.deadline is None else min(call.deadline, began + self.timeout)
        left = until - self.clock()
        if left <= 0 or (call.send_before is not None and call.send_before <= self.clock()):
            raise self._network_error(
                NetworkError("its deadline passed before it was sent", sent=False),
                call.what,
                request,
            )
        return min(request.timeout, left)

    def refreshing_token(self, stale: int | None) -> Flow[None]:
        """The flow behind :class:`RefreshToken`; the driver sees to it that only one runs at a time."""
        if self.auth.headers() is not None and self.auth.current != stale:
            return
        self._renewing = True
        try:
            yield from self.auth.renew(self._token_body)
        except InvalidReplyError as e:
            # What reads the response knows no connection, and whoever reads the message may have many.
            said = str(e)
            named = f"Connection {self.conn_id!r}"
            if not said.startswith(named):
                # Changed where it is, as nothing of its making may hang on to another.
                e.args = (f"{named}: {said[:1].lower()}{said[1:]}",)
            raise
        finally:
            self._renewing = False

    def _token_body(self, request: Request, fields: str) -> Flow[bytes]:
        what = "get a token"
        try:
            response = yield from send(request)
        except NetworkError as e:
            raise self._network_error(e, what, request) from e
        except ResponseTooLargeError as e:
            raise InvalidReplyError(
                f"Connection {self.conn_id!r}: the token endpoint {request.url} sent more than"
                f" {limits.TOKEN_BODY // limits.KB} KB, which is no token. Check auth_url and realm of the connection."
            ) from e
        except EncodingError as e:
            raise InvalidReplyError(f"The response of the token endpoint {request.url} can't be read: {e}.") from e
        if 200 <= response.status < 300:
            return response.body
        if 300 <= response.status < 400:
            raise InvalidReplyError(
                f"Connection {self.conn_id!r}: the token endpoint {request.url} redirects to"
                f" {self._shown_origin(response.headers.get('location', ''))}, where no credentials are sent."
                " Check auth_url.",
                status=response.status,
            )
        if response.status in (400, 401):
            answer = self._answer(response, None)
            raise AuthenticationError(
                f"Connection {self.conn_id!r}: the token endpoint {request.url} refused the credentials with"
                f" HTTP {response.status}: {answer} Check {fields} of the connection, and its realm or auth_url."
                + self.advice.of_token,
                status=response.status,
            )
        if response.status == 404:
            # Not NotFoundError: that is said of runs, and must not be concluded from a wrong realm.
            raise AuthenticationError(
                f"Connection {self.conn_id!r}: there is no token endpoint at {request.url} (HTTP 404). Check host,"
                f" realm and auth_url of the connection.{self.advice.of_token}",
                status=404,
            )
        raise self.error_for(response, what, request, None)

    def _request(self, call: Call[Any], until: float | None, most: int) -> Request:
        query = {key: str(value) for key, value in call.query.items() if value is not None}
        url = self.base_url + call.path + ("?" + urlencode(query) if query else "")
        headers = {"Accept": "application/json", **call.headers}
        if call.save_to is not None:
            headers["Accept-Encoding"] = "identity"
        body = None
        if call.json is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(call.json, allow_nan=False).encode()
        elif call.form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(call.form).encode()
        timeout = self.timeout
        if until is not None:
            timeout = max(1.0, min(timeout, until - self.clock()))
        return Request(
            call.method,
            url,
            headers,
            timeout,
            body,
            call.upload,
            call.save_to,
            new_connection=not call.idempotent,
            most=most,
            most_file=self.max_file_size,
        )

    def _follow(self, call: Call[Any], request: Request, response: Response, redirects: int) -> Request:
        try:
            target = urljoin(request.url, response.headers.get("location", ""))
        except ValueError:
            target = ""
        if request.method != "GET":
            why = f"it redirects a {request.method}, which is not followed"
        elif _origin(target) != _origin(request.url):
            why = f"it redirects to {self._shown_origin(target)}, where the credentials must not go"
        elif redirects > 3:
            why = "it redirects in a loop"
        else:
            return replace(request, url=target)
        error = InvalidReplyError(
            f"{self._head(call.what, request)}: HTTP {response.status}, and {why}. Check the connection's host: scheme,"
            f" name and path must be the API's own.{self.advice.of(InvalidReplyError)}",
            status=response.status,
        )
        # 302 and 303 may also be said after something was done; the others are said instead of doing it.
        error.not_executed = response.status in (301, 307, 308)
        raise error

    def error_for(
        self,
        response: Response,
        what: str,
        request: Request,
        error_text: Callable[[Any], str] | None,
        secrets: tuple[str, ...] = (),
        meant: int | None = None,
    ) -> ApiError:
        """The typed error of a response that is none of 2xx and 3xx.

        :param meant: the status that it should have had; its own without.
        """
        status = meant or response.status
        kind: type[ApiError]
        if status == 401:
            kind = AuthenticationError
        elif status in (402, 403):
            kind = PermissionDeniedError
        elif status == 404:
            kind = NotFoundError
        elif status == 429:
            kind = RateLimitedError
        elif status >= 500 or status == 408:
            kind = ServerError
        else:
            kind = InvalidRequestError
        next_step = _HINTS["proxy"] if status == 407 else _NEXT_STEP[kind].format(fields=self.auth_fields)
        next_step += self.advice.of(kind)
        answer = self._answer(response, error_text, secrets)
        error = kind(
            f"{self._head(what, request)}: HTTP {response.status}: {answer} {next_step}",
            status=status,
            retry_after=retry_after(response.headers, self.clock()),
        )
        error.answer = answer
        return error

    def _shown_origin(self, url: str) -> str:
        """Masked before it is read: a name in lower case is no longer found."""
        return clean(_origin(self.mask(url)), limits.ANSWER)

    def _head(self, what: str, request: Request) -> str:
        url = request.url.split("?", 1)[0]
        return f"Connection {self.conn_id!r} could not {what} ({request.method} {url})"

    def _answer(
        self, response: Response, error_text: Callable[[Any], str] | None, secrets: tuple[str, ...] = ()
    ) -> str:
        text = ""
        try:
            body = response.json()
        except InvalidReplyError:
            # Masked before it is cut: half a secret can't be found any more.
            decoded = self.mask(response.body.decode(errors="replace"), secrets, keep=_MAX_READ)
            text = _TAGS.sub(" ", decoded) if "<" in decoded else decoded
        else:
            text = error_text(body) if error_text else ""
            if not text and isinstance(body, Mapping):
                found = [body.get(key) for key in ("detail", "message", "error_description", "error", "errors")]
                text = "; ".join(dict.fromkeys(str(item) for item in found if item))
            text = text or str(body)
        text = clean(" ".join(self.mask(text, secrets).split()), limits.ANSWER)
        if response.cut:
            text += f" [of more than {limits.ERROR_BODY // limits.KB} KB, which are not read]"
        if not text:
            return "an empty response."
        return text if text.endswith((".", "!", "?")) else text + "."

    def mask(self, text: str, more: tuple[str, ...] = (), keep: int | None = None) -> str:
        """``text`` without any secrets, and without ``more``. Of this connection's own, the shorter ones are masked,
        too: what it says here are its own words, not everybody's log."""
        own = (secret for secret in self.auth.secrets() if len(secret) >= _SHORT_TOKEN)
        return redact(text, (*own, *self.auth.known.fixed, *more), keep)

    def _too_large(self, call: Call[Any], request: Request) -> ApiError:
        if call.save_to is not None:
            return InvalidReplyError(
                f"{self._head(call.what, request)}: the file is larger than {request.most_file:,} bytes. The extra"
                " 'max_file_size' of the connection sets the limit."
            )
        return InvalidReplyError(
            f"{self._head(call.what, request)}: the response is larger than {request.most:,} bytes, which is the limit."
        )

    def _unreadable(self, call: Call[Any], request: Request, why: str, status: int | None = None) -> ApiError:
        return InvalidReplyError(
            f"{self._head(call.what, request)}: the response is not as documented:"
            f" {self.mask(why, call.secrets)}."
            " Check that the connection's host is the API's own URL."
            # A field that is missing is no question of the address.
            + (self.advice.of(InvalidReplyError) if why.startswith("the response is not JSON") else ""),
            status=status,
        )

    def _network_error(self, error: NetworkError, what: str, request: Request) -> ApiError:
        hint = _HINTS.get(error.about) or _HINTS["sent" if error.sent else "not sent"]
        return TransportError(f"{self._head(what, request)}: {self.mask(str(error))}. {hint}", sent=error.sent)

    def _note_date(self, response: Response) -> None:
        date = response.headers.get("date")
        if date is not None:
            self._dated = (date, self.clock())


def retrying(
    steps: Steps[T],
    seconds: float,
    *,
    grace: float = 0.0,
    clock: Callable[[], float] = time.time,
    log: Callable[..., None] | None = None,
) -> Steps[T]:
    """The same steps, with calls that failed transiently sent again, as long as that changes nothing.

    429, 5xx, timeouts and lost connections are tried again after 1, 2, 4 … 30 s (Retry-After, if longer).

    :param steps: what to do.
    :param seconds: how long, from now, a failing call is tried again; 0 for not at all.
    :param grace: the same, from its first such failure, for credentials that are not accepted and responses that can't
        be read: both may pass, too, but seldom do.
    :param clock: wall-clock seconds; for tests.
    :param log: called with a message and arguments for each failure that is passed over.
    """
    until = clock() + seconds

    def handle(step: Call[Any] | Sleep) -> Steps[Any]:
        tolerated_until: float | None = None
        failures = 0
        while True:
            try:
                return (yield step)
            except ApiError as e:
                if not isinstance(step, Call):
                    raise
                wait = max(back_off(failures), e.retry_after or 0.0)
                give_up_at = until if _is_transient(step, e) else 0.0
                if grace and _may_be_transient(step, e):
                    give_up_at = tolerated_until = tolerated_until or clock() + grace
                if clock() + wait > give_up_at:
                    raise
                failures += 1
                if log is not None:
                    log("%s Trying again in %.0f s.", e, wait)
            yield Sleep(wait)

    return (yield from through(steps, handle))


def _is_transient(call: Call[Any], error: ApiError) -> bool:
    return call.idempotent and error.transient and error.status not in call.non_retryable_statuses


def _may_be_transient(call: Call[Any], error: ApiError) -> bool:
    if isinstance(error, AuthenticationError):
        return call.idempotent or error.not_executed
    return isinstance(error, InvalidReplyError) and (call.idempotent or error.not_executed)


def back_off(failures: int) -> float:
    """Seconds to wait after so many failures before: 1, 2, 4 …, with up to a quarter more by chance."""
    return timing.CALL_BACKOFF.after(failures) * (1 + random.random() / 4)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds of a ``Retry-After`` header (a number or a date), at most :data:`.timing.MAX_RETRY_AFTER`."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        moment = http_date(value)
        if moment is None:
            return None
        seconds = moment - now
    if seconds != seconds:
        return None
    return min(timing.MAX_RETRY_AFTER, max(0.0, seconds))


def http_date(text: str) -> float | None:
    """A date of HTTP in seconds since 1970, ``None`` when it is none, whatever a server sends.

    :param text: the header's value.
    """
    try:
        return parsedate_to_datetime(text[:100]).timestamp()
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, OSError):
        return None


def _let_go(error: BaseException | None) -> None:
    """Empty what the frames of an exception and of those behind it hold; their places are still shown."""
    for _ in range(10):
        if error is None:
            return
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "an invalid URL"
    port = port or {"https": 443, "http": 80}.get(parts.scheme)
    # An address with credentials in it is not ours, and the drivers would send them in the place of our own.
    user = "***@" if parts.username is not None else ""
    return f"{parts.scheme}://{user}{parts.hostname}:{port}"
