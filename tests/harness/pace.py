"""Runs that get on with each poll, not with the time that a slow machine takes between two."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_testruns.sandbox.control import Control

#: How long a run takes that gets on by polls; seconds of the sandbox. So long that real time adds nothing to speak of.
DURATION = 36_000.0


@contextmanager
def getting_on_with_polls(control: Control, operation: str, polls: int = 20) -> Iterator[None]:
    """Move the sandbox's time on after each poll, so that every poll shows a run a little further.

    To be given runs of :data:`DURATION`. None of their states is skipped, however seldom they are polled.

    :param operation: the call that polls.
    :param polls: how many a run takes from beginning to end.
    """
    over = threading.Event()

    def move() -> None:
        seen = control.count(operation)
        while not over.wait(0.01):
            if control.count(operation) > seen:
                seen = control.count(operation)
                control.advance(DURATION / polls)

    # What is advanced must not be what ends tokens: they are of another test.
    control.set_token_lifetime(100 * DURATION, refresh_seconds=100 * DURATION)
    thread = threading.Thread(target=move, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
