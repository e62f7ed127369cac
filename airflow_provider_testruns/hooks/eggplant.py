"""The hook for Eggplant DAI."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import quote

from airflow_provider_testruns import limits
from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.exceptions import ApiError, InvalidReplyError, NotFoundError
from airflow_provider_testruns.files import save
from airflow_provider_testruns.hooks.base import PlatformHook
from airflow_provider_testruns.hooks.connection import Settings
from airflow_provider_testruns.hooks.endpoints import endpoint
from airflow_provider_testruns.model import Run
from airflow_provider_testruns.platforms.eggplant.endpoints import MOST_ROWS
from airflow_provider_testruns.platforms.eggplant.platform import POLL_ENDPOINTS, EggplantPlatform
from airflow_provider_testruns.platforms.eggplant.responses import failure_at
from airflow_provider_testruns.steps import Steps, ask, optional
from airflow_provider_testruns.transport.auth import Auth, OAuthToken

if TYPE_CHECKING:
    from airflow_provider_testruns.files import Place

T = TypeVar("T")

#: How names of screenshots end; any other is kept as PNG, which is what DAI takes them in.
_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp")

#: Of how many tests that did not pass the screenshot of the failure is saved.
_EXPLAINED = 20
#: How a token can be asked for, and where the second of them is.
_AUTH_WAYS = ("keycloak", "v2")
_V2_AUTH = "/api/v2/auth"
_FIELDS = "login (client_id) and password (client_secret)"


class EggplantHook(PlatformHook[EggplantPlatform]):
    """A connection to Eggplant DAI.

    The connection's host is DAI's address, login and password are the ``client_id`` and ``client_secret`` of an API
    client (System > API Access); an API client has an administrator's rights. Extras: ``realm`` (default ``eggplant``),
    ``auth_url`` (the whole ``token_url``), ``auth`` (``keycloak``, or ``v2`` for ``/api/v2/auth``), ``verify``,
    ``timeout``, ``poll_endpoint``, ``run_url_template``.

    :param eggplant_conn_id: the Airflow connection.
    """

    conn_name_attr = "eggplant_conn_id"
    default_conn_name = "eggplant_default"
    conn_type = "eggplant"
    hook_name = EggplantPlatform.title
    #: What a link's template may hold.
    link_fields: ClassVar[tuple[str, ...]] = ("base_url", "run_id", "model_id")

    def __init__(self, eggplant_conn_id: str = default_conn_name) -> None:
        super().__init__(eggplant_conn_id)

    @classmethod
    def make_platform(cls, settings: Settings) -> EggplantPlatform:
        """The API of a connection.

        :raises ConfigurationError: naming the field that can't be right.
        """
        return EggplantPlatform(
            settings.base_url,
            poll_endpoint=settings.choice("poll_endpoint", POLL_ENDPOINTS),
            run_url_template=settings.template("run_url_template", cls.link_fields),
        )

    @classmethod
    def make_auth(cls, settings: Settings) -> tuple[Auth, str]:
        """OAuth 2.0 client credentials ("Eggplant DAI Model Execution Endpoints", DAI 7.3; the form, not the JSON, of
        its token request); or, with the extra ``auth`` set to ``v2`` or an ``auth_url`` that ends in ``/api/v2/auth``,
        the token endpoint of API V2 (public clients, 26.2), for workers that don't reach Keycloak.

        :raises ConfigurationError: naming the field that can't be right.
        """
        hint = "It is in the file of the API client (System > API Access > Add New)."
        grant = {
            "grant_type": "client_credentials",
            "client_id": settings.required(settings.login, "login", f"Fill in the client_id. {hint}"),
            "client_secret": settings.required(settings.password, "password", f"Fill in the client_secret. {hint}"),
        }
        auth_url = settings.url("auth_url")
        if settings.choice("auth", _AUTH_WAYS, "keycloak") == "v2" or auth_url.endswith(_V2_AUTH):
            del grant["grant_type"]
            token_url = auth_url or settings.base_url + _V2_AUTH
            return OAuthToken(token_url, grant, settings.timeout, _FIELDS, as_json=True), _FIELDS
        realm = quote(settings.text("realm", "eggplant"), safe="")
        token_url = auth_url or f"{settings.base_url}/auth/realms/{realm}/protocol/openid-connect/token"
        return OAuthToken(token_url, grant, settings.timeout, _FIELDS), _FIELDS

    def start_execution(
        self,
        model_id: str | None = None,
        test_case_id: int | str | None = None,
        rerun_id: int | str | None = None,
        script: str | None = None,
        agent: Mapping[str, Any] | None = None,
        asset: Mapping[str, Any] | None = None,
        sut: Mapping[str, Any] | None = None,
        model_name: str | None = None,
        test_case_name: str | None = None,
        agent_name: str | None = None,
        require_assets: bool = False,
    ) -> Run:
        """Start a run of a model, a test case or a script (POST /execution_service/api/v1/executions, "Start Model
        Execution", DAI 7.1). Sent once: where the response gets lost, :class:`ServerError` or :class:`TransportError`
        is raised and the run may be running.

        :param model_id: the model's UUID. At least one of ``model_id`` (or ``model_name``), ``rerun_id`` and ``script``
            must be given.
        :param test_case_id: the test case of the model; an exploratory run without.
        :param rerun_id: the test case id of the run to repeat.
        :param script: the name of the script to run.
        :param agent: ``{"agent_id": text, "is_hosted_agent": bool}``. Without one, a model and a test case only
            generate a path through the model; a warning says so.
        :param asset: ``{"asset_version_id": text, "asset_path": text}``. Without one a model runs no snippets; a
            warning says so.
        :param sut: ``{"sut_id": text, "criteria": [text, …]}``.
        :param model_name: the model's name, instead of its UUID.
        :param test_case_name: the test case's name, instead of its number.
        :param agent_name: the agent's name, instead of ``agent_id``.
        :param require_assets: whether the start of a model without an agent or an asset is refused.
        :return: the run, queued; its first poll says more. ``get_run(run.run_id, **run.ids)`` polls it.
        :raises ConfigurationError: before any start, naming the argument.
        :raises ApiError: when it did not work, or when it is not known whether it did.
        """
        return self.start_run(
            model_id=model_id,
            test_case_id=test_case_id,
            rerun_id=rerun_id,
            script=script,
            agent=agent,
            asset=asset,
            sut=sut,
            model_name=model_name,
            test_case_name=test_case_name,
            agent_name=agent_name,
            require_assets=require_assets,
        )

    get_execution = endpoint(EggplantPlatform.get_execution)
    get_run_progress = endpoint(EggplantPlatform.get_run_progress)
    list_model_progress = endpoint(EggplantPlatform.list_model_progress)
    abort_execution = endpoint(EggplantPlatform.abort_execution)
    list_runs = endpoint(EggplantPlatform.list_runs)
    get_run_details = endpoint(EggplantPlatform.get_run_details)
    get_run_logs = endpoint(EggplantPlatform.get_run_logs)
    list_models = endpoint(EggplantPlatform.list_models)
    list_agents = endpoint(EggplantPlatform.list_agents)

    def start_test_configuration(
        self,
        test_config_id: str | None = None,
        test_config_name: str | None = None,
        task_instance_body: Mapping[str, Any] | None = None,
    ) -> Run:
        """Start a test configuration (POST /task_scheduler_service/api/v1/task_instances/{id}, public clients). Sent
        once, as :meth:`start_execution`. ``get_run(run.run_id, **run.ids)`` polls it.

        :param test_config_id: its id: the end of the address when it is opened in Controller > Test Config.
        :param test_config_name: its name, instead of the id.
        :param task_instance_body: a body for the call, sent as it is. DAI's own runner gives parameters, filters and
            what to run again in it; its form is in no public document.
        :return: the run, queued; ``run_id`` is the ``task_instance_id``.
        """
        return self.start_run(
            test_config_id=test_config_id,
            test_config_name=test_config_name,
            task_instance_body=task_instance_body,
        )

    get_test_configuration_task = endpoint(EggplantPlatform.get_test_configuration_task)

    def list_test_results(self, limit: int = 100, **filters: str | int) -> list[dict[str, Any]]:
        """Results of single tests (GET /api/v2/test_results, "API V2 Endpoints", DAI 7.5 and later), as the API has
        them.

        :param limit: at most so many.
        :param filters: of the API, such as ``test_config_result_id``; sent as they are.
        """
        return self.ask(self.platform.list_test_results(limit, **filters))

    get_test_result = endpoint(EggplantPlatform.get_test_result)
    get_test_result_logs = endpoint(EggplantPlatform.get_test_result_logs)
    list_screenshots = endpoint(EggplantPlatform.list_screenshots)

    def download_screenshot(self, screenshot_id: str, path: Place) -> str:
        """Save a screenshot (GET /api/v2/screenshots/{id}, "API V2 Endpoints", DAI 7.5 and later), whole or not at
        all.

        :param screenshot_id: the ``id`` of one of :meth:`list_screenshots`.
        :param path: a local file or folder, or an object storage URL.
        :return: where the file is.
        """
        return self._download_image(screenshot_id, path, f"screenshot-{screenshot_id}.png")

    def list_test_configuration_results(self, limit: int = 100, **filters: str | int) -> list[dict[str, Any]]:
        """Results of test configurations (GET /api/v2/test_config_results, "API V2 Endpoints", DAI 7.5 and later), as
        the API has them.

        :param limit: at most so many.
        :param filters: of the API, such as ``test_config_id``; sent as they are.
        """
        return self.ask(self.platform.list_test_configuration_results(limit, **filters))

    get_test_configuration_result = endpoint(EggplantPlatform.get_test_configuration_result)

    def get_junit(self, test_config_result_id: str, path: Place | None = None) -> str:
        """The result of a test configuration as JUnit XML (GET /api/v2/test_config_results/{id}/junit, "API V2
        Endpoints", DAI 7.5 and later).

        :param test_config_result_id: the ``id`` of one of :meth:`list_test_configuration_results`.
        :param path: where to keep it too: a local file or folder, or an object storage URL.
        :return: the XML.
        """
        text = self.ask(self.platform.get_junit(test_config_result_id))
        if path is not None:
            save(path, lambda to: to.write_text(text, encoding="utf-8"), name=f"junit-{test_config_result_id}.xml")
        return text

    def save_artifacts(self, run: Run, folder: Place) -> list[str]:
        """Write what the server keeps of a final run, each file complete or not at all:

        * ``{run_id}_{test_result_id}_failure.png``, of a test that did not pass: the last screenshot before the line of
          its log that shows why (7.5 and later; of the first 20 such tests),
        * ``{run_id}_junit.xml``, of a test configuration (DAI 7.5 and later),
        * ``{run_id}_{test_result_id}_log.jsonl``, a line of JSON for each line of a test's log (7.5 and later),
        * ``{run_id}_{test_result_id}_001.png`` and so on, a test's screenshots (7.5 and later),
        * ``{run_id}_log.json``, the run's log, where the server has no results of single tests and the run can be found
          in its list of runs.

        :param run: as :meth:`get_report` gave it.
        :param folder: a local folder or an object storage URL; made if it is not there.
        :return: where each was written; empty where the server has none.
        :raises ApiError: when one is unavailable that should be there. Those before it are there.
        """
        saved = list(islice(self._saved_artifacts(run, folder), limits.FILES))
        if len(saved) == limits.FILES:
            self.log.warning("Run %s has %d files or more; the others are not saved.", run.run_id, limits.FILES)
        return saved

    def _saved_artifacts(self, run: Run, folder: Place) -> Iterator[str]:
        kept = self.ask(self.platform.list_kept(run))
        room = self.settings.max_file_size

        def fits(file: Path) -> None:
            nonlocal room
            room -= file.stat().st_size
            if room < 0:
                raise InvalidReplyError(
                    f"Connection {self.conn_id!r}: the screenshots of run {run.run_id} are together larger than"
                    f" {self.settings.max_file_size:,} bytes. The extra 'max_file_size' of the connection sets the"
                    " limit."
                )

        def write(name: str, lines: Iterable[str]) -> str:
            def fetch(to: Path) -> None:
                with to.open("w", encoding="utf-8") as file:
                    file.writelines(lines)

            return save(folder, fetch, name=f"{run.run_id}_{name}", into=True)

        for result_id in kept.failed_result_ids[:_EXPLAINED]:
            shown = self._picture_of_failure(result_id)
            if shown is not None:
                saved = self._save_picture({"id": shown}, folder, f"{run.run_id}_{result_id}_failure", fits)
                if saved is not None:
                    yield saved
        if kept.config_result_id is not None:
            junit = self._optional(self.platform.get_junit(kept.config_result_id))
            if junit is not None:
                yield write("junit.xml", [junit])
        for result_id in kept.test_result_ids:
            lines = self._optional(self.platform.get_test_result_logs(result_id))
            if lines:
                yield write(f"{result_id}_log.jsonl", (json.dumps(line) + "\n" for line in lines))
            pictures = self._optional(self.platform.list_screenshots(result_id, limit=MOST_ROWS)) or []
            for number, picture in enumerate(pictures, 1):
                saved = self._save_picture(picture, folder, f"{run.run_id}_{result_id}_{number:03d}", fits)
                if saved is not None:
                    yield saved
        if kept.run_number is not None:
            log = self._optional(self.platform.get_run_logs(kept.run_number))
            if log is not None:
                yield write("log.json", [json.dumps(log, indent=1), "\n"])

    def _picture_of_failure(self, result_id: str) -> str | int | None:
        """The id of the last screenshot before the line of a log that shows why its test did not pass."""
        lines = self._optional(self.platform.get_test_result_logs(result_id)) or []
        at = failure_at(lines)
        for line in reversed(lines[: 0 if at is None else at + 1]):
            shown = line.get("image_id")
            if isinstance(shown, str | int) and not isinstance(shown, bool) and shown != "":
                return shown
        return None

    def _save_picture(
        self, picture: Mapping[str, Any], folder: Place, name: str, fits: Callable[[Path], None]
    ) -> str | None:
        shown = picture.get("id")
        if isinstance(shown, bool) or not isinstance(shown, str | int):
            raise InvalidReplyError(f"Connection {self.conn_id!r}: a screenshot has no id: {picture!r:.200}")
        ending = PurePosixPath(str(picture.get("name") or "")).suffix.lower()
        try:
            name += ending if ending in _IMAGES else ".png"
            return self._download_image(str(shown), folder, name, into=True, fits=fits)
        except NotFoundError as e:
            self._log_lacking(e)
            return None

    def _download_image(
        self,
        screenshot_id: str,
        place: Place,
        name: str,
        *,
        into: bool = False,
        fits: Callable[[Path], None] = lambda file: None,
    ) -> str:
        def fetch(to: Path) -> None:
            self.ask(ask(self.platform.screenshot(screenshot_id, to)))

        def check(file: Path) -> None:
            _require_image(f"Connection {self.conn_id!r}: screenshot {screenshot_id}", file)
            fits(file)

        return save(place, fetch, name=name, check=check, into=into)

    def _optional(self, steps: Steps[T]) -> T | None:
        """What some servers have and others have not."""
        return self.ask(optional(steps, self._log_lacking))

    def _log_lacking(self, error: ApiError) -> None:
        self.log.info("Not available: %s", error)


def _require_image(what: str, file: Path) -> None:
    """A page that stands for an error is no screenshot, whatever its status."""
    with file.open("rb") as opened:
        start = opened.read(4_000).lstrip()
    if not start or start[:1] in (b"<", b"{"):
        raise InvalidReplyError(
            f"{what} is not an image: {file.stat().st_size} bytes that begin with"
            f" {clean(start.decode(errors='replace'), 60)!r}. Nothing was saved. Check that the"
            " connection's host is the API's own URL."
        )
