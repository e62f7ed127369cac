"""``make release`` stops what does not fit together. The repository here is a made-up one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.release.__main__ import artifacts, faults

pytestmark = pytest.mark.unit

URL = "https://git.test/quality/testruns"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Ready to release 0.2.0."""
    (tmp_path / "airflow_provider_testruns").mkdir()
    (tmp_path / "airflow_provider_testruns" / "__init__.py").write_text('__version__ = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.2.0 (2027-01-31)\n\n* More.\n\n## 0.1.0 (2026-12-24)\n")
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t.test", "commit", "--quiet", "-m", "release: 0.2.0")
    _git(tmp_path, "tag", "v0.2.0")
    return tmp_path


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def test_what_fits_together_can_be_released(repository: Path) -> None:
    assert faults("0.2.0", repository, URL) == []


def test_each_thing_that_does_not_fit_is_named(repository: Path) -> None:
    assert faults("v0.2", repository, URL) == ["'v0.2' is no version such as 0.2.0 or 0.2.0rc1."]
    # Another version, which nothing knows of.
    assert [fault.split()[0] for fault in faults("0.3.0", repository, URL)] == [
        "airflow_provider_testruns/__init__.py",
        "The",
        "There",
    ]
    (placeholder,) = faults("0.2.0", repository, "https://example.com/airflow-provider-testruns")
    assert "PROJECT_URL" in placeholder
    assert faults("0.2.0", repository, None) == [placeholder]
    (repository / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased: 0.2.0\n")
    undated, uncommitted = faults("0.2.0", repository, URL)
    assert "'Unreleased: 0.2.0'" in undated
    assert "CHANGELOG.md" in uncommitted
    _git(repository, "-c", "user.name=t", "-c", "user.email=t@t.test", "commit", "--quiet", "-am", "later")
    assert "on another commit" in faults("0.2.0", repository, URL)[-1]


def test_only_the_two_files_of_the_version_are_published(tmp_path: Path) -> None:
    (tmp_path / "airflow_provider_testruns-0.2.0.tar.gz").touch()
    with pytest.raises(FileNotFoundError, match=r"0\.2\.0-py3-none-any\.whl"):
        artifacts("0.2.0", tmp_path)
    (tmp_path / "airflow_provider_testruns-0.2.0-py3-none-any.whl").touch()
    assert len(artifacts("0.2.0", tmp_path)) == 2
    (tmp_path / "airflow_provider_testruns-0.1.0.tar.gz").touch()
    with pytest.raises(FileNotFoundError, match=r"has .*0\.1\.0"):
        artifacts("0.2.0", tmp_path)
