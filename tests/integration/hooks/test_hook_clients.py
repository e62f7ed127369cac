"""What a hook makes of a connection's TLS settings, for a worker and for the triggerer alike."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
import trustme

from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.hooks.omilia import OmiliaHook

pytestmark = pytest.mark.integration


def _connect(monkeypatch: pytest.MonkeyPatch, **fields: object) -> None:
    whole = {"conn_type": "omilia", "host": "https://h.example.com", "password": "canary-token", **fields}
    monkeypatch.setenv("AIRFLOW_CONN_OMILIA_DEFAULT", json.dumps(whole))


def _open_in_a_worker() -> None:
    hook = OmiliaHook()
    try:
        assert hook.client is hook.client
    finally:
        hook.close()


def _open_in_the_triggerer() -> None:
    async def open_and_close() -> None:
        _, client = await OmiliaHook.open_async("omilia_default")
        await client.close()

    asyncio.run(open_and_close())


open_client = pytest.mark.parametrize("open_client", [_open_in_a_worker, _open_in_the_triggerer])


@open_client
def test_what_is_in_clear_or_unchecked_is_warned_of_once(monkeypatch, caplog, open_client):
    _connect(monkeypatch, host="http://h.example.com", extra={"verify": False})
    with caplog.at_level(logging.WARNING):
        open_client()
    said = [record.getMessage() for record in caplog.records if "Connection 'omilia_default'" in record.getMessage()]
    assert len(said) == 2
    assert "verify is false" in said[0]
    assert "host is http://" in said[1]
    caplog.clear()
    _connect(monkeypatch, host="http://127.0.0.1:8000")
    open_client()
    assert not [record for record in caplog.records if "Connection" in record.getMessage()]


@open_client
def test_files_that_cannot_be_used_are_named_before_any_request(monkeypatch, tmp_path, open_client):
    (tmp_path / "empty.pem").touch()
    empty = str(tmp_path / "empty.pem")
    for extra, field in [({"verify": empty}, "verify"), ({"cert": empty}, "cert"), ({"key": empty}, "key")]:
        _connect(monkeypatch, extra=extra)
        with pytest.raises(ConfigurationError, match=rf"^Connection 'omilia_default': {field} "):
            open_client()


@open_client
def test_a_client_certificate_is_taken_from_the_connection(monkeypatch, tmp_path: Path, open_client):
    both = tmp_path / "both.pem"
    trustme.CA().issue_cert("worker@example.com").private_key_and_cert_chain_pem.write_to_path(str(both))
    _connect(monkeypatch, extra={"cert": str(both)})
    open_client()


@open_client
@pytest.mark.parametrize("extra", ["5", "[]", '""', "{no"])
def test_extras_that_are_no_object(monkeypatch, open_client, extra):
    _connect(monkeypatch, extra=extra)
    with pytest.raises(ConfigurationError, match=r"^Connection 'omilia_default': extra must be a JSON object"):
        open_client()
