"""``python docs/build.py``: build the documentation into ``.docs/html``. Any warning is an error.

The sources are laid out in ``.docs/source`` as in the repository, so that links between pages are the same in both,
with a page of the reference for each module. Each page has a twin in plain text, and ``llms.txt`` lists them.
"""

from __future__ import annotations

import pkgutil
import re
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from hatch_build import project_url  # noqa: E402

FOLDER = ROOT / ".docs"
SOURCE, HTML, TEXT = (FOLDER / name for name in ("source", "html", "text"))
#: What the pages are made of, and link to.
PARTS = ("docs", "example_dags", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "README.md", "benchmarks/RESULTS.md")
PARTS += ("benchmarks/results.svg",)
PACKAGE = "airflow_provider_testruns"
#: A link to a file, with what is shown and the place in it.
_LINK = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
#: Where people look first; all other modules are below "Inside".
PUBLIC = (
    "operators",
    "sensors",
    "hooks",
    "triggers",
    "links",
    "model",
    "judging",
    "exceptions",
    "reporting",
    "sandbox",
)


def main() -> int:
    """Build all of it; the exit status says whether it is as it should be."""
    lay_out()
    for builder, target in (("html", HTML), ("text", TEXT)):
        shutil.rmtree(target, ignore_errors=True)
        arguments = ["-b", builder, "-W", "--keep-going", "-q", "-j", "2", "-c", str(ROOT / "docs")]
        if status := sphinx([*arguments, "-d", str(FOLDER / "doctrees"), str(SOURCE), str(target)]):
            return status
    (HTML / "index.html").write_text('<!doctype html><meta http-equiv="refresh" content="0; url=docs/index.html">\n')
    pages = twins()
    print(f"{len(pages)} pages: {HTML / 'docs' / 'index.html'}")
    return 0


def lay_out() -> None:
    """Put the sources together."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for name in PARTS:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, SOURCE / name, ignore=shutil.ignore_patterns("__pycache__", "conf.py", "build.py"))
        elif path.exists():
            (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, SOURCE / name)
    for page in SOURCE.rglob("*.md"):
        text = _LINK.sub(lambda link, page=page: _linked(link, page), page.read_text())
        # A place that repositories find by HTML, and Sphinx by a label.
        page.write_text(re.sub(r'^<a id="([^"]+)"></a>$', r"(\1)=", text, flags=re.MULTILINE))
    index = SOURCE / "docs" / "index.md"
    # Pages that are not there yet.
    lines = [
        line for line in index.read_text().splitlines() if "*" not in line[-1:] or [*index.parent.glob(line + ".md")]
    ]
    index.write_text("\n".join(lines) + "\n")
    reference()


def _linked(link: re.Match[str], page: Path) -> str:
    """A link to what is in the repository and not on the site, such as code, leads to the repository."""
    shown, target, anchor = link.groups(default="")
    place = (ROOT / page.relative_to(SOURCE)).parent.joinpath(target).resolve()
    if (page.parent / target).exists() or not place.exists() or not place.is_relative_to(ROOT):
        return link[0]
    return f"[{shown}]({project_url()}/blob/main/{place.relative_to(ROOT)}{anchor})"


def reference() -> None:
    """A page for each module, and one that lists them."""
    folder = SOURCE / "docs" / "reference" / "modules"
    folder.mkdir()
    found = sorted(each.name for each in pkgutil.walk_packages([str(ROOT / PACKAGE)], f"{PACKAGE}."))
    names = [name for name in found if not name.endswith(".__main__")]
    for name in names:
        title = name.removeprefix(f"{PACKAGE}.")
        text = f"{title}\n{'=' * len(title)}\n\n.. automodule:: {name}\n"
        if hidden := [each for each in names if each.rpartition(".")[0] == name]:
            # A package may have a function of the same name as one of its modules, which has a page of its own.
            text += f"   :exclude-members: {', '.join(each.rpartition('.')[2] for each in hidden)}\n"
        (folder / f"{name}.rst").write_text(text)
    public = [name for name in names if name.split(".")[1] in PUBLIC]
    inside = [name for name in names if name not in public]
    lists = (("What DAGs use", public), ("Inside", inside))
    text = "# API reference\n\nMade of the docstrings.\n"
    for caption, listed in lists:
        entries = "\n".join(f"modules/{name}" for name in listed)
        text += f"\n```{{toctree}}\n:caption: {caption}\n:maxdepth: 1\n\n{entries}\n```\n"
    (SOURCE / "docs" / "reference" / "api.md").write_text(text)


def twins() -> list[Path]:
    """Put the plain texts beside the pages, and list them.

    :return: the pages.
    """
    lines = ["# airflow-provider-testruns", "", f"> {_summary()}", "", "Each page as plain text:", ""]
    pages = []
    for text in sorted(TEXT.rglob("*.txt"), key=lambda path: ("modules" in path.parts, path)):
        place = text.relative_to(TEXT)
        content = text.read_text()
        shutil.copy(text, HTML / place)
        title = next((line.strip() for line in content.splitlines() if line.strip()), place.stem)
        lines.append(f"- [{title}]({place.as_posix()})")
        pages.append(HTML / place.with_suffix(".html"))
    (HTML / "llms.txt").write_text("\n".join(lines) + "\n")
    return pages


def _summary() -> str:
    found = re.search(r'^description = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


if __name__ == "__main__":
    sys.exit(main())
