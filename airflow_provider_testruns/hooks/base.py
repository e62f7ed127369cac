"""What the three hooks share: a connection, read once; a transport, opened when it is needed."""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook

from airflow_provider_testruns import deployment, timing
from airflow_provider_testruns.cleaning import clean_json, outgoing_text
from airflow_provider_testruns.emission import GuardedLog, get_logger
from airflow_provider_testruns.exceptions import ApiError, ConfigurationError
from airflow_provider_testruns.hooks.connection import Settings, check_extra
from airflow_provider_testruns.model import Run, RunReport
from airflow_provider_testruns.platforms.platform import Platform
from airflow_provider_testruns.steps import Steps, ask
from airflow_provider_testruns.transport.auth import Auth
from airflow_provider_testruns.transport.pace import Pace, in_turn, shared_pace
from airflow_provider_testruns.transport.policy import Advice, Session, retrying

if TYPE_CHECKING:
    from airflow_provider_testruns.files import Place
    from airflow_provider_testruns.transport.blocking import BlockingClient
    from airflow_provider_testruns.transport.nonblocking import AsyncClient

log = get_logger(__name__)

T = TypeVar("T")
P = TypeVar("P", bound=Platform)

#: So that nothing about a password can be learnt from the digest of a connection.
_DIGEST_KEY = os.urandom(32)


class PlatformHook(GuardedLog, BaseHook, Generic[P]):
    """A connection to one platform.

    :param conn_id: the Airflow connection.
    """

    #: The base URL when the connection names no host; empty when it must.
    default_host: ClassVar[str] = ""

    def __init__(self, conn_id: str) -> None:
        super().__init__()
        self.conn_id = conn_id
        self._settings: Settings | None = None
        self._platform: P | None = None
        self._client: BlockingClient | None = None

    @classmethod
    @abstractmethod
    def make_platform(cls, settings: Settings) -> P:
        """The platform of a connection.

        :raises ConfigurationError: naming the field that can't be right.
        """

    @classmethod
    @abstractmethod
    def make_auth(cls, settings: Settings) -> tuple[Auth, str]:
        """How requests are authenticated, and the connection's fields that it was read from.

        :raises ConfigurationError: naming the field that can't be right.
        """

    @classmethod
    def make_advice(cls, settings: Settings) -> Advice:
        """What this platform's users should know when something is refused.

        :param settings: the connection's fields.
        """
        return Advice()

    @property
    def settings(self) -> Settings:
        """The connection's fields.

        :raises ConfigurationError: naming the field that can't be right.
        """
        if self._settings is None:
            conn = self.get_connection(self.conn_id)
            # First: Airflow logs extras that are not JSON as an error of its own, and continues without them.
            check_extra(conn)
            self._settings = Settings.read(conn, conn.extra_dejson, default_host=self.default_host)
        return self._settings

    @property
    def platform(self) -> P:
        """The platform's API, as steps."""
        if self._platform is None:
            self._platform = _platform(self, self.settings)
        return self._platform

    @property
    def client(self) -> BlockingClient:
        """The transport; opened at its first use."""
        if self._client is None:
            self._client = self.new_client()
        return self._client

    def new_client(self, *, timeout: float | None = None, in_signal_handler: bool = False) -> BlockingClient:
        """A transport of its own, which shares nothing with :attr:`client`.

        :param timeout: seconds for one request, instead of the connection's.
        :param in_signal_handler: make no call to the task's supervisor, whose lock may be held.
        """
        from airflow_provider_testruns.hooks.versions import mask_secret
        from airflow_provider_testruns.transport.blocking import BlockingClient

        settings = self.settings
        # The pace that is shared has a lock, too; and what is done there has only seconds.
        session = _session(self, settings, timeout, Pace() if in_signal_handler else None)
        settings.check_tls()
        if not in_signal_handler:
            for secret in session.auth.known.for_airflow():
                mask_secret(secret)
            for warning in settings.warnings():
                log.warning(warning)
        return BlockingClient(session, tls=settings.tls)

    @classmethod
    async def open_async(cls, conn_id: str) -> tuple[P, AsyncClient]:
        """The platform and a transport for the triggerer's event loop. The caller closes the transport.

        :param conn_id: the Airflow connection.
        """
        return await (await cls.read_async(conn_id)).open()

    @classmethod
    async def read_async(cls, conn_id: str) -> StoredConnection[P]:
        """The connection, read in the triggerer's event loop and not yet checked.

        :param conn_id: the Airflow connection.
        """
        from airflow_provider_testruns.hooks.versions import read_connection

        return StoredConnection(cls, await read_connection(conn_id, cls))

    def get_conn(self) -> BlockingClient:
        """The transport, under the name that Airflow's hooks have for it."""
        return self.client

    def close(self) -> None:
        """Close what is open."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def ask(self, steps: Steps[T], patience: float = timing.CALL_PATIENCE) -> T:
        """Carry a platform's steps; calls that failed transiently are sent again where that changes nothing.

        What the platform's own JSON is, under its own names, is cleaned here: DAGs put it into XComs and logs.

        :param steps: what to do.
        :param patience: for how many seconds.
        :raises ApiError: one of its children, by what the platform answered.
        """
        found = self.client.run(retrying(steps, patience, log=self.log.warning))
        return cast("T", clean_json(found, None)) if isinstance(found, dict | list | str) else found

    def start_run(self, **arguments: Any) -> Run:
        """Start a run with one start call, which is never sent again blindly.

        :param arguments: of the platform's start; see the hook's own method for it.
        :raises ConfigurationError: before any request, naming the argument.
        :raises ApiError: when it did not work, or when it is not known whether it did.
        """
        start = self.ask(self.platform.prepare_start(**arguments))
        for warning in start.warnings:
            self.log.warning(warning)
        return self.client.run(in_turn(self.client.session.pace, ask(start.call)))

    def get_run(self, run_id: str, **ids: str) -> Run:
        """One run in its present state.

        :param run_id: the platform's id.
        :param ids: the other ids that its API needs, as in :attr:`.Run.ids`.
        """
        return self.ask(self.platform.get_run(self.platform.run_by_id(run_id, **ids)))

    def find_runs(self, since: datetime | None = None, **ids: str) -> list[Run]:
        """The runs that began at or after a time, newest first.

        :param since: by the platform's clock; a naive time is UTC, ``None`` is from the first.
        :param ids: of the project, run test or model whose runs are listed.
        """
        from airflow_provider_testruns.model import utc

        return self.ask(self.platform.find_runs(utc(since) if since is not None else None, **ids))

    def cancel_run(self, run_id: str, **ids: str) -> None:
        """Ask the platform to stop a run; one that is already final is no error.

        :param run_id: the platform's id.
        :param ids: the other ids that its API needs, as in :attr:`.Run.ids`.
        """
        self.ask(self.platform.cancel_run(self.platform.run_by_id(run_id, **ids)))

    def get_report(self, run: Run) -> RunReport:
        """The results of a final run.

        :param run: as :meth:`get_run` gave it.
        """
        return self.ask(self.platform.get_report(run))

    def save_artifacts(self, run: Run, folder: Place) -> list[str]:
        """Write the files that the platform keeps of a final run, each complete or not at all.

        :param run: as :meth:`get_report` gave it.
        :param folder: a local folder or an object storage URL; made if it is not there.
        :return: where each was written; empty where the platform has none.
        :raises ApiError: when one is unavailable. Those before it are there.
        """
        return []

    def test_connection(self) -> tuple[bool, str]:
        """Prove the address and the credentials; what the button "Test" of the connection form calls."""
        try:
            return True, outgoing_text(self.ask(self.platform.check(), patience=0.0))
        except (ApiError, ConfigurationError, AirflowNotFoundException) as e:
            return False, outgoing_text(str(e))
        except AirflowException as e:
            return False, outgoing_text(f"Connection {self.conn_id!r} could not be read: {e}")


class StoredConnection(Generic[P]):
    """A connection as it is stored, in the triggerer.

    :param hook: of the platform.
    :param conn: the Airflow connection.
    """

    def __init__(self, hook: type[PlatformHook[P]], conn: Any) -> None:
        self._hook = hook
        self._conn = conn
        fields = ("conn_type", "host", "schema", "login", "password", "port", "extra")
        stored = json.dumps([getattr(conn, name, None) for name in fields], default=str).encode()
        #: Differs when any of the settings does. Of no use outside this process.
        self.digest = hashlib.blake2b(stored, digest_size=16, key=_DIGEST_KEY).hexdigest()

    async def open(self) -> tuple[P, AsyncClient]:
        """The platform and a transport of these settings. The caller closes the transport.

        :raises ConfigurationError: naming the field that can't be right.
        """
        import asyncio

        from airflow_provider_testruns.hooks.versions import async_mask, read_extra

        hook = self._hook
        # Importing aiohttp takes some 0.3 s, and a CA bundle is looked up on the disk: not in the event loop.
        transport = await asyncio.to_thread(import_module, "airflow_provider_testruns.transport.nonblocking")
        check_extra(self._conn)
        extra = await read_extra(self._conn)
        settings = await asyncio.to_thread(Settings.read, self._conn, extra, default_host=hook.default_host)
        await asyncio.to_thread(settings.check_tls)
        session = _session(hook, settings)
        mask = async_mask()
        for secret in session.auth.known.for_airflow():
            await mask(secret)
        for warning in settings.warnings():
            log.warning(warning)
        room = _max_connections(transport.MAX_CONNECTIONS)
        return _platform(hook, settings), transport.AsyncClient(session, tls=settings.tls, max_connections=room)


def _max_connections(default: int) -> int:
    """The setting ``[testruns] max_connections``; its default where it can't be right."""
    from airflow.providers.common.compat.sdk import AirflowConfigException, conf

    try:
        most = conf.getint("testruns", "max_connections", fallback=default)
    except (AirflowConfigException, ValueError):
        return default
    return most if 1 <= most <= 1000 else default


def _platform(hook: PlatformHook[P] | type[PlatformHook[P]], settings: Settings) -> P:
    platform = hook.make_platform(settings)
    platform.page_size = deployment.page_size()
    return platform


def _session(
    hook: PlatformHook[Any] | type[PlatformHook[Any]],
    settings: Settings,
    timeout: float | None = None,
    pace: Pace | None = None,
) -> Session:
    if timeout is not None:
        # For the requests that get a token, too.
        settings = replace(settings, timeout=timeout)
    auth, fields = hook.make_auth(settings)
    return Session(
        settings.conn_id,
        settings.base_url,
        auth,
        fields,
        settings.timeout,
        max_file_size=settings.max_file_size,
        advice=hook.make_advice(settings),
        pace=pace
        or shared_pace(
            settings.conn_id, settings.base_url, settings.max_requests_per_minute, settings.max_starts_at_once
        ),
    )
