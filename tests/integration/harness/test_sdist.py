"""Who has the sdist can run the tests: all that is under version control is in it; and the wheel has what the package
reads."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.harness.leftovers import files

ROOT = Path(__file__).parents[3]
TEMPLATES = ROOT / "airflow_provider_testruns" / "plugin" / "templates"
#: Tests that read files beside the package.
READERS = ("tests/unit/test_results_docs.py", "tests/unit/test_architecture.py")

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as the sdist has it."""
    folder = tmp_path_factory.mktemp("sdist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
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


def test_a_wheel_that_is_built_from_it_has_the_pages_templates(unpacked: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    done = subprocess.run(build, cwd=unpacked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.whl")
    templates = {str(path.relative_to(ROOT)) for path in TEMPLATES.iterdir()}
    assert {Path(name).suffix for name in templates} == {".html", ".css"}
    with zipfile.ZipFile(archive) as wheel:
        assert templates <= set(wheel.namelist())


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
