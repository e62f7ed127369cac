"""Where Airflow's versions differ in reading a connection and masking its secrets.

Before Airflow 3.3.2 all of this speaks to the task's or the triggerer's supervisor synchronously. In an event loop that
must happen in a thread of asgiref's, which knows of that loop: in the loop itself Airflow refuses it while anything
else waits for the supervisor (``DeadlockImminentError``), and from any other thread it ends the whole triggerer before
3.2.

Airflow's provider ``common.compat`` has the same from 1.22 on. Not to need it keeps the constraints files of Airflow
releases usable, which pin that provider to what there was on their day.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection


def mask_secret(secret: str) -> None:
    """Have Airflow mask a secret in the logs of this process.

    Not in an event loop: see :func:`async_mask`.

    :param secret: the text to mask.
    """
    found = getattr(import_module("airflow.sdk.log"), "mask_secret", None)
    if found is None:
        # Airflow 3.0
        found = import_module("airflow.sdk.execution_time.secrets_masker").mask_secret
    found(secret)


def async_mask() -> Callable[[str], Awaitable[Any]]:
    """The same for an event loop."""
    try:
        from airflow.sdk.log import amask_secret
    except ImportError:
        from asgiref.sync import sync_to_async

        return sync_to_async(mask_secret)
    return amask_secret


async def read_connection(conn_id: str, hook: type[BaseHook]) -> Connection:
    """A connection, in an event loop.

    :param conn_id: the Airflow connection.
    :param hook: the class that reads it.
    :raises airflow.exceptions.AirflowNotFoundException: when there is none of that id.
    """
    own = getattr(hook, "aget_connection", None)
    ours = getattr(own, "__func__", None)
    theirs = getattr(getattr(BaseHook, "aget_connection", None), "__func__", None)
    if own is not None and (_masks_in_the_loop() or ours is not theirs):
        found: Connection = await own(conn_id=conn_id)
        return found
    from asgiref.sync import sync_to_async

    return await sync_to_async(hook.get_connection)(conn_id=conn_id)


async def read_extra(conn: Connection) -> dict[str, Any]:
    """A connection's extra, in an event loop.

    :param conn: as :func:`read_connection` gave it.
    """
    if hasattr(conn, "aextra_dejson"):
        extra: dict[str, Any] = await conn.aextra_dejson()
        return extra
    from asgiref.sync import sync_to_async

    return await sync_to_async(lambda: conn.extra_dejson)()


def _masks_in_the_loop() -> bool:
    """Whether this Airflow masks a connection's secrets without blocking, which came together with this method."""
    from airflow.providers.common.compat.sdk import Connection

    return hasattr(Connection, "aextra_dejson")
