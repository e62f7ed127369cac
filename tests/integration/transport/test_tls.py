"""TLS: what is trusted, and what an error says when it is not."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from airflow_provider_testruns.exceptions import TransportError
from airflow_provider_testruns.sandbox.server import SandboxServer
from tests.harness.waiting import wait_until
from tests.integration.transport.wires import (
    API,
    SMOKE,
    RawServer,
    answering,
    dripping,
    get,
    password_grant,
    post,
    session,
    to_sandbox,
    within,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Unverified HTTPS request"),  # what urllib3 says to verify: false
]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle as a company has it: its own authority beside others."""
    path = tmp_path_factory.mktemp("ca") / "bundle.pem"
    other = trustme.CA()
    path.write_bytes(other.cert_pem.bytes() + authority.cert_pem.bytes())
    return str(path)


@pytest.fixture(scope="module")
def secure(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    """A sandbox behind a certificate of the authority."""
    path: Path = tmp_path_factory.mktemp("certificate") / "server.pem"
    path.write_bytes(authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.bytes())
    with SandboxServer(run_seconds=60, certfile=str(path)) as server:
        yield server


@pytest.fixture
def sandbox(secure: SandboxServer) -> SandboxServer:
    secure.control.reset()
    return secure


def _serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def test_a_bundle_of_ones_own_is_trusted(sandbox, drive, bundle):
    client = drive(to_sandbox(sandbox, password_grant(sandbox)), verify=bundle)
    run = client.ask(API.create_run(SMOKE))
    assert client.ask(API.get_run_call(run.run_id)).run_id == run.run_id
    assert sandbox.control.stats()["connections"]["opened"] == 2  # one was for the start alone


def test_a_folder_of_certificates_is_trusted(sandbox, drive, authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    # OpenSSL finds a certificate in a folder by the hash of its subject.
    import subprocess

    name = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", str(tmp_path / "ca.pem")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (tmp_path / f"{name}.0").symlink_to("ca.pem")
    assert drive(to_sandbox(sandbox), verify=str(tmp_path)).ask(API.list_projects())


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_of_the_environment_is_trusted_by_both(sandbox, drive, bundle, monkeypatch, variable):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(variable, bundle)
    assert drive(to_sandbox(sandbox)).ask(API.list_projects())


def test_an_unknown_authority_is_refused_and_the_message_names_verify(sandbox, drive):
    client = drive(to_sandbox(sandbox))
    with pytest.raises(
        TransportError, match=r"TLS failed.*certificate verify failed.*the connection's extra 'verify'"
    ) as e:
        client.ask(API.create_run(SMOKE))
    assert not e.value.sent
    assert e.value.not_executed
    assert sandbox.control.stats()["requests"] == 0


def test_a_certificate_of_another_name_is_refused(drive, authority, bundle):
    context = _serving(authority.issue_cert("dai.example.com"))
    with RawServer(answering(lambda seen: (200, b"{}")), tls=context) as server:
        with pytest.raises(TransportError, match="the connection's extra 'verify'") as caught:
            drive(session(server.url), verify=bundle).ask(post())
        assert not caught.value.sent
        assert server.seen == []


def test_an_expired_certificate_is_refused(drive, authority, bundle):
    from datetime import UTC, datetime, timedelta

    context = _serving(authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1)))
    with RawServer(answering(lambda seen: (200, b"{}")), tls=context) as server:
        with pytest.raises(TransportError, match="certificate has expired") as caught:
            drive(session(server.url), verify=bundle).ask(post())
        assert caught.value.not_executed


def test_nothing_is_checked_when_the_connection_says_so(sandbox, drive):
    assert drive(to_sandbox(sandbox), verify=False).ask(API.list_projects())


def test_an_unchecked_connection_does_not_make_others_unchecked(sandbox, drive):
    drive(to_sandbox(sandbox), verify=False).ask(API.list_projects())
    with pytest.raises(TransportError, match="verify"):
        drive(to_sandbox(sandbox)).ask(API.list_projects())


def _speaks_plainly(line):
    line.sock.recv(10)
    line.response(400, b"what is this?")


@pytest.mark.parametrize(
    "talk",
    [_speaks_plainly, lambda line: None, lambda line: line.linger()],
    ids=["another protocol", "closed at once", "silent"],
)
def test_a_handshake_that_fails_proves_that_nothing_was_sent(drive, talk):
    with RawServer(talk) as server:
        with within(2), pytest.raises(TransportError) as caught:
            drive(session(server.url.replace("http:", "https:"), timeout=1)).ask(post())
        assert server.seen == []
    assert "'verify'" not in str(caught.value)
    assert not caught.value.sent
    assert caught.value.not_executed


def test_no_tls_to_a_server_with_it_is_lost(sandbox, drive):
    client = drive(session(sandbox.url.replace("https:", "http:"), timeout=2))
    with pytest.raises(TransportError):
        client.ask(post())
    assert sandbox.control.stats()["requests"] == 0


@pytest.mark.parametrize("prefix", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"])
def test_the_time_is_a_total_over_tls_too(drive, authority, bundle, prefix):
    drop = b"X-More: 1\r\n" if b"Content-Length" not in prefix else b"1"
    context = _serving(authority.issue_cert("127.0.0.1"))
    with RawServer(dripping(prefix, drop), tls=context) as server:
        for call in (get(), post()):
            client = drive(session(server.url, timeout=2), verify=bundle)
            with within(3), pytest.raises(TransportError, match="no complete response") as caught:
                client.ask(call)
            assert caught.value.sent
        wait_until(lambda: len(server.seen) >= 2, "the server has read both requests")
        assert len(server.seen) == 2


def test_closing_leaves_no_warning(sandbox, drive, bundle):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = drive(to_sandbox(sandbox), verify=bundle)
        client.ask(API.list_projects())
        client.ask(API.create_run(SMOKE))
        client.close()
