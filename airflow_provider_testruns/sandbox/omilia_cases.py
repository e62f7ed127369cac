"""The test cases of Omilia's projects, and what comes of them in a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .archives import build_zip


@dataclass(frozen=True, slots=True)
class CaseTemplate:
    """A test case as it stands in a suite.

    :param suite: the suite's name.
    :param group: the suite's group, which a run can filter by.
    :param name: the case's name.
    :param description: None where nobody wrote one.
    :param utterance: what the caller says.
    :param flaw: what comes of it in a project whose tests fail: ``fail`` or ``unavailable``.
    """

    suite: str
    group: str
    name: str
    description: str | None
    utterance: str
    flaw: str | None = None


#: Name, description, utterance and flaw of the cases of each suite, under the suite's and its group's names.
_Suites = Mapping[tuple[str, str], tuple[tuple[str, str | None, str, str | None], ...]]


def _templates(suites: _Suites) -> tuple[CaseTemplate, ...]:
    return tuple(CaseTemplate(suite, group, *case) for (suite, group), cases in suites.items() for case in cases)


_BALANCE = ("balance_current_account", "Balance of the current account", "how much is on my account", None)
_BLOCK = ("block_lost_card", "A lost card is blocked at once", "I lost my card", None)
SMOKE = _templates(
    {
        ("balance", "accounts"): (
            _BALANCE,
            ("balance_savings", "Balance of the savings account", "what are my savings", None),
        ),
        ("card_block", "payments"): (
            _BLOCK,
            ("block_stolen_card_abroad", None, "somebody took my card in Lisbon", None),
        ),
    }
)
REGRESSION = _templates(
    {
        ("greeting", "accounts"): (
            ("greeting_known_caller", "The caller is greeted by name", "hello", None),
            ("greeting_unknown_caller", "An unknown number gets the general greeting", "good morning", None),
        ),
        ("balance", "accounts"): (
            _BALANCE,
            ("balance_joint_account", "Both owners hear the same balance", "balance of our account", "fail"),
        ),
        ("transfer", "payments"): (
            ("transfer_to_own_account", "A transfer between own accounts", "move 50 to my savings", None),
            ("transfer_above_limit", "A transfer above the limit is refused", "send 90000 to Maria", "fail"),
            ("transfer_unknown_payee", None, "send 20 euros to Gregor", None),
        ),
        ("card_block", "payments"): (
            _BLOCK,
            ("block_then_replace", "A new card is offered after the block", "send a new one", "unavailable"),
        ),
    }
)


@dataclass(slots=True)
class CaseResult:
    """A test case after a run.

    :param template: the case.
    :param case_id: its id.
    :param status: the platform's word: success, fail, unavailable.
    :param milliseconds: how long it took.
    :param dialog_id: what was said in it.
    :param golden_id: what should have been said.
    :param tries: how often it was tried; 0 for what is usual: twice where it failed, else once.
    """

    template: CaseTemplate
    case_id: str
    status: str
    milliseconds: float
    dialog_id: str
    golden_id: str
    tries: int = 0


def is_picked(template: CaseTemplate, filters: Mapping[str, Any]) -> bool:
    """Tell whether the filters of a run pick a case."""
    group, utterance, description = (filters.get(name) for name in ("group", "utterance", "description"))
    return (
        (not group or group.casefold() == template.group.casefold())
        and (not utterance or utterance.casefold() in template.utterance.casefold())
        and (not description or description.casefold() in (template.description or "").casefold())
    )


def case_json(case: CaseResult, done: bool) -> dict[str, Any]:
    """Return a case as the API shows it."""
    failed = done and case.status == "fail"
    unavailable = done and case.status == "unavailable"
    return {
        "numberOfTries": (case.tries or (2 if failed else 1)) if done else 0,
        "executionTime": case.milliseconds if done else 0.0,
        "testCaseName": case.template.name,
        "dialogId": case.dialog_id,
        "goldenDialogId": case.golden_id,
        "testCaseId": case.case_id,
        "testCaseDescription": case.template.description,
        # The word of the documents' table for a case that has not run.
        "status": case.status if done else "None",
        "assertionErrors": [_assertion_error(case)] if failed else [],
        "generalErrors": [{"text": _UNAVAILABLE}] if unavailable else [],
        "warnings": [{"text": "Answer came later than usual"}] if failed else [],
        "hadDelays": failed or (done and case.tries > 1),
    }


_UNAVAILABLE = "Voice application did not answer within 10 seconds"


def _assertion_error(case: CaseResult) -> dict[str, Any]:
    return {
        "step": 3,
        "assertion": "prompt",
        "expected": f"The caller is told the result of {case.template.name}",
        "found": "I am sorry, I did not get that",
    }


def problem_of(case: CaseResult) -> str:
    """Return what is wrong with a case in one line."""
    if case.status == "fail":
        error = _assertion_error(case)
        return f"step {error['step']}, {error['assertion']}: expected {error['expected']!r}, found {error['found']!r}"
    return _UNAVAILABLE if case.status == "unavailable" else ""


def dialog_json(case: CaseResult) -> dict[str, Any]:
    """Return the dialog of a case."""
    return {
        "dialogId": case.dialog_id,
        "steps": [
            {"step": 1, "actor": "system", "text": "Welcome to the sandbox bank. How can I help?"},
            {"step": 2, "actor": "user", "text": case.template.utterance},
            {"step": 3, "actor": "system", "text": f"Result of {case.template.name}"},
        ],
    }


def suite_archive(cases: Iterable[CaseTemplate]) -> bytes:
    """Return the suites of these cases as a ZIP file."""
    entries: dict[str, str | bytes] = {".omilia-ci.yml": "version: 1\nparallelTestCases: 1\n"}
    for case in cases:
        lines = [f"name: {case.name}", f"group: {case.group}", f"utterance: {case.utterance}"]
        entries[f"tests/{case.suite}/{case.name}.yml"] = "\n".join(lines) + "\n"
    return build_zip(entries)
