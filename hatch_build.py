"""What the build of sdist and wheel adds to ``pyproject.toml``; hatchling reads it.

The address of the project is one variable of the environment, ``PROJECT_URL``, which a release sets. From it come the
links of the metadata, and those of the long description: ``README.md`` has links that are relative to the repository,
which lead nowhere from a package index.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

#: Where the project is as long as no release has said so.
PLACEHOLDER = "https://example.com/airflow-provider-testruns"
#: A link or a picture in Markdown: the exclamation mark of a picture, the text, the target.
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
#: Targets that lead somewhere from everywhere, or within the page.
_WHOLE = re.compile(r"[a-z][a-z0-9+.-]*:|#", re.IGNORECASE)


def project_url() -> str:
    """The address of the repository.

    :raises ValueError: when it is no address.
    """
    url = os.environ.get("PROJECT_URL", "").strip().rstrip("/") or PLACEHOLDER
    if not re.fullmatch(r"https://[^\s/]+/\S+", url):
        raise ValueError(f"PROJECT_URL must be the https:// address of the repository; got {url!r}.")
    return url


def absolute(text: str, url: str, tag: str) -> str:
    """A page of the repository as it can be read anywhere.

    :param text: Markdown, whose relative links start at the root of the repository.
    :param url: the address of the repository.
    :param tag: the version whose files are meant.
    """

    def whole(link: re.Match[str]) -> str:
        picture, shown, target = link.groups()
        if _WHOLE.match(target):
            return link[0]
        return f"{picture}[{shown}]({url}/{'raw' if picture else 'blob'}/{tag}/{target})"

    return _LINK.sub(whole, text)


class Metadata(MetadataHookInterface):
    """The long description and the links. From an sdist they come out as they went in."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add both.

        :param metadata: the table ``project``.
        """
        root = Path(self.root)
        found = re.search(
            r'^__version__ = "([^"]+)"', (root / "airflow_provider_testruns/__init__.py").read_text(), re.M
        )
        if found is None:
            raise ValueError("airflow_provider_testruns/__init__.py has no __version__.")
        url, tag = project_url(), f"v{found[1]}"
        text = absolute((root / "README.md").read_text(), url, tag)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = {
            "Documentation": f"{url}/blob/{tag}/docs/index.md",
            "Changelog": f"{url}/blob/{tag}/CHANGELOG.md",
            "Source": url,
            "Issues": f"{url}/issues",
        }


class ExampleDags(BuildHookInterface[Any]):
    """The example DAGs inside the package, where those of Airflow's own providers are."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add them to the wheel.

        :param version: ``editable`` where the package is used from this folder: there they stay where they are.
        :param build_data: what is built.
        """
        if version != "editable":
            build_data["force_include"]["example_dags"] = "airflow_provider_testruns/example_dags"
