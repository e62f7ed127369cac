"""Which hook belongs to which platform. Importing this imports none of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow_provider_testruns.arguments import boolean
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
    #: The arguments that are true or false, of this class and its parents here.
    boolean_fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # By their annotations, so that none is forgotten. All of them can be templates.
        own = getattr(vars(cls).get("__init__"), "__annotations__", {})
        found = (name for name, kind in own.items() if kind in ("bool", bool) and name not in cls.boolean_fields)
        cls.boolean_fields = (*cls.boolean_fields, *found)
        fields = tuple(getattr(cls, "template_fields", ()))
        fields += tuple(name for name in cls.boolean_fields if name not in fields)
        cls.template_fields = fields  # type: ignore[attr-defined]

    def read_booleans(self) -> None:
        """Read the arguments that are true or false, which are texts where a template gave them.

        :raises ConfigurationError: naming the one that is neither.
        """
        for name in self.boolean_fields:
            setattr(self, name, boolean(name, getattr(self, name)))

    @property
    def conn_id(self) -> str:
        """The id of the Airflow connection."""
        conn_id: str = getattr(self, self.conn_id_field)
        return conn_id

    def make_hook(self) -> PlatformHook[Any]:
        """The platform's hook, with this task's connection."""
        return hook_class(self.platform_name)(self.conn_id)
