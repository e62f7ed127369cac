"""What to tell somebody who starts the sandbox: where it is, how to connect, and what can be run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import eggplant, futureagi, omilia
from .engine import Ending, Target
from .state import SandboxState

_ENDINGS = {
    Ending.PASSED: "passes",
    Ending.FAILED: "fails",
    Ending.ERRORED: "breaks: no test can be run",
    Ending.CANCELLED: "is cancelled on the platform's side",
    Ending.EMPTY: "ends well without a single test",
}


def connections(url: str, verify: bool | str | None = None) -> dict[str, dict[str, Any]]:
    """Return the three Airflow connections, ready for ``json.dumps`` into ``AIRFLOW_CONN_...``.

    :param url: the server's address.
    :param verify: what the connections say about certificates; None says nothing.
    """
    checks: dict[str, Any] = {} if verify is None else {"verify": verify}
    pages = f"{url}/_sandbox/runs"
    return {
        "eggplant_default": {
            "conn_type": "eggplant",
            "host": f"{url}{eggplant.EggplantAPI.prefix}",
            "login": eggplant.CLIENT_ID,
            "password": eggplant.CLIENT_SECRET,
            "extra": {
                "realm": eggplant.REALM,
                "run_url_template": f"{pages}/eggplant/{{run_id}}",
                **checks,
            },
        },
        "futureagi_default": {
            "conn_type": "futureagi",
            "host": f"{url}{futureagi.FutureAgiAPI.prefix}",
            "password": futureagi.API_KEY,
            "extra": {
                "secret_key": futureagi.SECRET_KEY,
                "app_url": f"{url}{futureagi.FutureAgiAPI.prefix}",
                **checks,
            },
        },
        "omilia_default": {
            "conn_type": "omilia",
            "host": f"{url}{omilia.OmiliaAPI.prefix}",
            "login": omilia.USER,
            "password": omilia.PASSWORD,
            "extra": {
                # The whole address: a path in the host belongs to the service, its identity provider stands beside it.
                "auth_url": f"{url}{omilia.OmiliaAPI.prefix}/auth/realms/master/protocol/openid-connect/token",
                "run_url_template": f"{pages}/omilia/{{run_id}}",
                **checks,
            },
        },
    }


def targets(state: SandboxState) -> Iterator[tuple[str, str, Target, str]]:
    """Yield platform, kind, object and what its runs do, for everything that can be run."""
    groups: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("eggplant", "model", dict(state.eggplant.models)),
        ("eggplant", "test configuration", dict(state.eggplant.configurations)),
        ("futureagi", "run test", dict(state.futureagi.run_tests)),
        ("omilia", "project", dict(state.omilia.projects)),
    )
    for platform, kind, objects in groups:
        for target in objects.values():
            does = _ENDINGS[target.ending]
            if isinstance(target, eggplant.Model) and target.restricted:
                does = "is refused with 403"
            yield platform, kind, target, does
