"""Which platforms there are: our own, and those that other packages declare by their entry points."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_testruns.builtin import PLATFORMS
from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.hooks.registry import _registered, hook_class, title_of
from airflow_provider_testruns.triggers.run import RunTrigger
from tests.harness.outside import ACME, declare, visible

pytestmark = pytest.mark.unit

#: A module of Python's own that nothing here has loaded.
_UNLOADED = "antigravity"


@pytest.mark.parametrize("platform", list(PLATFORMS))
def test_our_own_are_found_without_a_search_of_what_is_installed(platform):
    with visible():
        hook = hook_class(platform)
        assert (hook.conn_type, title_of(platform)) == (platform, hook.hook_name)
        assert _registered.cache_info().misses == 0


def test_a_platform_of_another_package_is_found_by_its_entry_point():
    with visible(ACME):
        hook = hook_class("acme")
        assert (hook.__module__, hook.__qualname__) == ("acme_testruns.hook", "AcmeHook")
        assert title_of("acme") == "Acme Labs"
    assert title_of("acme") == "acme"
    with pytest.raises(ConfigurationError, match="There is no platform 'acme'"):
        hook_class("acme")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Acme",
        "nowhere",
        _UNLOADED,
        f"{_UNLOADED}:fly",
        "acme_testruns.hook:AcmeHook",
        "airflow_provider_testruns.hooks.omilia",
        "../../etc/passwd",
        "\x1b[31mred\nERROR a line that is not ours",
        "x" * 100_000,
        None,
        7,
        ["acme"],
        {"acme": 1},
    ],
)
def test_a_name_that_is_not_declared_is_an_error_and_imports_nothing(name: Any):
    with visible(ACME):
        before = set(sys.modules)
        with pytest.raises(ConfigurationError, match="Known here: eggplant, futureagi, omilia, acme") as raised:
            hook_class(name)
        assert set(sys.modules) == before
    message = str(raised.value)
    assert len(message) < 1000
    assert "\x1b" not in message
    assert "\n" not in message


def test_the_trigger_says_that_a_platform_is_not_there():
    run = {"platform": _UNLOADED, "run_id": "r-1", "state": "running", "raw_state": "x"}
    trigger = RunTrigger(_UNLOADED, "con", run, 2e9)

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (event,) = asyncio.run(events())
    assert event["status"] == "error"
    assert f"There is no platform '{_UNLOADED}'. Known here: eggplant" in event["error"]["message"]
    assert _UNLOADED not in sys.modules


def test_a_name_of_ours_is_not_taken_over(tmp_path: Path):
    site = declare(tmp_path, "imitation", f"omilia = {_UNLOADED}:fly", f"Bad-Name = {_UNLOADED}:fly")
    with visible(site):
        assert hook_class("omilia").__module__ == "airflow_provider_testruns.hooks.omilia"
        assert title_of("omilia") == "Omilia Testing Studio"
        for name in ("Bad-Name", "nowhere"):
            with pytest.raises(ConfigurationError, match=r"Known here: eggplant, futureagi, omilia\. If"):
                hook_class(name)
    assert _UNLOADED not in sys.modules


def test_two_packages_with_one_name_are_an_error_that_names_both(tmp_path: Path):
    other = declare(tmp_path, "acme-too", "acme = acme_too:Hook")
    with visible(ACME, other):
        with pytest.raises(ConfigurationError, match=r"acme-testruns and acme-too|acme-too and acme-testruns"):
            hook_class("acme")
        assert title_of("acme") == "acme"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("gone_away:Hook", "can't be loaded: ModuleNotFoundError"),
        ("odd_hooks:Missing", "can't be loaded: AttributeError"),
        ("broken_hooks:Hook", "can't be loaded: ZeroDivisionError"),
        ("odd_hooks:text", "is not a subclass of airflow_provider_testruns.hooks.base.PlatformHook"),
        ("odd_hooks:Plain", "is not a subclass of airflow_provider_testruns.hooks.base.PlatformHook"),
        ("acme_testruns.hook:AcmeHook", "its connection type .conn_type. is 'acme', and must be 'other'"),
    ],
)
def test_a_hook_that_can_not_be_used_is_an_error_that_names_its_package(tmp_path: Path, value, said):
    site = declare(tmp_path, "other-testruns", f"other = {value}")
    (site / "odd_hooks.py").write_text("text = 'x'\nclass Plain: pass\n")
    (site / "broken_hooks.py").write_text("1 / 0\n")
    with visible(site, ACME):
        with pytest.raises(ConfigurationError, match=said) as raised:
            hook_class("other")
        assert f"Platform 'other' ({value} of package other-testruns)" in str(raised.value)
        # The page shows the runs all the same.
        assert title_of("other") == "other"
