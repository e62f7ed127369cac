"""Settings of Sphinx. ``docs/build.py`` lays out the sources that it reads."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.util.nodes import make_refnode

_ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(_ROOT))

project = "airflow-provider-testruns"
author = "The maintainers of airflow-provider-testruns"
_VERSION = re.search(r'__version__ = "([^"]+)"', (_ROOT / "airflow_provider_testruns/__init__.py").read_text())
assert _VERSION is not None
version = release = _VERSION[1]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "docs/index"
exclude_patterns = ["README.md", "docs/requirements.txt"]

# Markdown: headings can be linked to, as in a repository; definition of fields with a colon.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]

# The reference: in the order of the source, without what is inherited from Airflow; types stand in the texts.
autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
# What a package hands on from its modules stands on their pages.
autodoc_default_options["ignore-module-all"] = True
autodoc_typehints = "none"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
add_module_names = False
toc_object_entries = False

# A reference that leads nowhere is an error; see ``resolve`` for those that docstrings shorten.
nitpicky = True

html_theme = "furo"
html_title = f"Test runs in Apache Airflow {version}"
html_logo = "integration-logos/testruns.svg"
html_favicon = "integration-logos/testruns.svg"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"light_css_variables": {"color-brand-primary": "#217a44", "color-brand-content": "#217a44"}}
html_theme_options["dark_css_variables"] = {"color-brand-primary": "#6fcf97", "color-brand-content": "#6fcf97"}


def resolve(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """Where a reference in a docstring leads that Sphinx does not find: names are read as Python would read them there.

    :return: a link to the page of what is meant, or of its class; plain text for what exists and has no page (private
        names, fields, other packages); ``None``, which is an error, for what does not exist.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].lstrip(".")
    objects = env.domains["py"].objects

    def link(name: str) -> Any:
        found = objects[name]
        return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, shown, name)

    ending = sorted((name for name in objects if f".{name}".endswith(f".{target}")), key=len)
    if ending:
        return link(ending[0])
    module, owner = node.get("py:module") or "", node.get("py:class") or ""
    for place in (f"{module}.{owner}" if owner else "", module, ""):
        path = f"{place}.{target}".strip(".")
        if not _exists(path):
            continue
        parent = path.rpartition(".")[0]
        return link(parent) if parent in objects and objects[parent].objtype == "class" else shown
    # A field of a class that is named by its last name alone.
    parent, _, name = target.rpartition(".")
    classes = [each for each in objects if parent and each.endswith(f".{parent}") and _exists(f"{each}.{name}")]
    return link(classes[0]) if classes else None


def _exists(path: str) -> bool:
    """Whether Python has something of that name: a module, or what is in one."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for name in parts[cut:]:
            # Attributes that only instances have are in their class's annotations or slots.
            fields = {**getattr(found, "__dataclass_fields__", {}), **getattr(found, "__annotations__", {})}
            if not hasattr(found, name):
                return name in fields or name in getattr(found, "__slots__", ())
            found = getattr(found, name)
        return True
    return False


def setup(app: Any) -> None:
    """Register what is above, and the language of diagrams, which are shown as their source."""
    app.connect("missing-reference", resolve)
    app.add_lexer("mermaid", TextLexer)
