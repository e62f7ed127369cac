"""Files that come from a platform or go to it: complete or absent, and never whole in memory.

A place is a local path (``~`` is the worker's home folder) or an object storage URL that Airflow's
``ObjectStoragePath`` knows (``s3://…``, ``gs://…``; ``file:///…`` is a local path). A link stays one: what it leads to
is written. Devices, pipes and sockets are no places: a file put there would replace them.

Both directions go over a local file: fsspec keeps what was written to a remote file when an exception ends the
writing, so nothing is ever streamed into one.
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

from airflow_provider_testruns.arguments import shown
from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.emission import get_logger
from airflow_provider_testruns.exceptions import ConfigurationError, InvalidReplyError
from airflow_provider_testruns.redaction import redact
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
#: A URL that lacks a slash, or two: ``s3:/bucket``, ``s3:bucket``. One letter is a drive of Windows.
_ALMOST_A_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<slashes>/?)(?!/)")
#: Schemes after which nothing but a URL can be meant.
_SCHEMES = frozenset({"file", "s3", "s3a", "s3n", "gs", "gcs", "az", "abfs", "abfss", "adl", "wasb", "wasbs", "hdfs"})
#: A URL that lacks its colon: ``s3//bucket``, ``file;//a``.
_NO_COLON = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)[;.]?//")
#: The longest name of a file on usual file systems, in bytes.
_LONGEST_NAME = 255
#: Folders of version control, which may hold credentials: they are no part of a suite, however they are reached.
_VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})


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
    place = _local_target(place, name, "path", into=into)
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


def check_target(given: Any, argument: str, *, into: bool = False, try_writing: bool = True) -> None:
    """Make sure that :func:`save` can write to a place, before something is paid for that is to be written there.

    Nothing is left behind: a file beside the target is made and removed again, and a file that is there is not opened.

    :param given: as it was rendered, of whatever type.
    :param argument: its name, for messages.
    :param into: whether it is a folder, be it there or not.
    :param try_writing: whether to try, instead of only looking at what the place is.
    :raises ConfigurationError: when nothing can be written there, with the reason.
    """
    place = _place(given, argument)
    into = into or str(given).strip().endswith("/")
    try:
        if isinstance(place, Path):
            target = _local_target(place, "file", argument, into=into)
            if try_writing:
                _try_local(target)
        elif try_writing:
            _try_remote(place / "file" if into else place)
        else:
            # Finds the file system's provider, and reads the connection that the URL names; asks nobody else.
            place.fs  # noqa: B018
    except ConfigurationError:
        raise
    except Exception as e:  # of whatever kind: file systems behind fsspec have their own
        said = redact(clean(f"{type(e).__name__}: {e}", 300))
        raise ConfigurationError(f"{argument}: nothing can be written to {shown(given)}: {said}") from e


def check_source(given: Any, argument: str) -> None:
    """Make sure that an argument names a place that :func:`as_zip` can read from, as far as its form goes.

    :raises ConfigurationError: when it does not.
    """
    _place(given, argument)


def _local_target(place: Path, name: str, argument: str, *, into: bool) -> Path:
    """The file that is to be written, with links followed, so that they stay.

    :param name: the file's name where ``place`` is a folder.
    :raises ConfigurationError: when something is there that a file can't replace.
    """
    for part in place.parts:
        if len(os.fsencode(part)) > _LONGEST_NAME:
            raise ConfigurationError(f"{argument}: a name in {shown(str(place))} is longer than {_LONGEST_NAME} bytes.")
    found = _kind_of(place, argument)
    if into and found is not None and not stat.S_ISDIR(found):
        raise ConfigurationError(f"{argument}: {shown(str(place))} is to be a folder, and is {_named(found)}.")
    if into or (found is not None and stat.S_ISDIR(found)):
        place = place / name
        found = _kind_of(place, argument)
    if found is not None and not stat.S_ISREG(found):
        raise ConfigurationError(
            f"{argument}: {shown(str(place))} is {_named(found)}, which a file would replace. Give a file or a"
            " folder, or leave the argument out."
        )
    return Path(os.path.realpath(place)) if place.is_symlink() else place


def _kind_of(place: Path, argument: str) -> int | None:
    """The mode of what is at a path, or at the end of its links; ``None`` when there is nothing."""
    try:
        return place.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise ConfigurationError(f"{argument}: nothing can be written to {shown(str(place))}: {e.strerror}.") from e


def _named(mode: int) -> str:
    kinds = {
        stat.S_ISDIR: "a folder",
        stat.S_ISREG: "a file",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), "something else")


def _try_local(target: Path) -> None:
    # Missing folders are not made: others that write there at this moment would lose theirs when they are removed.
    folder = next(each for each in target.absolute().parents if each.exists())
    part = folder / f".{secrets.token_hex(8)}.part"
    try:
        part.touch(exist_ok=False)
    finally:
        part.unlink(missing_ok=True)


def _try_remote(target: ObjectStoragePath) -> None:
    fs = target.fs
    part = (target.parent / f".{secrets.token_hex(8)}.part").path
    fs.pipe_file(part, b"")
    try:
        fs.rm_file(part)
    except Exception as e:  # credentials may write and not delete
        log.warning("Could not remove the empty file %s, which tested whether %s can be written: %s", part, target, e)


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
            f"{what} is not a complete ZIP file: {file.stat().st_size} bytes that begin with {start!r}."
            " Nothing was saved. Check that the connection's host is the API's own URL."
        )

    return check


@contextmanager
def as_zip(source: Place) -> Iterator[Path]:
    """A local ZIP file of what is to be uploaded.

    :param source: a ZIP file, or a folder, which is packed: the paths in the archive are relative to it, sorted, with
        a fixed time and fixed permissions, so that equal folders make equal archives. Hidden files and folders are part
        of it, but for those of version control (``.git``, ``.hg``, ``.svn``), which may hold credentials: they are left
        out, by whatever link they are reached. So are links that lead out of the folder or nowhere, and links to
        folders, with a line in the log.
    :raises ConfigurationError: when it is neither, an empty folder, or one with devices, pipes or sockets in it.
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
            root = place.resolve()
            if any(_is_version_control(part) for part in root.parts):
                raise ConfigurationError(
                    f"path: {str(place)!r} is, or is in, a folder of version control, which may hold credentials. Give"
                    " the folder with the suites."
                )
            count = _pack(archive, _local_files(root))
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
    def unreadable(error: OSError) -> None:
        raise ConfigurationError(f"path: {error.filename!r} can't be read: {error.strerror}.") from error

    names = []
    for folder, folders, files in os.walk(root, onerror=unreadable):
        here = Path(folder)
        for name in folders:
            if (here / name).is_symlink():
                log.warning("%s is a link to a folder: left out of the upload.", here / name)
        folders[:] = [name for name in folders if not _is_version_control(name)]
        names += [(here / name).relative_to(root).as_posix() for name in files if not _is_version_control(name)]
    for name in sorted(names):
        path = root / name
        try:
            file = path.resolve(strict=True)
            mode = file.stat().st_mode
        except (OSError, RuntimeError):  # the second for a link to itself, before Python 3.13
            if not path.is_symlink():
                raise ConfigurationError(f"path: {str(path)!r} is gone, or can't be read.") from None
            log.warning("%s is a broken link: left out of the upload.", path)
            continue
        if not file.is_relative_to(root):
            log.warning("%s is a link to a place outside %s: left out of the upload.", path, root)
        elif any(_is_version_control(part) for part in file.relative_to(root).parts):
            log.warning("%s is a link into a folder of version control: left out of the upload.", path)
        elif not stat.S_ISREG(mode):
            raise ConfigurationError(
                f"path: {str(path)!r} is {_named(mode)}, which no archive can hold. Take it out of the folder."
            )
        else:
            yield name, file.stat().st_size, lambda file=file: _opened(file)  # type: ignore[misc]


def _opened(file: Path) -> IO[bytes]:
    # It was looked at a moment ago: what may stand in its place now is neither followed nor waited for.
    opened = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise ConfigurationError(f"path: {str(file)!r} is no longer a file.")
    return os.fdopen(opened, "rb")


def _is_version_control(name: str) -> bool:
    return name.casefold() in _VERSION_CONTROL


def _remote_files(root: ObjectStoragePath) -> Iterator[_Entry]:
    fs = root.fs
    # Some storages begin their paths with a slash, others don't.
    start = root.path.strip("/")
    start = f"{start}/" if start else ""
    for path in sorted(fs.find(root.path)):
        bare = path.lstrip("/")
        parts = bare.removeprefix(start).split("/")
        if any(_is_version_control(part) for part in parts) or not parts[-1]:
            continue
        if not bare.startswith(start) or not {"", ".", ".."}.isdisjoint(parts):
            raise ConfigurationError(f"path: {path!r} in {str(root)!r} can't be a name in an archive; rename it.")
        name = "/".join(parts)
        # Without a size storages read ahead by 50 MB.
        opened = lambda path=path: fs.open(path, "rb", block_size=4 * _CHUNK)  # noqa: E731
        yield name, int(fs.size(path) or 0), opened


def _place(given: Any, argument: str) -> Path | ObjectStoragePath:
    """Where an argument leads.

    :raises ConfigurationError: when it is no place, or one where nobody would look for it.
    """
    if isinstance(given, Path):
        return _local_path(str(given), argument)
    if isinstance(given, str):
        return _place_of_text(given.strip(), argument)
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    if isinstance(given, ObjectStoragePath):
        return Path(given.path) if given.protocol in ("", "file", "local") else given
    if isinstance(given, os.PathLike):
        path = os.fspath(given)
        if isinstance(path, str):
            return _local_path(path, argument)
    hint = "" if given is not None else " To write nothing, leave the argument out."
    raise ConfigurationError(f"{argument} must be a path or an object storage URL, got {shown(given)}.{hint}")


def _place_of_text(text: str, argument: str) -> Path | ObjectStoragePath:
    if not text:
        raise ConfigurationError(f"{argument} is empty. Give a path, or an object storage URL such as s3://…")
    if text == "None":
        raise ConfigurationError(
            f"{argument} is 'None', as a template makes it of a parameter that is not set. Set it, or leave the"
            " argument out."
        )
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() not in ("file", "local"):
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        try:
            place = ObjectStoragePath(text)
        except ValueError as e:
            raise ConfigurationError(f"{argument}: nothing can be written to {shown(text)}: {e}") from e
        if not rest.strip("/"):
            raise ConfigurationError(f"{argument}: {shown(text)} names no bucket or folder.")
        return place
    if separator:
        return _path_of_url(rest, text, argument)
    almost = _ALMOST_A_URL.match(text)
    if almost is not None:
        scheme = almost["scheme"].lower()
        if scheme == "file" and almost["slashes"]:
            return _local_path(text[len("file:") :], argument)
        if scheme in _SCHEMES or almost["slashes"]:
            raise ConfigurationError(
                f"{argument}: {shown(text)} is neither a path nor a URL. Did you mean"
                f" {almost['scheme']}://{text[almost.end() :][:60]}?"
            )
    torn = _NO_COLON.match(text)
    if torn is not None and torn["scheme"].lower().rstrip(".") in _SCHEMES:
        raise ConfigurationError(
            f"{argument}: {shown(text)} is neither a path nor a URL. Did you mean"
            f" {torn['scheme'].rstrip('.')}://{text[torn.end() :][:60]}?"
        )
    return _local_path(text, argument)


def _path_of_url(rest: str, text: str, argument: str) -> Path:
    host, slash, path = rest.partition("/")
    if host.lower() == "localhost":
        host = ""
    if host or not slash or not path:
        raise ConfigurationError(
            f"{argument}: {shown(text)} is not on this machine. Give a path, or file:/// and the path."
        )
    return _local_path(f"/{path}", argument)


def _local_path(text: str, argument: str) -> Path:
    if "\0" in text:
        raise ConfigurationError(f"{argument}: {shown(text)} contains a NUL character, which no path can contain.")
    try:
        text.encode()
        return Path(text).expanduser()
    except UnicodeEncodeError as e:
        raise ConfigurationError(f"{argument}: {shown(text)} is not Unicode.") from e
    except RuntimeError as e:
        raise ConfigurationError(f"{argument}: there is no home folder for {shown(text)}.") from e
