"""The platforms that come with this package. A platform of another package registers itself: see ``hooks/registry.py``.

Imports nothing: every process of Airflow reads the provider's description, which has these names in it.
"""

from __future__ import annotations

from typing import NamedTuple


class BuiltIn(NamedTuple):
    """A platform of this package.

    :param title: its name for people.
    :param hook: its hook, as ``module:class``.
    """

    title: str
    hook: str


#: By the platform's name, which is its connection type, too.
PLATFORMS = {
    "eggplant": BuiltIn("Eggplant DAI", "airflow_provider_testruns.hooks.eggplant:EggplantHook"),
    "futureagi": BuiltIn("Future AGI", "airflow_provider_testruns.hooks.futureagi:FutureAGIHook"),
    "omilia": BuiltIn("Omilia Testing Studio", "airflow_provider_testruns.hooks.omilia:OmiliaHook"),
}
