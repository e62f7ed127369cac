"""What Airflow is told of the provider is valid, complete and true."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from importlib import import_module, metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow.sdk import Connection
from airflow.sdk._shared.secrets_masker import should_hide_value_for_key

import airflow_provider_testruns
from airflow_provider_testruns.get_provider_info import get_provider_info
from airflow_provider_testruns.hooks.connection import Settings
from airflow_provider_testruns.hooks.registry import hook_class
from airflow_provider_testruns.links.run import RunLink
from airflow_provider_testruns.platforms.eggplant.platform import POLL_ENDPOINTS

pytestmark = pytest.mark.unit

_ROOT = Path(__file__).parents[2]
_PLATFORMS = ["eggplant", "futureagi", "omilia"]
_TYPES = {each["connection-type"]: each for each in get_provider_info()["connection-types"]}
#: DESIGN's table of connections, as far as extras go.
_EXTRAS = {
    "eggplant": {
        "realm",
        "auth_url",
        "auth",
        "verify",
        "cert",
        "key",
        "timeout",
        "max_file_size",
        "max_requests_per_minute",
        "max_starts_at_once",
        "poll_endpoint",
        "run_url_template",
    },
    "futureagi": {
        "secret_key",
        "dialect",
        "workspace_id",
        "app_url",
        "verify",
        "cert",
        "key",
        "timeout",
        "max_file_size",
        "max_requests_per_minute",
        "max_starts_at_once",
    },
    "omilia": {
        "personal_access_token",
        "grant_type",
        "realm",
        "auth_url",
        "verify",
        "cert",
        "key",
        "timeout",
        "max_file_size",
        "max_requests_per_minute",
        "max_starts_at_once",
        "run_url_template",
    },
}
#: Those that all three have, and the base of the hooks reads.
_OF_ALL = {"verify", "cert", "key", "timeout", "max_file_size", "max_requests_per_minute", "max_starts_at_once"}
_SECRET = {"secret_key", "personal_access_token"}


def _schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files("airflow").joinpath(name).read_text())
    return found


def test_it_is_valid_for_airflow_at_run_time():
    jsonschema.validate(get_provider_info(), _schema("provider_info.schema.json"))


def test_it_is_valid_as_providers_are_written():
    strict, info = _schema("provider.yaml.schema.json"), get_provider_info()
    checked = info.keys() & strict["properties"].keys()
    assert {"connection-types", "integrations", "operators", "sensors", "hooks", "triggers"} <= checked
    for key in checked:
        jsonschema.validate(info[key], {"definitions": strict["definitions"], **strict["properties"][key]})
    assert info.keys() <= strict["properties"].keys() | {"package-name"}


def test_the_package_is_the_distribution_that_is_installed():
    name = get_provider_info()["package-name"]
    assert name == tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["name"]
    assert name == metadata.metadata(name)["Name"]
    assert metadata.version(name) == airflow_provider_testruns.__version__


def test_airflow_finds_it():
    found = metadata.distribution(get_provider_info()["package-name"]).entry_points
    (entry,) = [each for each in found if each.group == "apache_airflow_provider"]
    assert entry.load() is get_provider_info


def _modules() -> Iterator[str]:
    info = get_provider_info()
    for part in ("operators", "sensors", "hooks", "triggers"):
        for each in info[part]:
            yield from each["python-modules"]


@pytest.mark.parametrize("name", sorted(set(_modules())))
def test_modules_can_be_imported(name):
    assert import_module(name).__name__ == name


def test_nothing_is_left_out():
    named = set(_modules())
    for part in ("operators", "sensors", "hooks"):
        there = {f"{airflow_provider_testruns.__name__}.{part}.{platform}" for platform in _PLATFORMS}
        assert there == {name for name in named if f".{part}." in name}
        for name in there:
            assert (_ROOT / (name.replace(".", "/") + ".py")).is_file()
    triggers = (_ROOT / "airflow_provider_testruns/triggers").glob("[!_]*.py")
    assert {f"airflow_provider_testruns.triggers.{path.stem}" for path in triggers} == {
        name for name in named if ".triggers." in name
    }


def test_every_integration_is_declared_and_used():
    info = get_provider_info()
    declared = [each["integration-name"] for each in info["integrations"]]
    for part in ("operators", "sensors", "hooks", "triggers"):
        assert [each["integration-name"] for each in info[part]] == declared
    assert len(set(declared)) == len(declared) == 3


def test_integrations_have_a_guide_and_a_logo_that_are_there():
    for each in get_provider_info()["integrations"]:
        assert (_ROOT / f"docs{each['logo']}").is_file()
        assert [path for path in each["how-to-guide"] if not (_ROOT / path.lstrip("/")).is_file()] == []


def test_links_are_there():
    (path,) = get_provider_info()["extra-links"]
    module, _, name = path.rpartition(".")
    assert getattr(import_module(module), name) is RunLink


@pytest.mark.parametrize("platform", _PLATFORMS)
def test_connection_types_are_those_of_the_hooks(platform):
    declared, hook = _TYPES[platform], hook_class(platform)
    assert declared["hook-class-name"] == f"{hook.__module__}.{hook.__qualname__}"
    assert declared["hook-name"] == hook.hook_name
    assert declared["connection-type"] == hook.conn_type == platform
    assert hook.conn_name_attr == f"{platform}_conn_id"
    assert hook.default_conn_name == f"{platform}_default"
    assert hook().conn_id == f"{platform}_default"
    assert hook(**{hook.conn_name_attr: "mine"}).conn_id == "mine"


def test_there_are_three_connection_types():
    assert list(_TYPES) == _PLATFORMS
    assert not [name for name in _TYPES if "__" in name]


@pytest.mark.parametrize("platform", _PLATFORMS)
def test_forms_have_the_fields_that_are_read(platform):
    assert set(_TYPES[platform]["conn-fields"]) == _EXTRAS[platform]
    source = (_ROOT / f"airflow_provider_testruns/hooks/{platform}.py").read_text()
    read = set(re.findall(r"settings\.(?:text|url|choice|template)\(\s*\"(\w+)\"", source))
    assert read == _EXTRAS[platform] - _OF_ALL


@pytest.mark.parametrize("platform", _PLATFORMS)
def test_secret_extras_are_hidden_and_the_others_are_not(platform):
    for name, field in _TYPES[platform]["conn-fields"].items():
        assert (field["schema"].get("format") == "password") is (name in _SECRET)
        # What Airflow redacts wherever it shows a connection.
        assert should_hide_value_for_key(name) is (name in _SECRET)


@pytest.mark.parametrize("platform", _PLATFORMS)
def test_the_port_is_offered_as_airflow_s_test_button_needs_it_and_0_is_none(platform):
    behaviour = _TYPES[platform]["ui-field-behaviour"]
    assert "port" not in behaviour["hidden-fields"]
    assert behaviour["placeholders"]["port"].startswith("0,")
    conn = Connection(conn_id="c", conn_type=platform, host="https://api.example.com", port=0)
    assert Settings.read(conn, {}).base_url == "https://api.example.com"


@pytest.mark.parametrize("platform", _PLATFORMS)
def test_a_form_that_is_saved_as_it_opens_is_a_good_connection(platform):
    defaults = {
        name: field["schema"]["default"]
        for name, field in _TYPES[platform]["conn-fields"].items()
        if "default" in field["schema"]
    }
    conn = Connection(conn_id="c", conn_type=platform, host="https://api.example.com", extra=json.dumps(defaults))
    settings = Settings.read(conn, conn.extra_dejson)
    assert (settings.verify, settings.timeout) == (True, 30.0)


def test_the_choices_of_forms_are_those_of_the_hooks():
    empty = {None}
    assert set(_TYPES["eggplant"]["conn-fields"]["poll_endpoint"]["schema"]["enum"]) == {*POLL_ENDPOINTS, *empty}
    grants = set(_TYPES["omilia"]["conn-fields"]["grant_type"]["schema"]["enum"]) - empty
    omilia = hook_class("omilia")
    for grant in grants:
        settings = Settings("c", "https://h", "user", "canary", {"grant_type": grant})
        assert omilia.make_auth(settings)[0].grant["grant_type"] == grant  # type: ignore[attr-defined]
    assert grants == {"password", "client_credentials"}


@pytest.mark.parametrize("platform", ["eggplant", "omilia"])
def test_templates_take_what_their_description_says(platform):
    said = _TYPES[platform]["conn-fields"]["run_url_template"]["description"]
    names = re.findall(r"\{(\w+)\}", said)
    assert len(names) == 3
    template = "https://h/?" + "&".join(f"{name}={{{name}}}" for name in names)
    settings = Settings("c", "https://h", "user", "canary", {"run_url_template": template})
    assert hook_class(platform).make_platform(settings)
