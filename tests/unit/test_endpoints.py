"""A hook's method that is bound to one of its platform shows what the platform's method shows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pytest

from airflow_provider_testruns.hooks.eggplant import EggplantHook
from airflow_provider_testruns.hooks.endpoints import endpoint
from airflow_provider_testruns.hooks.futureagi import FutureAGIHook
from airflow_provider_testruns.hooks.omilia import OmiliaHook
from airflow_provider_testruns.model import Run
from airflow_provider_testruns.platforms.eggplant import EggplantPlatform
from airflow_provider_testruns.platforms.futureagi import FutureAGIPlatform
from airflow_provider_testruns.platforms.omilia import OmiliaPlatform

pytestmark = pytest.mark.unit

_PLATFORMS = {EggplantHook: EggplantPlatform, FutureAGIHook: FutureAGIPlatform, OmiliaHook: OmiliaPlatform}
_BOUND = [
    pytest.param(hook, name, id=f"{hook.__name__}.{name}")
    for hook in _PLATFORMS
    for name, method in vars(hook).items()
    if inspect.isfunction(method) and hasattr(method, "__wrapped__")
]


@pytest.mark.parametrize(("hook", "name"), _BOUND)
def test_a_bound_method_looks_like_the_platforms(hook: type, name: str) -> None:
    bound: Callable[..., Any] = getattr(hook, name)
    method: Callable[..., Any] = getattr(_PLATFORMS[hook], name)
    shown, theirs = inspect.signature(bound), inspect.signature(method)
    assert shown.parameters == theirs.parameters
    assert inspect.getdoc(bound) == inspect.getdoc(method)
    assert (bound.__module__, bound.__qualname__) == (hook.__module__, f"{hook.__name__}.{name}")
    hints, expected = get_type_hints(bound), get_type_hints(method)
    # The result of the steps (the last argument of a generator's type), or of the call.
    assert hints.pop("return") == get_args(expected.pop("return"))[-1]
    assert hints == expected
    assert shown.return_annotation == bound.__annotations__["return"]


@pytest.mark.parametrize(
    ("method", "signature", "result"),
    [
        (EggplantHook.get_test_result_logs, "(test_result_id, limit=None)", list[dict[str, Any]]),
        (EggplantHook.list_runs, "(limit=100)", list[dict[str, Any]]),
        (EggplantHook.abort_execution, "(execution_id)", type(None)),
        (FutureAGIHook.get_test_execution_detail, "(execution_id, page=1, limit=30)", dict[str, Any]),
        (OmiliaHook.list_project_runs, "(project_id)", list[Run]),
        (OmiliaHook.revoke_run, "(run_id)", type(None)),
    ],
)
def test_what_users_see(method: Callable[..., Any], signature: str, result: object) -> None:
    shown = inspect.signature(method)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in shown.parameters.values()]
    assert str(inspect.Signature(bare[1:])) == signature
    assert get_type_hints(method)["return"] == result
    documented = inspect.getdoc(method) or ""
    assert all(f":param {each.name}:" in documented for each in bare[1:])


def test_wrong_arguments_fail_where_they_are_given() -> None:
    hook = FutureAGIHook()
    hook._platform = FutureAGIPlatform("current", "https://futureagi.example", "")
    with pytest.raises(TypeError, match=r"get_run_test\(\) got an unexpected keyword argument 'name'"):
        hook.get_run_test(name="x")  # type: ignore[call-arg]


def test_what_gives_neither_steps_nor_a_call_is_no_endpoint() -> None:
    with pytest.raises(TypeError, match=r"EggplantPlatform.group_of must return Steps\[…\] or Call\[…\]"):
        endpoint(EggplantPlatform.group_of)  # type: ignore[call-overload]
