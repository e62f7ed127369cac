"""Which hook belongs to which platform. Importing this imports none of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from airflow_provider_testruns.hooks.base import PlatformHook

_HOOKS = {
    "eggplant": ("airflow_provider_testruns.hooks.eggplant", "EggplantHook"),
    "futureagi": ("airflow_provider_testruns.hooks.futureagi", "FutureAGIHook"),
    "omilia": ("airflow_provider_testruns.hooks.omilia", "OmiliaHook"),
}


def hook_class(platform: str) -> type[PlatformHook[Any]]:
    """The hook of a platform.

    :param platform: ``eggplant``, ``futureagi`` or ``omilia``.
    :raises KeyError: when there is none.
    """
    module, name = _HOOKS[platform]
    return cast("type[PlatformHook[Any]]", getattr(import_module(module), name))
