"""The proxy of the environment: what requests itself would take, for both clients."""

from __future__ import annotations

import os

import pytest
import requests.utils
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns.transport.effects import NetworkError
from airflow_provider_testruns.transport.proxies import Proxy, proxy_for

pytestmark = pytest.mark.unit

_HOSTS = ["platform.example", "api.platform.example", "localhost", "10.1.2.3", "127.0.0.1", "[::1]", "[2001:db8::1]"]
_PROXIES = ["http://a:3128", "http://b.example:8080", "127.0.0.1:3128", "c.example:3128", "https://d", ""]
_NAMES = [
    "*",
    "platform.example",
    ".platform.example",
    "platform.example:8443",
    "example",
    "10.0.0.0/8",
    "10.1.2.3/32",
    "10.1.2.3",
    "10.0.0.0/99",
    "10.0.0.0/0",
    "127.0.0.0/16",
    "localhost",
    "::1",
    "[::1]",
    "",
    " 10.1.2.3 ",
    "LOCALHOST",
]
_VARIABLES = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return monkeypatch


@given(
    scheme=st.sampled_from(["http", "https"]),
    host=st.sampled_from(_HOSTS),
    port=st.sampled_from(["", ":443", ":8443"]),
    proxies=st.dictionaries(st.sampled_from(_VARIABLES), st.sampled_from(_PROXIES), max_size=3),
    no_proxy=st.dictionaries(
        st.sampled_from(["no_proxy", "NO_PROXY"]), st.lists(st.sampled_from(_NAMES), max_size=3).map(",".join)
    ),
)
def test_it_is_the_one_that_requests_takes(scheme, host, port, proxies, no_proxy):
    url = f"{scheme}://{host}{port}/path"
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.lower().endswith("_proxy"):
                patch.delenv(name)
        for name, value in {**proxies, **no_proxy}.items():
            patch.setenv(name, value)
        expected = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
        found = proxy_for(url)
    if not expected:
        assert found is None
    else:
        assert found is not None
        assert found.url == requests.utils.prepend_scheme_if_needed(expected, "http")


@pytest.mark.parametrize(
    ("value", "proxy"),
    [
        ("proxy:3128", Proxy("http://proxy:3128")),
        ("//proxy:3128", Proxy("http://proxy:3128")),
        ("HTTP://Proxy:3128/", Proxy("http://proxy:3128")),
        ("[::1]:3128", Proxy("http://[::1]:3128")),
        ("http://user:p%40ss@proxy", Proxy("http://proxy", ("user", "p@ss"))),
        ("user:pass@proxy:1", Proxy("http://proxy:1", ("user", "pass"))),
        ("http://user@proxy", Proxy("http://proxy")),
    ],
)
def test_forms_of_a_proxy(bare, value, proxy):
    bare.setenv("ALL_PROXY", value)
    found = proxy_for("https://h")
    assert found == proxy
    assert found is not None
    if proxy.credentials:
        assert requests.utils.get_auth_from_url(found.whole_url) == proxy.credentials


@pytest.mark.parametrize(
    "value",
    [
        "socks5://u:canary@p:1",
        "ftp://p",
        "http://",
        "http://u:canary@p:port",
        "http://p:0",
        "http://p p",
        "http://[::1",
        "http:/u:canary@p",
    ],
)
def test_what_is_no_proxy_is_named_by_its_variable_and_not_shown(bare, value):
    bare.setenv("https_proxy", value)
    with pytest.raises(NetworkError, match="the proxy in the environment variable https_proxy is") as caught:
        proxy_for("https://h")
    assert not caught.value.sent
    assert "canary" not in str(caught.value)


def test_credentials_are_not_in_the_repr():
    assert "canary" not in repr(Proxy("http://p", ("user", "canary")))
