"""``python -m tests.release VERSION``: is everything ready to be published? Publishes nothing.

Version, changelog, tag and tree must agree, and the address of the project be known; then the files are built and tried
(``make dist``, ``make newcomer``), and the names and digests of what may be published are printed.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")


def faults(version: str, root: Path = ROOT, url: str | None = None) -> list[str]:
    """What keeps a version from being released, before anything is built.

    :param version: such as ``0.2.0``.
    :param root: the repository.
    :param url: the address of the project.
    """
    if not _VERSION.fullmatch(version):
        return [f"{version!r} is no version such as 0.2.0 or 0.2.0rc1."]
    found = []
    package = (root / "airflow_provider_testruns" / "__init__.py").read_text()
    if f'__version__ = "{version}"' not in package:
        found.append(f"airflow_provider_testruns/__init__.py does not say that the version is {version}.")
    changelog = (root / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    dated = re.compile(rf"{re.escape(version)} \(\d{{4}}-\d{{2}}-\d{{2}}\)")
    if not sections or not dated.fullmatch(sections[0]):
        newest = sections[0] if sections else "none"
        found.append(f"The newest section of CHANGELOG.md is {newest!r}, not '{version} (year-month-day)'.")
    if not url or not url.startswith("https://") or "example." in url:
        found.append(
            "PROJECT_URL must be the https:// address of the repository: links of the metadata are made of it."
        )
    changed = _git(root, "status", "--porcelain")
    if changed:
        found.append(f"The tree has changes that are not committed: {changed.splitlines()[0].strip()}.")
    tagged = _git(root, "rev-parse", "--verify", "--quiet", f"refs/tags/v{version}^{{commit}}")
    if not tagged:
        found.append(f"There is no tag v{version}.")
    elif tagged != _git(root, "rev-parse", "HEAD"):
        found.append(f"The tag v{version} is on another commit than the one that is checked out.")
    return found


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def artifacts(version: str, folder: Path) -> list[Path]:
    """The files that may be published.

    :raises FileNotFoundError: when they are not these two.
    """
    wanted = {
        f"airflow_provider_testruns-{version}-py3-none-any.whl",
        f"airflow_provider_testruns-{version}.tar.gz",
    }
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there != wanted:
        raise FileNotFoundError(
            f"{folder.name} has {', '.join(sorted(there)) or 'nothing'}, not {' and '.join(sorted(wanted))}."
        )
    return [folder / name for name in sorted(wanted)]


def main(version: str) -> int:
    """Check all of it; the exit status says whether the files may be published."""
    found = faults(version, url=os.environ.get("PROJECT_URL"))
    for fault in found:
        print(f"FAULT  {fault}")
    if found:
        return 1
    for target in ("tests.dist", "tests.newcomer"):
        if subprocess.run([sys.executable, "-m", target], cwd=ROOT, check=False).returncode:
            return 1
    print(f"Version {version} is ready. Nothing was published; these are the files:")
    for path in artifacts(version, ROOT / "dist"):
        print(f"  {hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]) if len(sys.argv) == 2 else "usage: make release VERSION=0.2.0 PROJECT_URL=https://…")
