"""What leaves through logs and tracebacks: masked, cleaned and cut, whoever wrote it.

Airflow masks its logs, too, but knows no tokens; and it logs the whole chain of an exception, with what HTTP libraries
have put into theirs.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar, cast

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_testruns import limits
from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.redaction import redact

F = TypeVar("F", bound=Callable[..., Any])

#: How many exceptions of a chain are kept.
_CHAIN = 10
#: Exceptions of these packages are made by us, or by Airflow for us: nothing but their arguments is shown of them.
_KNOWN = ("airflow", "airflow_provider_testruns")


def outgoing(text: object, limit: int = limits.LOG) -> str:
    """A text for a log or an error: masked, cleaned, cut.

    :param text: the text; anything else is spelled out.
    :param limit: the most characters.
    """
    try:
        said = str(text)
    except Exception:  # whatever its __str__ does
        said = f"[{type(text).__name__}]"
    return clean(redact(said, keep=8 * limit), limit, lines=True)


class Outgoing(logging.Filter):
    """Masks and cleans what a logger of ours writes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; it is always written."""
        try:
            said = record.getMessage()
        except Exception as e:  # arguments that don't fit the message: logging itself would print all of them
            said = f"{record.msg} [{type(e).__name__}]"
        record.msg, record.args = outgoing(said), ()
        if record.exc_info and record.exc_info[1] is not None:
            error = tidy(record.exc_info[1])
            record.exc_info = (type(error), error, error.__traceback__)
        return True


_filter = Outgoing()


def get_logger(name: str) -> logging.Logger:
    """The logger of one of our modules.

    :param name: the module's.
    """
    log = logging.getLogger(name)
    log.addFilter(_filter)
    return log


def guarded(log: Any, name: str) -> Any:
    """A task's, trigger's or hook's logger that masks and cleans what is written to it.

    :param log: what Airflow has for it: a logger of structlog, or of the standard library.
    :param name: the name for a logger of structlog.
    """
    if isinstance(log, logging.Logger):
        log.addFilter(_filter)
        return log
    import structlog

    if not type(log).__module__.startswith("structlog."):
        return log
    # Not a wrapper around it: Airflow shows the line of code that a message comes from.
    processors = structlog.get_config()["processors"]
    made = structlog.wrap_logger(None, processors=[_process, *processors], logger_factory_args=(name,))
    _made[name] = (list(processors), made)
    return made


#: Of structlog's loggers, the one of each name, and the processors that it was made for.
_made: dict[str, tuple[list[Any], Any]] = {}


def _made_before(name: str) -> Any:
    """The logger of a name, as :func:`guarded` made it; ``None`` where it would make another. A triggerer has thousands
    of triggers of one class."""
    found = _made.get(name)
    if found is None:
        return None
    import structlog

    return found[1] if structlog.get_config()["processors"] == found[0] else None


class GuardedLog:
    """Mixed into operators, sensors, triggers and hooks, before Airflow's class: their ``log`` is a guarded one."""

    @property
    def log(self) -> Any:
        """The logger, masking and cleaning."""
        own = type(self)
        prefix = getattr(self, "_log_config_logger_name", None)
        name = getattr(self, "_logger_name", None) or f"{own.__module__}.{own.__qualname__}"
        name = f"{prefix}.{name}" if prefix else name
        return _made_before(name) or guarded(super().log, name)  # type: ignore[misc]


def _process(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """As a processor of structlog's: the message, and whatever else is logged with it."""
    args = event.pop("positional_args", ())
    if args:
        event["event"] = str(event.get("event")) % args
    if event.get("exc_info") is True:
        event["exc_info"] = sys.exc_info()
    for key, value in event.items():
        if isinstance(value, str) or key == "event":
            event[key] = outgoing(value)
        elif isinstance(value, BaseException):
            event[key] = tidy(value)
        elif isinstance(value, tuple) and len(value) == 3 and isinstance(value[1], BaseException):
            error = tidy(value[1])
            event[key] = (type(error), error, error.__traceback__)
    return event


class ChainedError(Exception):
    """Stands for an exception of somebody else's in the chain of one of ours: its type, and its text, masked."""


def tidy(error: BaseException) -> BaseException:
    """An exception that can be logged with all of its chain.

    Its texts are masked and cleaned, in place; exceptions of other libraries behind it, which may hold requests with
    their headers and proxies with their passwords, are replaced by their type and text.

    :param error: an exception that is about to leave our code.
    :return: the same one, unless its text can't be masked: then one that says the same.
    """
    return _tidied(error, _CHAIN, top=True) or error


def _tidied(error: BaseException | None, left: int, *, top: bool = False) -> BaseException | None:
    if error is None or left <= 0:
        return None
    known = type(error).__module__.partition(".")[0] in _KNOWN
    said = _said(error)
    # What others say of a response they may quote in full.
    shown = outgoing(said, limits.LOG if known or top else limits.LINE)
    kept: BaseException = error
    if known or top:
        if said != shown:
            error.args = tuple(outgoing(item) if isinstance(item, str) else item for item in error.args)
            if _said(error) != shown:
                # Not made of its arguments.
                kept = ChainedError(f"{_name(error)}: {shown}")
    elif not isinstance(error, ChainedError):
        kept = ChainedError(f"{_name(error)}: {shown}" if shown else _name(error))
    behind = error.__cause__ if error.__suppress_context__ or error.__cause__ is not None else error.__context__
    is_cause = error.__cause__ is not None
    behind = _tidied(behind, left - 1)
    kept.__context__ = None
    if is_cause or error.__suppress_context__:
        kept.__cause__ = behind
    else:
        kept.__context__ = behind
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        kept.__notes__ = [outgoing(note) for note in notes]
    return kept.with_traceback(error.__traceback__)


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # whatever its __str__ does
        return ""


def _name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")


def tidy_errors(method: F) -> F:
    """Decorates what Airflow calls: exceptions that leave it are :func:`tidy`."""

    @functools.wraps(method)
    def tidied(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except (Exception, AirflowTaskTimeout) as e:
            error = tidy(e)
            if error is e:
                raise
        raise error

    return cast("F", tidied)
