"""The part of an operator or sensor that knows its platform and its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_testruns.arguments import boolean
from airflow_provider_testruns.emission import GuardedLog
from airflow_provider_testruns.hooks.registry import hook_class

if TYPE_CHECKING:
    from airflow_provider_testruns.hooks.base import PlatformHook


class ConnectedTask(GuardedLog):
    """A task of one platform."""

    #: The platform, as :func:`.hook_class` knows it.
    platform_name: ClassVar[str]
    #: The attribute with the id of the Airflow connection.
    conn_id_attr: ClassVar[str]
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
        """Read the arguments that are true or false, which are strings where a template gave them.

        :raises ConfigurationError: naming the one that is neither.
        """
        for name in self.boolean_fields:
            setattr(self, name, boolean(name, getattr(self, name)))

    @property
    def conn_id(self) -> str:
        """The id of the Airflow connection."""
        conn_id: str = getattr(self, self.conn_id_attr)
        return conn_id

    def make_hook(self) -> PlatformHook[Any]:
        """The platform's hook, with this task's connection."""
        return hook_class(self.platform_name)(self.conn_id)

    def connect(self) -> PlatformHook[Any]:
        """As :meth:`make_hook`, with its connection read and logged.

        :raises ConfigurationError: when the connection can't be used.
        """
        hook = self.make_hook()
        self.log.info("Using connection %r: %s", self.conn_id, hook.settings.base_url)
        return hook
