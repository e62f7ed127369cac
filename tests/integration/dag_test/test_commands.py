"""Airflow's own commands show the provider as it is installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.integration

COMMANDS = ("list", "hooks", "links")
#: The commands one after the other in one process: each for itself would take seconds to start.
_RUN = """
import sys
from airflow.cli.cli_parser import get_parser

for command in sys.argv[1:]:
    print(f"@{command}")
    arguments = get_parser().parse_args(["providers", command, "--output", "json"])
    arguments.func(arguments)
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What ``airflow providers`` shows, by subcommand."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    environment |= {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("home")), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *COMMANDS], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    responses = re.findall(r"^@(\w+)\n.*?(^\[.*?\]$)", done.stdout, re.MULTILINE | re.DOTALL)
    return {command: json.loads(response) for command, response in responses}


def test_the_provider_is_listed(shown: dict[str, list[dict[str, Any]]]) -> None:
    from airflow_provider_testruns import __version__

    (ours,) = (row for row in shown["list"] if row["package_name"] == "airflow-provider-testruns")
    assert ours["version"] == __version__
    assert "Eggplant DAI, Future AGI and Omilia" in ours["description"]


def test_the_hooks_of_the_connection_types_are_listed_and_can_be_imported(
    shown: dict[str, list[dict[str, Any]]],
) -> None:
    hooks = {row["connection_type"]: row for row in shown["hooks"]}
    assert {
        name: (hooks[name]["class"], hooks[name]["conn_id_attribute_name"])
        for name in ("eggplant", "futureagi", "omilia")
    } == {
        "eggplant": ("airflow_provider_testruns.hooks.eggplant.EggplantHook", "eggplant_conn_id"),
        "futureagi": ("airflow_provider_testruns.hooks.futureagi.FutureAGIHook", "futureagi_conn_id"),
        "omilia": ("airflow_provider_testruns.hooks.omilia.OmiliaHook", "omilia_conn_id"),
    }
    assert [hooks[name]["hook_name"] for name in ("eggplant", "futureagi", "omilia")] == [
        "Eggplant DAI",
        "Future AGI",
        "Omilia Testing Studio",
    ]


def test_the_link_is_listed(shown: dict[str, list[dict[str, Any]]]) -> None:
    assert any("airflow_provider_testruns.links.run.RunLink" in row.values() for row in shown["links"])
