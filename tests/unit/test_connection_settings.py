"""Reading a connection: every field, every form of address, and errors that name the field and show no secret."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.hooks.connection import Settings
from airflow_provider_testruns.transport.tls import Tls
from tests.unit.strategies import json_values

pytestmark = pytest.mark.unit

_HOST = "https://dai.example.com:8000"


def _read(default_host: str = "", **fields) -> Settings:
    conn = Connection(conn_id="con", conn_type="eggplant", **{"host": _HOST, **fields})
    return Settings.read(conn, conn.extra_dejson, default_host=default_host)


def _problem(default_host: str = "", **fields) -> str:
    with pytest.raises(ConfigurationError) as caught:
        _read(default_host, **fields)
    said = str(caught.value)
    assert said.startswith("Connection 'con': ")
    assert "canary" not in said
    return said.removeprefix("Connection 'con': ")


def _with(**extra) -> Settings:
    return _read(extra=json.dumps(extra))


# All fields


def test_every_field():
    settings = _read(
        host="https://dai.example.com:8000/path/",
        login=" client ",
        password="canary-secret\n",
        extra=json.dumps({"realm": "r", "verify": False, "timeout": 5}),
    )
    assert settings == Settings(
        "con",
        "https://dai.example.com:8000/path",
        "client",
        "canary-secret",
        {"realm": "r", "verify": False, "timeout": 5},
        False,
        5.0,
    )


def test_what_is_not_filled_in_has_its_default():
    settings = _read()
    assert (settings.login, settings.password, settings.extra) == ("", "", {})
    assert settings.verify is True
    assert settings.timeout == 30.0


def test_secrets_are_not_in_the_repr():
    assert "canary" not in repr(_read(password="canary-1", extra='{"secret_key": "canary-2"}'))


# How fast


@pytest.mark.parametrize("name", ["max_requests_per_minute", "max_starts_at_once"])
def test_how_fast_a_process_may_be(name):
    assert getattr(_with(), name) is None
    for value, meant in ((1, 1), ("60", 60), (999_999, 999_999), ("", None)):
        assert getattr(_with(**{name: value}), name) == meant
    for value in (0, -1, 1.5, True, "many", "1_000", 1_000_000, [5]):
        assert _problem(extra=json.dumps({name: value})).startswith(f"{name} must be a number from 1 to 999999")


# The extras as a whole


@pytest.mark.parametrize(
    "extra", ['""', "[]", "5", "true", '"canary"', '["canary"]', "1e999", "-1", '[{"a": "canary"}]']
)
def test_extras_that_are_no_object(extra):
    conn = Connection(conn_id="con", conn_type="eggplant", host=_HOST, extra=extra)
    with pytest.raises(
        ConfigurationError, match=r"^Connection 'con': extra must be a JSON object.* it is a "
    ) as caught:
        Settings.read(conn, conn.extra_dejson)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("extra", ["{canary", "verify=canary", "{'verify': 'canary'}", "[" * 100_000])
def test_extras_that_are_no_json(extra):
    conn = Connection(conn_id="con", conn_type="eggplant", host=_HOST, extra=extra)
    with pytest.raises(ConfigurationError, match=r"^Connection 'con': extra must be .* it is not JSON") as caught:
        Settings.read(conn, {})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("extra", [None, "", "  ", "null", "{}"])
def test_extras_that_are_empty(extra):
    conn = Connection(conn_id="con", conn_type="eggplant", host=_HOST, extra=extra)
    assert Settings.read(conn, json.loads((extra or "").strip() or "{}")).extra == {}


# The address


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({"host": "https://h"}, "https://h"),
        ({"host": "https://h/"}, "https://h"),
        ({"host": " https://h/a/b// "}, "https://h/a/b"),
        ({"host": "http://localhost:8000/eggplant"}, "http://localhost:8000/eggplant"),
        ({"host": "HTTPS://h"}, "https://h"),
        ({"host": "h"}, "https://h"),
        ({"host": "h:8443"}, "https://h:8443"),
        ({"host": "h/a"}, "https://h/a"),
        ({"host": "h", "schema": "http"}, "http://h"),
        ({"host": "h", "schema": "HTTPS"}, "https://h"),
        ({"host": "h", "schema": "http", "port": 8000}, "http://h:8000"),
        ({"host": "h", "port": 8000}, "https://h:8000"),
        ({"host": "https://h", "port": 8000}, "https://h:8000"),
        ({"host": "https://h:1", "port": 8000}, "https://h:1"),
        ({"host": "https://h/a", "port": 8000}, "https://h:8000/a"),
        ({"host": "https://h", "schema": "a/b"}, "https://h/a/b"),
        ({"host": "https://h/a", "schema": "/b/"}, "https://h/a/b"),
        ({"host": "http://h", "schema": "https"}, "http://h"),
        ({"host": "h", "schema": "a"}, "https://h/a"),
        ({"host": "https://[::1]:8000"}, "https://[::1]:8000"),
        ({"host": "https://10.0.0.1"}, "https://10.0.0.1"),
    ],
    ids=str,
)
def test_forms_of_the_address(fields, base_url):
    assert _read(**fields).base_url == base_url


@pytest.mark.parametrize(
    ("uri", "base_url"),
    [
        ("eggplant://id:s%40c@[::1]:8000/https", "https://[::1]:8000"),
        ("eggplant://id:s%40c@[2001:db8::1]/http", "http://[2001:db8::1]"),
        ("eggplant://https://id:s%40c@[::1]:8000/base", "https://[::1]:8000/base"),
        ("eggplant://id:s%40c@%5B%3A%3A1%5D:8000/https", "https://[::1]:8000"),
        ("eggplant://id:s%40c@https%3A%2F%2F%5B%3A%3A1%5D%3A8000%2Fbase", "https://[::1]:8000/base"),
        ("eggplant://id:s%40c@dai.example.com:8000/https", "https://dai.example.com:8000"),
        ("eggplant://id:s%40c@dai.example.com/http", "http://dai.example.com"),
        ("eggplant://id:s%40c@dai.example.com", "https://dai.example.com"),
        ("eggplant://id:s%40c@https%3A%2F%2Fdai.example.com%3A8000%2Fbase", "https://dai.example.com:8000/base"),
        ("eggplant://https://id:s%40c@dai.example.com:8000/base", "https://dai.example.com:8000/base"),
        ("eggplant://http://id:s%40c@localhost:8000", "http://localhost:8000"),
    ],
)
def test_connection_uris_as_airflow_reads_them(uri, base_url):
    conn = Connection.from_uri(uri, "con")
    settings = Settings.read(conn, conn.extra_dejson)
    assert (settings.base_url, settings.login, settings.password) == (base_url, "id", "s@c")


def test_extras_of_a_connection_uri():
    conn = Connection.from_uri("futureagi://:key@/?secret_key=abc&timeout=5&verify=false", "con")
    settings = Settings.read(conn, conn.extra_dejson, default_host="https://api.example.com")
    assert settings.base_url == "https://api.example.com"
    assert settings.text("secret_key") == "abc"
    assert settings.timeout == 5.0
    assert settings.verify is False


def test_a_default_address_is_only_for_an_empty_host():
    default = "https://api.example.com"
    assert _read(default, host="").base_url == default
    assert _read(default, host=None, schema="https", port=1).base_url == default
    assert _read(default, host="http://own").base_url == "http://own"


def test_an_address_must_be_there():
    assert _problem(host="") == (
        "host is empty. Fill in the platform's address with its scheme, such as https://dai.example.com:8000."
    )


@pytest.mark.parametrize(
    "host",
    [
        "ftp://h",
        "file:///etc/passwd",
        "https://",
        "https://:8000",
        "https://h:port",
        "https://h:0",
        "https://h:99999",
        "https://[bad",
        "https://h h",
        "h:8000:9000",
        "ftp://id:canary-pass@h",
        "ftp://h?key=canary-key",
        "ftp://h#canary",
        "https:/h",
        "https//h",
        "https:h",
        "http:h:8000/base",
        "http:/id:canary-pass@h",
        "https;//h",
        "https:\\\\h",
        "https:///h",
        "https://https://h",
        "://h",
        "//h",
        "https://h;x",
        "https://{h}",
        "https://h\\@x",
        "[::1",
        "[::1]x",
        "javascript:alert(1)",
        "id:canary-pass@h:port",
    ],
)
def test_what_is_no_address(host):
    assert _problem(host=host).startswith(
        "host must be an http or https URL such as https://dai.example.com:8000, got "
    )


@pytest.mark.parametrize("host", ["127.1", "2130706433", "http://10.0.0.256:80", "https://010.0.0.1/base"])
def test_what_is_an_ipv4_address_to_one_client_only(host):
    assert _problem(host=host).startswith("host must have a name, or an IPv4 address of four numbers from 0 to 255; ")
    assert _read(host="10.0.0.255").base_url == "https://10.0.0.255"


@pytest.mark.parametrize(
    "host", ["https://id:canary-pass@h", "https://canary-key@h", "id:canary-pass@h", "https://@h", "https://:@h"]
)
def test_credentials_do_not_belong_into_the_address(host):
    assert _problem(host=host) == ("host must not contain a user or password; use the fields login and password.")


@pytest.mark.parametrize("host", ["https://h/a?key=canary-key", "https://h/a#canary", "h/a?x=canary"])
def test_an_address_ends_with_its_path(host):
    said = _problem(host=host)
    assert said.startswith("host must end with the path, without '?' or '#'")
    assert "h/a" in said


@pytest.mark.parametrize("port", [-1, 65536, 1_000_000])
def test_ports_that_do_not_exist(port):
    assert _problem(host="h", port=port) == f"port must be 1 to 65535, got {port}."


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", "canary\nsecret"),
        ("login", "canary\nsecret"),
        ("password", "canary\nsecret"),
        ("password", "canary\x00secret"),
        ("password", "canary\u200bsecret"),
        ("password", "canary\u00a0secret"),
    ],
)
def test_what_copying_brings_along_is_named_and_not_shown(field, value):
    assert _problem(**{field: value}) == (
        f"{field} contains a line break or another unprintable character, probably from copying. Enter it again."
    )


def test_other_alphabets_are_welcome():
    settings = _read(login="jürgen", password="пароль")
    assert (settings.login, settings.password) == ("jürgen", "пароль")


# verify and timeout


@pytest.mark.parametrize(
    ("value", "verify"),
    [
        (None, True),
        ("", True),
        (True, True),
        (False, False),
        ("true", True),
        (" False ", False),
        ("TRUE", True),
        (1, True),
        (0, False),
        ("1", True),
        ("0", False),
    ],
)
def test_verify(value, verify):
    assert _with(verify=value).verify is verify


def test_verify_may_be_a_ca_bundle(tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    assert _with(verify=str(bundle)).verify == str(bundle)
    assert _with(verify=str(tmp_path)).verify == str(tmp_path)


def test_a_ca_bundle_must_be_there(tmp_path):
    said = _problem(extra=json.dumps({"verify": str(tmp_path / "none.pem")}))
    assert said.startswith("verify must be true, false or the path of a CA bundle; there is no file ")
    assert "none.pem" in said


@pytest.mark.parametrize("value", [2, 2.5, -1, [], {}, ["x"]])
def test_what_verify_cannot_be(value):
    said = _problem(extra=json.dumps({"verify": value}))
    assert said == f"verify must be true, false or the path of a CA bundle, got {value!r}."


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, 30.0), ("", 30.0), (1, 1.0), (2.5, 2.5), ("45", 45.0), (" 5 ", 5.0), (600, 600.0)]
)
def test_timeout(value, seconds):
    assert _with(timeout=value).timeout == seconds


@pytest.mark.parametrize("value", [0, 0.5, -1, 601, "soon", True, False, [], {}, "nan", "inf", "1e999"])
def test_what_the_timeout_cannot_be(value):
    said = _problem(extra=json.dumps({"timeout": value}))
    assert said == f"timeout must be 1 to 600 seconds for one request, got {value!r}."


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (None, 1024**3),
        ("", 1024**3),
        (5_000_000, 5_000_000),
        ("5000000", 5_000_000),
        (" 500 MB ", 500 * 1024**2),
        ("1.5gb", 3 * 512 * 1024**2),
        ("10 B", 10),
        (1e6, 1_000_000),
    ],
)
def test_max_file_size(value, size):
    assert _with(max_file_size=value).max_file_size == size


@pytest.mark.parametrize(
    "value", [0, -1, "0 MB", "many", "5 XB", True, [], {}, "nan", "inf", "1e999", "9" * 100, "2000 TB", 10**400]
)
def test_what_the_max_file_size_cannot_be(value):
    said = _problem(extra=json.dumps({"max_file_size": value}))
    assert said.startswith("max_file_size must be a size such as '500 MB' or '2 GB', or a number of bytes; got '")


# Other extras


@pytest.mark.parametrize(("value", "found"), [("x", "x"), (" x ", "x"), ("", "d"), ("  ", "d"), (None, "d")])
def test_texts(value, found):
    assert _with(realm=value).text("realm", "d") == found
    assert _read().text("realm", "d") == "d"


@pytest.mark.parametrize(("value", "found"), [(2026, "2026"), (True, "true"), (False, "false"), (1.5, "1.5")])
def test_numbers_are_the_texts_that_they_were_in_a_uri(value, found):
    assert _with(realm=value).text("realm", "d") == found


@pytest.mark.parametrize("value", [["canary"], {"a": "canary"}])
def test_what_is_no_text(value):
    with pytest.raises(ConfigurationError) as caught:
        _with(secret_key=value).text("secret_key")
    assert str(caught.value) == f"Connection 'con': secret_key must be a string, got {type(value).__name__}."


def test_a_secret_with_a_line_break_is_not_shown():
    with pytest.raises(ConfigurationError) as caught:
        _with(secret_key="canary\nkey").text("secret_key")
    assert str(caught.value).startswith("Connection 'con': secret_key contains a line break")
    assert "canary" not in str(caught.value)


def test_choices():
    allowed = ("password", "client_credentials")
    assert _with(grant_type="password").choice("grant_type", allowed) == "password"
    assert _with(grant_type="").choice("grant_type", allowed, "password") == "password"
    assert _read().choice("grant_type", allowed) == ""
    with pytest.raises(ConfigurationError) as caught:
        _with(grant_type="Password").choice("grant_type", iter(allowed))
    assert str(caught.value) == (
        "Connection 'con': grant_type must be one of password, client_credentials, got 'Password'."
    )


def test_urls():
    assert _with(auth_url="https://sso/realms/r/token/").url("auth_url") == "https://sso/realms/r/token"
    assert _with(auth_url="").url("auth_url") == ""
    assert _read().url("auth_url") == ""
    for value in ("sso/token", "ftp://sso", "https://id:canary@sso/t", "https://sso/t?key=canary"):
        with pytest.raises(ConfigurationError, match=r"^Connection 'con': auth_url must ") as caught:
            _with(auth_url=value).url("auth_url")
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "https://h/{run_id}",
        "{base_url}/x/{run_id}?p={project_id}",
        "https://h/fixed",
        "{base_url}",
        "{base_url}#{run_id}",
        "http://[::1]:8000/{{x}}/{run_id}",
    ],
)
def test_templates(template):
    assert (
        _with(run_url_template=template).template("run_url_template", ["base_url", "run_id", "project_id"]) == template
    )


@pytest.mark.parametrize(
    "template",
    [
        "javascript:alert(1)//{run_id}",
        "JavaScript:alert(1)",
        "data:text/html,{run_id}",
        "//evil.example/{run_id}",
        "/runs/{run_id}",
        "runs/{run_id}",
        "{base_url}@evil.example/{run_id}",
        "{base_url}.evil.example/{run_id}",
        "{base_url}:{run_id}",
        "{base_url}{run_id}",
        "{base_url}\\@evil.example",
        "{run_id}",
        "https://{run_id}/x",
        "https://h.{run_id}/x",
        "https://h:{run_id}/x",
        "https://h{base_url}/x",
        "https://id:canary@h/{run_id}",
        "https://h@{run_id}/x",
        "https:\\\\evil\\{run_id}",
        "https:/h/{run_id}",
        "https:///{run_id}",
        "https://h:0/{run_id}",
        "https://h h/{run_id}",
        "https://h/a b",
        "ftp://h/{run_id}",
        "{{base_url}}/{run_id}",
    ],
)
def test_a_template_leads_to_the_base_url_or_a_fixed_host(template):
    with pytest.raises(ConfigurationError, match=r"^Connection 'con': run_url_template must begin with") as caught:
        _with(run_url_template=template).template("run_url_template", ("base_url", "run_id"))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "//evil", "{base_url}@evil", "https://{base_url}/x", "https:/h"]
)
@pytest.mark.parametrize("name", ["app_url", "auth_url"])
def test_other_addresses_are_whole_http_urls(name, url):
    with pytest.raises(ConfigurationError, match=rf"^Connection 'con': {name} must"):
        _with(**{name: url}).url(name)


@pytest.mark.parametrize(
    "template",
    [
        "{other}",
        "{}",
        "{0}",
        "{run_id",
        "run_id}",
        "{run_id!r}",
        "{run_id:>9}",
        "{run_id.__class__}",
        "{run_id[0]}",
        "{run_id:{run_id}}",
    ],
)
def test_what_a_template_cannot_hold(template):
    with pytest.raises(ConfigurationError) as caught:
        _with(run_url_template=template).template("run_url_template", ("base_url", "run_id"))
    assert str(caught.value) == (
        "Connection 'con': run_url_template may hold {base_url}, {run_id} and nothing else in braces; got"
        f" {template!r}."
    )


@given(st.text(max_size=30))
def test_a_template_that_is_taken_can_be_filled_in(template):
    settings = Settings("con", _HOST, extra={"t": template})
    try:
        found = settings.template("t", ["run_id"])
    except ConfigurationError:
        return
    assert isinstance(found.format(run_id="r-1"), str)


def test_required_fields():
    settings = _read(password="x")
    assert settings.required(settings.password, "password", "") == "x"
    with pytest.raises(ConfigurationError) as caught:
        settings.required(settings.login, "login", "Fill in the client id.")
    assert str(caught.value) == "Connection 'con': login is empty. Fill in the client id."


@given(st.dictionaries(st.sampled_from(["verify", "timeout", "realm"]), json_values))
def test_any_extras_are_settings_or_a_configuration_error(extra):
    conn = Connection(conn_id="con", conn_type="eggplant", host=_HOST)
    try:
        settings = Settings.read(conn, extra)
        assert 1 <= settings.timeout <= 600
        assert isinstance(settings.verify, bool | str)
        settings.text("realm")
    except ConfigurationError as e:
        said = str(e)
    else:
        said = "Connection 'con': fine"
    assert said.startswith("Connection 'con': ")


# TLS, and what is in clear


def test_the_client_certificate_is_read():
    settings = _with(cert="/c.pem", key=" /k.pem ", verify=False)
    assert settings.tls == Tls(False, "/c.pem", "/k.pem")
    assert _read().tls == Tls(True, "", "")


def test_a_file_that_cannot_be_used_is_named_with_its_field(tmp_path):
    (tmp_path / "empty.pem").touch()
    for extra, field in [
        ({"verify": str(tmp_path / "empty.pem")}, "verify"),
        ({"cert": str(tmp_path / "none.pem")}, "cert"),
        ({"key": str(tmp_path / "none.pem")}, "key"),
    ]:
        with pytest.raises(ConfigurationError, match=rf"^Connection 'con': {field} "):
            _with(**extra).check_tls()


@pytest.mark.parametrize(
    ("host", "extra", "said"),
    [
        ("https://h", {}, []),
        ("https://h", {"verify": False}, ["verify is false"]),
        ("http://h", {}, ["host is http://"]),
        ("http://localhost:8000", {}, []),
        ("http://127.0.0.9", {}, []),
        ("http://[::1]", {}, []),
        ("http://10.0.0.1", {}, ["host is http://"]),
        ("http://localhost.example.com", {}, ["host is http://"]),
        ("https://h", {"auth_url": "http://sso/token"}, ["auth_url is http://"]),
        ("http://h", {"auth_url": "http://sso/token", "verify": "0"}, ["verify is false", "host is", "auth_url is"]),
    ],
)
def test_warnings(host, extra, said):
    warnings = list(_read(host=host, extra=json.dumps(extra)).warnings())
    assert len(warnings) == len(said)
    for warning, part in zip(warnings, said, strict=True):
        assert warning.startswith(f"Connection 'con': {part}")
