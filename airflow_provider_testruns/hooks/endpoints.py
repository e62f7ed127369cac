"""A hook's method for an endpoint of its platform, without a second signature and docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast, overload

from airflow_provider_testruns.steps import Call, Steps, ask

if TYPE_CHECKING:
    from airflow_provider_testruns.hooks.base import PlatformHook

T = TypeVar("T")
A = ParamSpec("A")


@overload
def endpoint(method: Callable[Concatenate[Any, A], Steps[T]]) -> Callable[Concatenate[PlatformHook[Any], A], T]: ...
@overload
def endpoint(method: Callable[Concatenate[Any, A], Call[T]]) -> Callable[Concatenate[PlatformHook[Any], A], T]: ...
def endpoint(method: Callable[..., Any]) -> Callable[..., Any]:
    """Bind a platform's method to a hook: ``list_models = endpoint(EggplantPlatform.list_models)``.

    The hook's method has the platform's name, arguments and docstring. It returns what the steps, or the call, come to.
    Write a method instead where a hook does more than ask: masks a secret, saves a file, logs a warning.

    :param method: of the platform; it returns :data:`~..steps.Steps` or a :class:`~..steps.Call`.
    :raises TypeError: when it is annotated to return anything else.
    """
    return cast("Callable[..., Any]", _Endpoint(method))


class _Endpoint:
    """Stands in the body of a hook's class until Python names it, and leaves the method in its place."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self._result = _result_of(method)

    def __set_name__(self, owner: type, name: str) -> None:
        called = self._method.__name__

        def bound(hook: PlatformHook[Any], /, *args: Any, **kwargs: Any) -> Any:
            # By its name: a platform that overrides the method is asked in its own way.
            found = getattr(hook.platform, called)(*args, **kwargs)
            return hook.ask(ask(found) if isinstance(found, Call) else found)

        update_wrapper(bound, self._method)
        bound.__module__, bound.__name__ = owner.__module__, name
        bound.__qualname__ = f"{owner.__qualname__}.{name}"
        bound.__annotations__ = {**self._method.__annotations__, "return": self._result}
        signature = inspect.signature(self._method).replace(return_annotation=self._result)
        vars(bound)["__signature__"] = signature
        setattr(owner, name, bound)


def _result_of(method: Callable[..., Any]) -> str:
    """``T`` of the ``Steps[T]`` or the ``Call[T]`` that a method is annotated to return, as it is written there."""
    returned = str(method.__annotations__.get("return"))
    for form in ("Steps", "Call"):
        if returned.startswith(f"{form}[") and returned.endswith("]"):
            return returned[len(form) + 1 : -1]
    raise TypeError(f"{method.__qualname__} must return Steps[…] or Call[…] to be an endpoint, not {returned}.")
