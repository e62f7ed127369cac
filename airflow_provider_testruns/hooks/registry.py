"""Which hook belongs to which platform. Importing this imports none of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow_provider_testruns.emission import GuardedLog

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


class ConnectedTask(GuardedLog):
    """The part of an operator or sensor that knows its platform and its connection."""

    #: The platform, as :func:`hook_class` knows it.
    platform_name: ClassVar[str]
    #: The attribute with the id of the Airflow connection.
    conn_id_field: ClassVar[str]

    @property
    def conn_id(self) -> str:
        """The id of the Airflow connection."""
        conn_id: str = getattr(self, self.conn_id_field)
        return conn_id

    def make_hook(self) -> PlatformHook[Any]:
        """The platform's hook, with this task's connection."""
        return hook_class(self.platform_name)(self.conn_id)
