"""Files of certificates and keys: what can't be used is said, with the field that names it, before any request."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization as form
from cryptography.x509 import load_pem_x509_certificate

from airflow_provider_testruns.transport.tls import Tls, TlsFileError

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every kind of file that somebody may name."""
    folder = tmp_path_factory.mktemp("files")
    leaf, other = authority.issue_cert("me@example.com"), authority.issue_cert("you@example.com")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    ca = load_pem_x509_certificate(authority.cert_pem.bytes())
    (folder / "ca.der").write_bytes(ca.public_bytes(form.Encoding.DER))
    (folder / "empty.pem").touch()
    (folder / "blank.pem").write_text("\n\n")
    (folder / "words.pem").write_text("not a certificate")
    (folder / "damaged.pem").write_bytes(authority.cert_pem.bytes().replace(b"MII", b"AAA", 1))
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    leaf.private_key_pem.write_to_path(str(folder / "key.pem"))
    other.private_key_pem.write_to_path(str(folder / "other-key.pem"))
    key = form.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"canary-phrase")
    )
    (folder / "locked.pem").write_bytes(encrypted)
    (folder / "locked-both.pem").write_bytes(encrypted + leaf.cert_chain_pems[0].bytes())
    (folder / "key.der").write_bytes(
        key.private_bytes(form.Encoding.DER, form.PrivateFormat.PKCS8, form.NoEncryption())
    )
    with (folder / "huge.pem").open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    return folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.pem", "can't be read: No such file or directory"),
        ("ca.der", "is no CA bundle in PEM form. If it is DER, 'openssl x509"),
        ("empty.pem", "is an empty file"),
        ("blank.pem", "is an empty file"),
        ("words.pem", "is no CA bundle in PEM form"),
        ("key.pem", "is no CA bundle in PEM form"),
        ("damaged.pem", "is a damaged CA bundle"),
        ("folder", "is a folder in which OpenSSL finds no certificate"),
        ("pipe", "is not a file"),
        ("huge.pem", "is too large"),
    ],
)
@pytest.mark.parametrize("variable", [None, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_bundles_that_cannot_be_used(files, monkeypatch, name, said, variable):
    for each in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(each, raising=False)
    path = str(files / name)
    if variable is not None:
        monkeypatch.setenv(variable, path)
    with pytest.raises(TlsFileError) as caught:
        Tls(path if variable is None else True).context()
    assert caught.value.field == ("verify" if variable is None else f"the environment variable {variable}")
    assert said in caught.value.problem
    assert name in caught.value.problem


@pytest.mark.parametrize(
    ("cert", "key", "field", "said"),
    [
        ("none.pem", "", "cert", "No such file"),
        ("folder", "", "cert", "is not a file"),
        ("cert.pem", "none.pem", "key", "No such file"),
        ("cert.pem", "pipe", "key", "is not a file"),
        ("cert.pem", "other-key.pem", "key", "does not belong to the certificate"),
        ("cert.pem", "locked.pem", "key", "encrypted private key"),
        ("locked-both.pem", "", "cert", "encrypted private key"),
        ("cert.pem", "", "cert", "holds no usable private key"),
        ("cert.pem", "key.der", "key", "holds no private key in PEM form"),
        ("cert.pem", "empty.pem", "key", "holds no private key in PEM form"),
        ("ca.der", "key.pem", "cert", "holds no certificate in PEM form"),
        ("key.pem", "", "cert", "holds no certificate in PEM form"),
        ("empty.pem", "", "cert", "holds no certificate in PEM form"),
        ("", "key.pem", "key", "and cert, the certificate that it belongs to, is empty"),
    ],
)
def test_client_certificates_that_cannot_be_used(files, cert, key, field, said):
    with pytest.raises(TlsFileError) as caught:
        Tls(True, cert and str(files / cert), key and str(files / key)).context()
    assert caught.value.field == field
    assert said in caught.value.problem


def test_client_certificates_that_can_be_used(files):
    assert Tls(True, str(files / "both.pem")).context()
    assert Tls(False, str(files / "cert.pem"), str(files / "key.pem")).context().verify_mode == ssl.CERT_NONE


def test_a_context_is_made_once_and_again_when_its_file_has_changed(files, tmp_path):
    path = tmp_path / "ca.pem"
    shutil.copy(files / "ca.pem", path)
    first = Tls(str(path)).context()
    assert Tls(str(path)).context() is first
    assert Tls(str(files / "ca.pem")).context() is not first
    path.write_bytes(path.read_bytes() * 2)
    assert Tls(str(path)).context() is not first


def test_unchecked_and_checked_do_not_share():
    assert Tls(True).context().verify_mode == ssl.CERT_REQUIRED
    assert Tls(False).context() is not Tls(True).context()
