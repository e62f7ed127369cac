"""What whoever controls the sandbox can get wrong."""

from __future__ import annotations


class Mistake(ValueError):
    """An order that makes no sense, in words for whoever gave it."""


class UnknownRun(LookupError):
    """A run that the sandbox does not know."""
