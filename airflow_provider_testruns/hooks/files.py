"""Files that come from a platform or go to it: complete or absent, and never whole in memory.

A place is a local path or an object storage URL that Airflow's ``ObjectStoragePath`` knows (``s3://…``, ``gs://…``;
``file://…`` is a local path). Both directions go over a local file: fsspec keeps what was written to a remote file
when an exception ends the writing, so nothing is ever streamed into one.
"""

from __future__ import annotations

import inspect
import os
import re
import secrets
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from airflow_provider_testruns.emission import get_logger
from airflow_provider_testruns.exceptions import ConfigurationError, InvalidReplyError
from airflow_provider_testruns.transport.progress import Progress

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    #: Where a file is, or is to be.
    Place: TypeAlias = str | os.PathLike[str] | ObjectStoragePath

log = get_logger(__name__)

#: The one time that entries of our archives have: equal folders make equal archives. ZIP knows none before it.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1024 * 1024
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def save(
    target: Place,
    fetch: Callable[[Path], object],
    *,
    name: str,
    check: Callable[[Path], None] | None = None,
    into: bool = False,
) -> str:
    """Put a file in its place when it is complete, and leave the place as it was when it never is.

    :param target: where the file is to be. A path or URL that ends with a slash, or a local folder that is there,
        takes the file under ``name``. Folders on the way are made. A file that is there is replaced.
    :param fetch: writes the whole file to the local path that it is given.
    :param name: the file's name in a folder.
    :param check: raises when the file is not what it should be.
    :param into: whether ``target`` is a folder, be it there or not.
    :return: where the file is.
    :raises ConfigurationError: when ``target`` can't be a place.
    """
    place = _place(target, "path")
    name = _NOT_IN_A_NAME.sub("_", name).lstrip(".") or "file"
    into = into or str(target).strip().endswith("/")
    if not isinstance(place, Path):
        return _save_remote(place / name if into else place, fetch, check)
    if into or place.is_dir():
        place = place / name
    place.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the last step is a rename. Not made by tempfile: its files are for the owner only.
    part = place.parent / f".{secrets.token_hex(8)}.part"
    try:
        fetch(part)
        if check is not None:
            check(part)
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)
    return str(place)


def _save_remote(
    place: ObjectStoragePath, fetch: Callable[[Path], object], check: Callable[[Path], None] | None
) -> str:
    with tempfile.TemporaryDirectory(prefix="testruns-") as folder:
        part = Path(folder) / "part"
        fetch(part)
        if check is not None:
            check(part)
        fs, was_there = place.fs, True
        with suppress(Exception):  # some credentials may write and not look
            was_there = place.exists()
        try:
            size = part.stat().st_size
            fs.put_file(str(part), place.path, callback=_telling(f"Copied to {place}", size), **_small_pieces(fs))
        except BaseException:
            # Object storages show a file when it is complete; file systems behind fsspec may show half of one.
            if not was_there:
                with suppress(Exception):
                    fs.rm_file(place.path)
            raise
    return str(place)


def require_zip(what: str) -> Callable[[Path], None]:
    """A check for :func:`save`: the file is a whole ZIP archive.

    :param what: the file in words, with the connection: "Connection 'x': the artifact of run 4711".
    :return: raises InvalidReplyError when it is not one.
    """

    def check(file: Path) -> None:
        if zipfile.is_zipfile(file):
            return
        with file.open("rb") as opened:
            start = opened.read(60)
        raise InvalidReplyError(
            f"{what} is not a ZIP file, or not a whole one: {file.stat().st_size} bytes that begin with {start!r}."
            " Nothing was kept. Check that the connection's host is the API's own address."
        )

    return check


@contextmanager
def as_zip(source: Place) -> Iterator[Path]:
    """A local ZIP file of what is to be uploaded.

    :param source: a ZIP file, or a folder, which is packed: the paths in the archive are relative to it, sorted, with
        a fixed time and fixed permissions, so that equal folders make equal archives. Links that lead out of the
        folder, links to folders, and ``.git`` (which may hold credentials) are left out, with a line in the log.
    :raises ConfigurationError: when it is neither, or an empty folder.
    """
    place = _place(source, "path")
    if isinstance(place, Path) and place.is_file():
        yield _checked_zip(place, place)
        return
    with tempfile.TemporaryDirectory(prefix="testruns-") as folder:
        name = _NOT_IN_A_NAME.sub("_", place.name).strip("._") or "suites"
        if not isinstance(place, Path) and place.is_file():
            copy = Path(folder) / name
            place.fs.get_file(place.path, str(copy), callback=_telling(f"Copied from {place}", None))
            yield _checked_zip(copy, place)
            return
        archive = Path(folder) / f"{name}.zip"
        if not place.is_dir():
            raise ConfigurationError(f"path: there is no file or folder {str(place)!r}. Give a ZIP file or a folder.")
        if isinstance(place, Path):
            count = _pack(archive, _local_files(place.resolve()))
        else:
            count = _pack(archive, _remote_files(place))
        if count == 0:
            raise ConfigurationError(f"path: the folder {str(place)!r} holds no files; there is nothing to upload.")
        yield archive


def _small_pieces(fs: Any) -> dict[str, int]:
    """Arguments that keep an upload small in memory, for the file systems that have them: S3's holds ten pieces of
    50 MB at a time, that of Google one."""
    put = getattr(fs, "_put_file", None) or fs.put_file
    wanted = {"chunksize": 8 * 1024 * 1024, "max_concurrency": 2}
    known = inspect.signature(put).parameters
    return {name: value for name, value in wanted.items() if name in known}


def _telling(what: str, total: int | None) -> Any:
    """How a file system of fsspec says how far it is."""
    from fsspec.callbacks import Callback  # type: ignore[import-untyped]

    progress = Progress(what, total)

    class Telling(Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            progress.add(inc)

    return Telling()


def _checked_zip(file: Path, place: Path | ObjectStoragePath) -> Path:
    if not zipfile.is_zipfile(file):
        raise ConfigurationError(f"path: {str(place)!r} is not a ZIP file. Give a ZIP file or a folder.")
    return file


#: A file's name in the archive, its size in bytes, and how it is opened.
_Entry: TypeAlias = tuple[str, int, Callable[[], IO[bytes]]]


def _pack(archive: Path, files: Iterator[_Entry]) -> int:
    count = 0
    progress = Progress("Packed so far")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, size, opened in files:
            try:
                name.encode()
            except UnicodeEncodeError as e:
                raise ConfigurationError(f"path: the file name {name!r} is not Unicode; rename the file.") from e
            entry = zipfile.ZipInfo(name, _NO_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is packed
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = size  # tells zipfile whether the entry needs the form for large files
            with opened() as source, packed.open(entry, "w") as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    progress.add(len(chunk))
            count += 1
    log.info("Packed %d files: %.1f MB.", count, archive.stat().st_size / 1_000_000)
    return count


def _local_files(root: Path) -> Iterator[_Entry]:
    names = []
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        for name in folders:
            if (here / name).is_symlink():
                log.warning("%s is a link to a folder: left out of the upload.", here / name)
        folders[:] = [name for name in folders if name != ".git"]
        names += [(here / name).relative_to(root).as_posix() for name in files if name != ".git"]
    for name in sorted(names):
        path = root / name
        file = path.resolve()
        if not file.is_relative_to(root):
            log.warning("%s is a link that leads out of %s: left out of the upload.", path, root)
        elif not file.is_file():
            log.warning("%s is no ordinary file: left out of the upload.", path)
        else:
            yield name, file.stat().st_size, lambda file=file: file.open("rb")  # type: ignore[misc]


def _remote_files(root: ObjectStoragePath) -> Iterator[_Entry]:
    fs = root.fs
    # Some storages begin their paths with a slash, others don't.
    start = root.path.strip("/")
    start = f"{start}/" if start else ""
    for path in sorted(fs.find(root.path)):
        bare = path.lstrip("/")
        parts = bare.removeprefix(start).split("/")
        if ".git" in parts or not parts[-1]:
            continue
        if not bare.startswith(start) or not {"", ".", ".."}.isdisjoint(parts):
            raise ConfigurationError(f"path: {path!r} in {str(root)!r} can't be a name in an archive; rename it.")
        name = "/".join(parts)
        # Without a size storages read ahead by 50 MB.
        opened = lambda path=path: fs.open(path, "rb", block_size=4 * _CHUNK)  # noqa: E731
        yield name, int(fs.size(path) or 0), opened


def _place(given: Place, argument: str) -> Path | ObjectStoragePath:
    if isinstance(given, str):
        text = given.strip()
        if not text:
            raise ConfigurationError(f"{argument} is empty. Give a path, or an object storage URL such as s3://…")
        scheme, separator, rest = text.partition("://")
        if not separator:
            return Path(text)
        if scheme.lower() == "file":
            return Path(rest)
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        return ObjectStoragePath(text)
    if isinstance(given, Path):
        return given
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    if isinstance(given, ObjectStoragePath):
        return Path(given.path) if given.protocol in ("", "file", "local") else given
    if isinstance(given, os.PathLike):
        return Path(given)
    raise ConfigurationError(f"{argument} must be a path or an object storage URL, got {type(given).__name__}.")
