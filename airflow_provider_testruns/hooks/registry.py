"""Which hook belongs to which platform. Importing this imports none of them.

Platforms of other packages register their hooks under the entry point group :data:`GROUP`. They are looked up only for
a name that is not one of our own: installed packages are not searched while a DAG file is read.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_testruns import limits
from airflow_provider_testruns.builtin import PLATFORMS
from airflow_provider_testruns.cleaning import clean, outgoing_text
from airflow_provider_testruns.emission import get_logger
from airflow_provider_testruns.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint

    from airflow_provider_testruns.hooks.base import PlatformHook

log = get_logger(__name__)

#: The entry point group: the entry's name is the platform's, its value is ``module:class`` of the hook.
GROUP = "airflow_provider_testruns.platforms"
#: What a platform may be named: it is in the names of files, and in messages.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")


def hook_class(platform: str) -> type[PlatformHook[Any]]:
    """The hook of a platform.

    The name may come from what is stored, where people can write: nothing is imported but what this package or an
    installed one declares for it.

    :param platform: the platform's name, such as ``omilia``.
    :raises ConfigurationError: when no platform has this name, or its hook can't be loaded.
    """
    known = PLATFORMS.get(platform) if isinstance(platform, str) else None
    if known is not None:
        module, _, name = known.hook.partition(":")
        return cast("type[PlatformHook[Any]]", getattr(import_module(module), name))
    entries = _registered().get(platform, ()) if isinstance(platform, str) else ()
    if not entries:
        given = clean(platform, limits.ID) if isinstance(platform, str) else type(platform).__name__
        names = ", ".join([*PLATFORMS, *sorted(_registered())])
        raise ConfigurationError(
            f"There is no platform {given!r}. Known here: {names}. If another package provides it, install that"
            " package on all workers, triggerers and API servers, and restart them; it must declare the entry point"
            " group"
            f" {GROUP}."
        )
    if len(entries) > 1:
        packages = " and ".join(_package(entry) for entry in entries)
        raise ConfigurationError(
            f"Platform {platform!r} is declared by more than one package: {packages}. Uninstall all but one, or rename"
            f" the entry point of the group {GROUP}."
        )
    return _load(platform, entries[0])


@lru_cache(maxsize=100)
def title_of(platform: str) -> str:
    """A platform's name for people; the name itself where the platform is not known here.

    :param platform: any string.
    """
    if platform in PLATFORMS:
        return PLATFORMS[platform].title
    if platform not in _registered():
        return platform
    try:
        return clean(getattr(hook_class(platform), "hook_name", platform), limits.NAME)
    except ConfigurationError as e:
        log.warning("%s", e)
        return platform


@cache
def _registered() -> Mapping[str, tuple[EntryPoint, ...]]:
    """What installed packages declare, by name. Read once: what is installed later needs a restart."""
    from importlib.metadata import entry_points

    found: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in PLATFORMS or not _NAME.fullmatch(entry.name):
            why = "the name is that of a platform of this provider"
            if entry.name not in PLATFORMS:
                why = "a name is a lower-case letter and up to 49 more letters, digits and underscores"
            log.warning("Ignoring platform %r of package %s: %s.", clean(entry.name, limits.ID), _package(entry), why)
            continue
        found.setdefault(entry.name, {})[entry.value] = entry
    return {name: tuple(by_value.values()) for name, by_value in found.items()}


def _load(platform: str, entry: EntryPoint) -> type[PlatformHook[Any]]:
    from airflow_provider_testruns.hooks.base import PlatformHook

    where = f"Platform {platform!r} ({entry.value} of package {_package(entry)})"
    try:
        hook = entry.load()
    except Exception as e:  # whatever the module raises when it is imported
        said = outgoing_text(f"{type(e).__name__}: {e}", limits.ANSWER)
        raise ConfigurationError(f"{where} can't be loaded: {said}. Fix or update that package.") from e
    if not (isinstance(hook, type) and issubclass(hook, PlatformHook)):
        raise ConfigurationError(f"{where} is not a subclass of airflow_provider_testruns.hooks.base.PlatformHook.")
    kind = getattr(hook, "conn_type", None)
    if kind != platform:
        raise ConfigurationError(f"{where}: its connection type (conn_type) is {kind!r}, and must be {platform!r}.")
    return hook


def _package(entry: EntryPoint) -> str:
    return str(entry.dist.name) if entry.dist is not None else "unknown"
