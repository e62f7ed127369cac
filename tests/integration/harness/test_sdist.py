"""Who has the sdist can run the tests: all that is under version control is in it; and the wheel has what the package
reads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.harness.leftovers import files

ROOT = Path(__file__).parents[3]
TEMPLATES = ROOT / "airflow_provider_testruns" / "plugin" / "templates"
#: What a release says in ``PROJECT_URL``.
PROJECT = "https://example.org/quality/testruns"
#: Tests that read files beside the package.
READERS = ("tests/unit/test_results_docs.py", "tests/unit/test_architecture.py")

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as the sdist of a release has it."""
    folder = tmp_path_factory.mktemp("sdist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder)]
    release = os.environ | {"PROJECT_URL": PROJECT}
    done = subprocess.run(build, cwd=ROOT, env=release, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def test_it_has_every_file_of_the_project(unpacked: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    # In an unpacked sdist there is no repository: then all files are the project's.
    wanted = set(tracked.stdout.splitlines()) if tracked.returncode == 0 else files(ROOT) - {"PKG-INFO"}
    assert wanted
    assert sorted(path for path in wanted if (ROOT / path).exists() and not (unpacked / path).is_file()) == []


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that somebody builds from it, who does not know what the release set."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(build, cwd=unpacked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("*.whl")
    return archive


def test_the_wheel_has_the_pages_templates_and_the_example_dags(wheel: Path) -> None:
    templates = {str(path.relative_to(ROOT)) for path in TEMPLATES.iterdir()}
    assert {Path(name).suffix for name in templates} == {".html", ".css"}
    examples = {f"airflow_provider_testruns/example_dags/{path.name}" for path in (ROOT / "example_dags").glob("*.py")}
    assert len(examples) > 5
    with zipfile.ZipFile(wheel) as archive:
        assert templates | examples <= set(archive.namelist())


def test_its_metadata_leads_somewhere_from_everywhere(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    tag = f"v{metadata['Version']}"
    links = dict(line.split(", ") for line in metadata.get_all("Project-URL"))
    assert links.keys() == {"Documentation", "Changelog", "Source", "Issues"}
    assert {url for url in links.values() if not url.startswith(PROJECT)} == set()
    targets = re.findall(r"\]\(([^)]*)\)", metadata.get_payload())
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    assert f"{PROJECT}/blob/{tag}/docs/results.md" in targets
    assert f"{PROJECT}/raw/{tag}/docs/images/results-runs.png" in targets
    # What they lead to is in the repository.
    ours = [target.partition("#")[0].split(f"/{tag}/")[1] for target in targets if target.startswith(PROJECT)]
    assert [path for path in ours if not (ROOT / path).exists()] == []


def test_tests_that_read_files_pass_in_it(unpacked: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *READERS],
        cwd=unpacked,
        env=inherited,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    help_text = subprocess.run(["make", "help"], cwd=unpacked, capture_output=True, text=True, check=False)
    assert "make test" in help_text.stdout
