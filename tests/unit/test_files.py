"""Files are complete or absent, archives reproducible, and nothing outside a folder gets into its archive."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_testruns.exceptions import ConfigurationError, InvalidReplyError
from airflow_provider_testruns.files import as_zip, check_target, require_zip, save
from airflow_provider_testruns.transport import progress

pytestmark = pytest.mark.unit

_REMOTE = "memory://store"


@pytest.fixture
def storage():
    """An object storage in memory, empty; Airflow registers none by itself."""
    fs = MemoryFileSystem()
    attach("memory", fs=fs)
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()


def _writes(content: bytes):
    return lambda file: file.write_bytes(content)


def _breaks_after(content: bytes):
    def fetch(file: Path) -> None:
        file.write_bytes(content)
        raise ConnectionError("the line went dead")

    return fetch


def _folder(root: Path) -> Path:
    (root / "tests" / "greeting").mkdir(parents=True)
    (root / "tests" / "greeting" / "b.yml").write_text("b")
    (root / "tests" / "greeting" / "a.yml").write_text("a")
    (root / "tests" / "ünï.yml").write_text("u")
    (root / ".omilia-ci.yml").write_text("version: 1")
    (root / "empty").mkdir()
    return root


@pytest.mark.parametrize("as_text", [True, False])
def test_a_file_is_put_in_its_place(tmp_path, as_text):
    target = tmp_path / "new" / "folder" / "report.bin"
    written = save(str(target) if as_text else target, _writes(b"whole"), name="unused")
    assert written == str(target)
    assert target.read_bytes() == b"whole"
    assert [p.name for p in target.parent.iterdir()] == ["report.bin"]


def test_a_folder_takes_the_file_under_its_own_name(tmp_path):
    assert save(tmp_path, _writes(b"1"), name="r-1_artifacts.zip") == str(tmp_path / "r-1_artifacts.zip")
    assert save(f"{tmp_path}/new/", _writes(b"2"), name="r-2.zip") == str(tmp_path / "new" / "r-2.zip")
    assert save(tmp_path / "a", _writes(b"3"), name="r-3.zip", into=True) == str(tmp_path / "a" / "r-3.zip")


def test_a_name_made_of_an_id_stays_in_its_folder(tmp_path):
    written = Path(save(tmp_path, _writes(b"1"), name="../../etc/pass wd.zip"))
    assert written.parent == tmp_path
    assert written.is_file()


def test_a_download_that_breaks_off_leaves_nothing(tmp_path):
    target = tmp_path / "artifact.zip"
    with pytest.raises(ConnectionError):
        save(target, _breaks_after(b"half"), name="x")
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_breaks_off_leaves_the_older_file(tmp_path):
    target = tmp_path / "artifact.zip"
    target.write_bytes(b"older")
    with pytest.raises(ConnectionError):
        save(target, _breaks_after(b"half"), name="x")
    assert target.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["artifact.zip"]


def test_a_file_that_is_no_zip_is_not_kept(tmp_path):
    target = tmp_path / "artifact.zip"
    with pytest.raises(InvalidReplyError, match=r"artifact of run r-1 is not a complete ZIP file.*log in"):
        save(target, _writes(b"<html>log in</html>"), name="x", check=require_zip("the artifact of run r-1"))
    assert list(tmp_path.iterdir()) == []


def test_half_a_zip_is_not_kept(tmp_path):
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("results.csv", "x" * 1000)
    half = whole.read_bytes()[:-40]
    whole.unlink()
    with pytest.raises(InvalidReplyError):
        save(tmp_path / "artifact.zip", _writes(half), name="x", check=require_zip("it"))
    assert list(tmp_path.iterdir()) == []


def test_a_saved_file_has_the_permissions_of_any_other(tmp_path):
    usual = tmp_path / "usual"
    usual.write_bytes(b"")
    saved = Path(save(tmp_path / "saved", _writes(b"x"), name="x"))
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


def test_a_file_url_is_a_local_path(tmp_path):
    target = tmp_path / "a b.bin"
    assert save(f"file://{target}", _writes(b"x"), name="x") == str(target)
    assert save(ObjectStoragePath(f"file://{target}"), _writes(b"y"), name="x") == str(target)
    assert target.read_bytes() == b"y"


def _pipe(place: Path) -> None:
    os.mkfifo(place)


def _socket(place: Path) -> None:
    os.mknod(place, stat.S_IFSOCK | 0o600)


def _device(place: Path) -> None:
    try:
        # The numbers of /dev/null, in a node of our own.
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


_SPECIAL = pytest.mark.parametrize(
    ("make", "kind"),
    [(_pipe, "a pipe"), (_socket, "a socket"), (_device, "a device")],
    ids=["pipe", "socket", "device"],
)


_CHECKS = pytest.mark.parametrize(
    "put",
    [
        lambda target: save(target, _writes(b"x"), name="x"),
        lambda target: check_target(target, "path"),
        lambda target: check_target(target, "path", into=True),
    ],
    ids=["save", "check", "check a folder"],
)


@_CHECKS
@pytest.mark.parametrize(
    ("target", "said"),
    [
        (2026, "must be a path or an object storage URL, got 2026"),
        (True, "got True"),
        (None, "got None. To write nothing, leave the argument out."),
        (["a"], "got ['a']"),
        (1.5, "got 1.5"),
        (b"/tmp/x", "got b'/tmp/x'"),
        ("None", "of a parameter that is not set"),
        (" None ", "of a parameter that is not set"),
        ("", "path is empty"),
        (" ", "path is empty"),
        ("s3:/bucket/x", "Did you mean s3://bucket/x?"),
        ("s3//bucket/x", "Did you mean s3://bucket/x?"),
        ("file//a/b", "Did you mean file://a/b?"),
        ("s3:bucket/x", "Did you mean s3://bucket/x?"),
        ("GS:/bucket/x", "Did you mean GS://bucket/x?"),
        ("anything:/bucket/x", "Did you mean anything://bucket/x?"),
        ("file:x", "Did you mean file://x?"),
        ("file://elsewhere/x", "is not on this machine"),
        ("file://", "is not on this machine"),
        ("file:///", "is not on this machine"),
        ("nowhere://bucket/x", "nowhere"),
        ("memory://", "names no bucket or folder"),
        ("/tmp/a\0b", "contains a NUL character"),
        ("/tmp/\ud800", "is not Unicode"),
        ("~nobody-of-that-name/x", "no home folder"),
        ("/tmp/" + "x" * 300, "longer than 255 bytes"),
    ],
)
def test_what_is_no_place_is_refused_before_anything_is_started(put, target, said, storage):
    with pytest.raises(ConfigurationError) as caught:
        put(target)
    assert said in str(caught.value)
    assert str(caught.value).startswith("path")


@pytest.mark.parametrize(
    "form",
    ["{0}/a.bin", "file:{0}/a.bin", "file://{0}/a.bin", "file://localhost{0}/a.bin", "FILE://LOCALHOST{0}/a.bin"],
)
def test_every_way_to_name_a_file_leads_to_it(tmp_path, form):
    check_target(form.format(tmp_path), "path")
    assert list(tmp_path.iterdir()) == []
    assert save(form.format(tmp_path), _writes(b"x"), name="x") == f"{tmp_path}/a.bin"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    check_target("~/reports/a.xml", "junit_path")
    for target in ("~/a.xml", Path("~/a.xml")):
        assert save(target, _writes(b"x"), name="x") == f"{tmp_path}/a.xml"
    assert [path.name for path in tmp_path.iterdir()] == ["a.xml"]


@_SPECIAL
@pytest.mark.parametrize("linked", [False, True])
@_CHECKS
def test_devices_pipes_and_sockets_stay_what_they_are(tmp_path, make, kind, linked, put):
    odd = target = tmp_path / "odd"
    make(odd)
    if linked:
        target = tmp_path / "link"
        target.symlink_to(odd)
    before = odd.lstat()
    with pytest.raises(ConfigurationError, match=kind):
        put(str(target))
    assert (odd.lstat().st_mode, odd.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert not linked or target.is_symlink()
    assert len(list(tmp_path.iterdir())) == 1 + linked
    # Nor where a file is put into a folder.
    with pytest.raises(ConfigurationError, match=kind):
        save(str(tmp_path), _writes(b"x"), name=target.name)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path, there):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").mkdir()
    file = tmp_path / "real" / "report.xml"
    if there:
        file.write_bytes(b"of the run before")
    link = tmp_path / "latest.xml"
    link.symlink_to("real/x/../report.xml")
    chain = tmp_path / "chain.xml"
    chain.symlink_to(link)
    check_target(str(chain), "junit_path")
    assert file.exists() is there
    assert save(str(chain), _writes(b"new"), name="x") == str(file)
    assert (file.read_bytes(), link.is_symlink(), chain.is_symlink()) == (b"new", True, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chain.xml", "latest.xml", "real"]
    assert sorted(path.name for path in file.parent.iterdir()) == ["report.xml", "x"]


def test_a_link_to_itself_is_refused(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(link)
    for put in (lambda: check_target(str(link), "path"), lambda: save(link, _writes(b"x"), name="x")):
        with pytest.raises(ConfigurationError, match="nothing can be written to"):
            put()
    with pytest.raises(ConfigurationError, match="there is no file or folder"), as_zip(link):
        pass


def test_trying_leaves_everything_as_it_was(tmp_path):
    there = tmp_path / "there.xml"
    there.write_bytes(b"of the run before")
    there.chmod(0o400)
    before = there.stat()
    check_target(str(there), "junit_path")
    check_target(str(tmp_path / "not" / "yet" / "there.xml"), "junit_path")
    check_target(str(tmp_path / "not") + "/", "junit_path")
    check_target(str(tmp_path), "artifacts_path", into=True)
    assert [path.name for path in tmp_path.iterdir()] == ["there.xml"]
    assert there.read_bytes() == b"of the run before"
    assert (there.stat().st_mtime_ns, there.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("target", ["file/report.xml", "file/deep/report.xml", "file/"])
def test_a_file_where_a_folder_would_have_to_be_is_found_out(tmp_path, target):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="junit_path"):
        check_target(f"{tmp_path}/{target}", "junit_path")
    with pytest.raises(ConfigurationError, match="is to be a folder, and is a file"):
        check_target(f"{tmp_path}/file", "artifacts_path", into=True)
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_that_refuses_is_found_out(tmp_path, monkeypatch):
    def refuses(self, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", refuses)
    with pytest.raises(ConfigurationError, match=r"junit_path: nothing can be written to .*Permission denied"):
        check_target(str(tmp_path / "report.xml"), "junit_path")


def test_trying_leaves_nothing_in_an_object_storage(storage):
    storage.pipe_file("/store/there.xml", b"of the run before")
    for target, into in ((f"{_REMOTE}/there.xml", False), (f"{_REMOTE}/new/", False), (f"{_REMOTE}/files", True)):
        check_target(target, "junit_path", into=into)
        check_target(ObjectStoragePath(target), "junit_path", into=into)
    assert {path: storage.cat_file(path) for path in storage.store} == {"/store/there.xml": b"of the run before"}


def test_an_object_storage_that_refuses_is_found_out(storage, monkeypatch, caplog):
    def refuses(path, *arguments, **options):
        raise PermissionError("AccessDenied")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "pipe_file", refuses)
        with pytest.raises(ConfigurationError, match=r"nothing can be written to .*AccessDenied"):
            check_target(f"{_REMOTE}/report.xml", "junit_path")
    # Credentials that may only write leave what they tried with, and say so.
    monkeypatch.setattr(storage, "rm_file", refuses)
    check_target(f"{_REMOTE}/report.xml", "junit_path")
    assert "which tested whether" in caplog.text


@pytest.mark.parametrize("target", ["", "  "])
def test_an_empty_path_is_refused(target):
    with pytest.raises(ConfigurationError, match="path is empty"):
        save(target, _writes(b"x"), name="x")


@pytest.mark.parametrize("target", [None, 5, b"/tmp/x"])
def test_what_is_no_path_is_refused(target):
    with pytest.raises(ConfigurationError, match="must be a path"):
        save(target, _writes(b"x"), name="x")


def test_object_storage_takes_the_file_when_it_is_complete(storage):
    written = save(f"{_REMOTE}/runs/a.zip", _writes(b"whole"), name="x")
    assert written == f"{_REMOTE}/runs/a.zip"
    assert storage.cat("/store/runs/a.zip") == b"whole"
    assert save(f"{_REMOTE}/runs/", _writes(b"in"), name="r-1.zip") == f"{_REMOTE}/runs/r-1.zip"
    assert storage.cat("/store/runs/r-1.zip") == b"in"
    assert save(f"{_REMOTE}/new", _writes(b"in"), name="r-2.zip", into=True) == f"{_REMOTE}/new/r-2.zip"


def test_object_storage_gets_nothing_of_a_broken_download(storage):
    with pytest.raises(ConnectionError):
        save(f"{_REMOTE}/a.zip", _breaks_after(b"half"), name="x")
    assert storage.find("/") == []


def test_half_an_upload_is_taken_away_again(storage, monkeypatch):
    def put_half(local, remote, callback):
        storage.pipe(remote, b"half")
        raise OSError("no space left")

    monkeypatch.setattr(storage, "put_file", put_half)
    with pytest.raises(OSError, match="no space"):
        save(f"{_REMOTE}/a.zip", _writes(b"whole"), name="x")
    assert storage.find("/") == []


def test_a_storage_that_can_upload_in_small_pieces_does(storage, monkeypatch):
    held = []

    def put(local, remote, callback, chunksize=50 * 2**20, max_concurrency=10):
        """As that of S3: so many pieces are in memory at a time."""
        held.append(chunksize * max_concurrency)
        storage.pipe(remote, Path(local).read_bytes())

    monkeypatch.setattr(storage, "put_file", put)
    save(f"{_REMOTE}/a.zip", _writes(b"whole"), name="x")
    assert storage.cat("/store/a.zip") == b"whole"
    assert len(held) == 1
    assert held[0] < 32 * 2**20


def test_object_storage_says_how_far_it_is(storage, caplog, monkeypatch):
    monkeypatch.setattr(progress, "STEP", 1_000_000)
    monkeypatch.setattr(storage, "blocksize", 1_000_000)
    with caplog.at_level(logging.INFO):
        save(f"{_REMOTE}/a.raw", _writes(bytes(4_000_000)), name="x")
    assert f"Copied to {_REMOTE}/a.raw: 2.0 of 4.0 MB" in caplog.messages


def test_a_zip_file_is_uploaded_as_it_is(tmp_path):
    file = tmp_path / "suites.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tests/a.yml", "a")
    with as_zip(str(file)) as uploaded:
        assert uploaded == file


def test_a_file_that_is_no_zip_is_not_uploaded(tmp_path):
    file = tmp_path / "suites.zip"
    file.write_text("name: a")
    with pytest.raises(ConfigurationError, match=r"suites\.zip' is not a ZIP file"), as_zip(file):
        pass


def test_what_is_not_there_is_not_uploaded(tmp_path):
    with pytest.raises(ConfigurationError, match="no file or folder"), as_zip(tmp_path / "missing"):
        pass


def test_an_empty_folder_is_not_uploaded(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="nothing to upload"), as_zip(tmp_path):
        pass


def test_a_folder_is_packed_whole_and_relative_to_itself(tmp_path):
    with as_zip(_folder(tmp_path)) as packed, zipfile.ZipFile(packed) as archive:
        assert packed.suffix == ".zip"
        assert archive.namelist() == [
            ".omilia-ci.yml",
            "tests/greeting/a.yml",
            "tests/greeting/b.yml",
            "tests/ünï.yml",
        ]
        assert archive.read("tests/greeting/a.yml") == b"a"
        assert archive.testzip() is None
    assert not packed.exists()


def test_equal_folders_make_equal_archives(tmp_path):
    digests = []
    for number, folder in enumerate((tmp_path / "one", tmp_path / "other")):
        folder.mkdir()
        _folder(folder)
        os.utime(folder / ".omilia-ci.yml", (number * 10**9, number * 10**9))
        (folder / ".omilia-ci.yml").chmod(0o600 + 0o77 * number)
        with as_zip(folder) as packed:
            digests.append(hashlib.sha256(packed.read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_no_link_is_followed_out_of_the_folder(tmp_path, caplog):
    secret = tmp_path / "secret.txt"
    secret.write_text("canary")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "more.txt").write_text("canary")
    suites = tmp_path / "suites"
    suites.mkdir()
    _folder(suites)
    (suites / "stolen.txt").symlink_to(secret)
    (suites / "stolen").symlink_to(outside)
    (suites / "loop").symlink_to(suites)
    (suites / "dangling").symlink_to(suites / "nowhere")
    (suites / "itself").symlink_to(suites / "itself")
    (suites / "tests" / "same.yml").symlink_to(suites / "tests" / "greeting" / "a.yml")
    with caplog.at_level(logging.WARNING), as_zip(suites) as packed, zipfile.ZipFile(packed) as archive:
        assert [name for name in archive.namelist() if "greeting" not in name] == [
            ".omilia-ci.yml",
            "tests/same.yml",
            "tests/ünï.yml",
        ]
        assert archive.read("tests/same.yml") == b"a"
        assert stat.S_ISREG(archive.getinfo("tests/same.yml").external_attr >> 16)
    for name in ("stolen.txt", "stolen", "loop", "dangling", "itself"):
        assert str(suites / name) in caplog.text


@_SPECIAL
def test_a_special_file_in_a_folder_is_refused(tmp_path, make, kind):
    _folder(tmp_path)
    make(tmp_path / "tests" / "odd")
    with pytest.raises(ConfigurationError, match=rf"tests/odd' is {kind}, which no archive can hold"), as_zip(tmp_path):
        pass


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    _folder(tmp_path)
    scandir = os.scandir

    def refuses(place):
        if str(place).endswith("greeting"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(ConfigurationError, match=r"greeting' can't be read: Permission denied"), as_zip(tmp_path):
        pass


@pytest.mark.parametrize("folder", [".git", ".hg", ".svn", ".Git"])
def test_no_link_leads_into_a_folder_of_version_control(tmp_path, caplog, folder):
    _folder(tmp_path)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "config").write_text("url = https://user:canary@git.example.com/x.git")
    (tmp_path / "tests" / "link.yml").symlink_to(tmp_path / folder / "config")
    (tmp_path / "tests" / "second.yml").symlink_to(tmp_path / "tests" / "link.yml")
    (tmp_path / "tests" / "relative.yml").symlink_to(f"../tests/../{folder}/config")
    with as_zip(tmp_path) as packed, zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == [
            ".omilia-ci.yml",
            "tests/greeting/a.yml",
            "tests/greeting/b.yml",
            "tests/ünï.yml",
        ]
    assert caplog.text.count("is a link into a folder of version control") == 3
    (tmp_path / "suites").symlink_to(tmp_path / folder)
    with pytest.raises(ConfigurationError, match=r"suites' is, or is in, a folder of"), as_zip(tmp_path / "suites"):
        pass


def test_the_folder_itself_may_be_a_link(tmp_path):
    suites = tmp_path / "suites"
    suites.mkdir()
    _folder(suites)
    link = tmp_path / "link"
    link.symlink_to(suites)
    with as_zip(link) as packed, zipfile.ZipFile(packed) as archive:
        assert "tests/greeting/a.yml" in archive.namelist()


def test_git_folders_are_left_out(tmp_path):
    _folder(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("url = https://user:canary@git.example.com/x.git")
    with as_zip(tmp_path) as packed, zipfile.ZipFile(packed) as archive:
        assert not [name for name in archive.namelist() if ".git" in name]


def test_a_large_file_is_packed_with_little_memory(tmp_path):
    size = 64 * 1024 * 1024
    with (tmp_path / "recording.raw").open("wb") as file:
        file.truncate(size)
    tracemalloc.start()
    try:
        with as_zip(tmp_path) as packed, zipfile.ZipFile(packed) as archive:
            assert archive.getinfo("recording.raw").file_size == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


def test_a_zip_file_comes_from_object_storage(storage, tmp_path):
    local = tmp_path / "suites.zip"
    with zipfile.ZipFile(local, "w") as archive:
        archive.writestr("tests/a.yml", "a")
    storage.pipe("/store/suites.zip", local.read_bytes())
    storage.pipe("/store/no.zip", b"no")
    with as_zip(f"{_REMOTE}/suites.zip") as uploaded:
        assert uploaded.read_bytes() == local.read_bytes()
        assert uploaded.name == "suites.zip"
    with pytest.raises(ConfigurationError, match="not a ZIP file"), as_zip(f"{_REMOTE}/no.zip"):
        pass
    with pytest.raises(ConfigurationError, match="no file or folder"), as_zip(f"{_REMOTE}/missing"):
        pass


def test_a_folder_of_object_storage_makes_the_same_archive(storage, tmp_path):
    _folder(tmp_path)
    for file in tmp_path.rglob("*"):
        if file.is_file():
            storage.pipe(f"/store/suites/{file.relative_to(tmp_path).as_posix()}", file.read_bytes())
    storage.pipe("/store/suites/.git/config", b"canary")
    with as_zip(f"{_REMOTE}/suites") as remote, as_zip(tmp_path) as local:
        assert remote.read_bytes() == local.read_bytes()


def test_a_name_that_leads_out_of_the_archive_is_refused(storage):
    storage.store["/store/suites/../x.yml"] = storage.open("/store/suites/ok.yml", "wb")
    with pytest.raises(ConfigurationError, match="can't be a name"), as_zip(f"{_REMOTE}/suites"):
        pass


def test_a_name_that_is_not_unicode_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.yml")).write_text("x")
    with pytest.raises(ConfigurationError, match="is not Unicode"), as_zip(tmp_path):
        pass
