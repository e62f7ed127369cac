"""What a run of the tests has to itself: a folder for temporary files, a home, and a mark on all that it starts.

Nothing that a test starts or writes is mixed up with anybody else's, and what is left of it at the end can be found.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

#: The variable that every process of a run has in its environment. A run within a run adds its own mark to the outer's.
MARK = "TESTRUNS_TESTS_MARK"
_FOLDER = "TESTRUNS_TESTS_FOLDER"


@dataclass(frozen=True)
class Places:
    """The places of a run.

    :param mark: what :data:`MARK` begins with in the processes of this run.
    :param folder: the run's own folder in the system's one for temporary files; removed at the end.
    """

    mark: str
    folder: Path

    @property
    def temporary(self) -> Path:
        """Where temporary files go: empty again at the end."""
        return self.folder / "tmp"

    @property
    def home(self) -> Path:
        """The home folder of all processes."""
        return self.folder / "home"


def take() -> Places:
    """Make the places of this run, or find those that the process which has started this worker has made."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return here()
    outer = os.environ.get(MARK)
    mark = f"{outer}/{uuid.uuid4()}" if outer else str(uuid.uuid4())
    # What pytest itself keeps goes where it always does: its folders of failed tests are for people.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    places = Places(mark, Path(tempfile.mkdtemp(prefix="testruns-tests-")))
    # In whatever way this process ends, short of being killed.
    atexit.register(shutil.rmtree, places.folder, ignore_errors=True)
    for folder in (places.temporary, places.home):
        folder.mkdir()
    os.environ |= {
        MARK: mark,
        _FOLDER: str(places.folder),
        "TMPDIR": str(places.temporary),
        "HOME": str(places.home),
        # Importing Airflow makes this folder, and writes its settings there.
        "AIRFLOW_HOME": str(places.home / "airflow"),
    }
    tempfile.tempdir = None
    return places


def here() -> Places:
    """The places of the run that this process is in."""
    return Places(os.environ[MARK], Path(os.environ[_FOLDER]))
