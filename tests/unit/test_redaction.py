"""Masking of secrets in what the provider emits: every way to write one, and what it costs to know them."""

from __future__ import annotations

import base64
import gc
import html
import json
import threading
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from airflow_provider_testruns import limits, redaction
from airflow_provider_testruns.redaction import MASK, ClientSecrets, redact

pytestmark = pytest.mark.unit

#: Holds what each way to write it changes: quotes, a slash, an ampersand, a backslash, a space, letters beyond ASCII.
ODD = "canary p/ä'w\"&<ß>\\%2f+=?#1é"
TOKEN = "canary-token-eyJ0.5f9e1c77a0.b2"
LONG_TOKEN = "canary" + "0123456789abcdefXYZ" * 20


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_registry", redaction._Registry())


@pytest.fixture
def client() -> ClientSecrets:
    secrets = ClientSecrets([ODD])
    secrets.hold()
    secrets.renewed("access", TOKEN)
    return secrets


def _percent(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def _basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


WAYS = {
    "itself": lambda s: s,
    "quoted": lambda s: quote(s, safe=""),
    "quoted, but for slashes": quote,
    "quoted in lower case": lambda s: quote(s, safe="").replace("%2F", "%2f").replace("%C3", "%c3"),
    "quoted in mixed case": lambda s: quote(s, safe="").replace("%2F", "%2f"),
    "quoted whole": _percent,
    "quoted twice": lambda s: quote(quote(s, safe=""), safe=""),
    "in a form": lambda s: quote_plus(s),
    "in a query": lambda s: urlencode({"q": s}),
    "in HTML": html.escape,
    "in HTML, quotes left": lambda s: html.escape(s, quote=False),
    "as HTML references": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "as hexadecimal HTML references": lambda s: "".join(f"&#x{ord(c):X};" for c in s),
    "in JSON": lambda s: json.dumps(s),
    "in JSON, not in ASCII": lambda s: json.dumps(s, ensure_ascii=False),
    "in JSON, slashes too": lambda s: json.dumps(s).replace("/", "\\/"),
    "in JSON whole": lambda s: "".join(f"\\u{ord(c):04X}" for c in s),
    "in JSON in JSON": lambda s: json.dumps(json.dumps({"said": s})),
    "as Python writes it": repr,
    "as Python writes it in ASCII": ascii,
    "as Python writes bytes": lambda s: repr(s.encode()),
    "in HTML in JSON": lambda s: json.dumps(html.escape(s)),
    "in Base64": lambda s: _basic(s),
    "in Base64 behind one byte": lambda s: _basic("a" + s),
    "in Base64 behind two bytes": lambda s: _basic("ab" + s),
    "in Base64 before more": lambda s: _basic("login:" + s + "more"),
    "in a Basic header": lambda s: "Basic " + _basic("canary-login:" + s),
    "in Base64 for URLs": lambda s: base64.urlsafe_b64encode(("lo:" + s).encode()).decode(),
    "in Base64, quoted": lambda s: quote(_basic("l:" + s), safe=""),
    "in Base64, in JSON that escapes slashes": lambda s: json.dumps(_basic("l:" + s)).replace("/", "\\/"),
    "in Base64 of Latin-1": lambda s: base64.b64encode(("x:" + s).encode("latin-1")).decode(),
    "in hexadecimal": lambda s: s.encode().hex(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("secret", [ODD, TOKEN], ids=["password", "token"])
def test_a_secret_is_masked_however_it_is_written(client: ClientSecrets, way: str, secret: str) -> None:
    written = WAYS[way](secret)

    masked = redact(f"before {written} after, and {written}.")

    assert written not in masked
    assert masked.startswith("before ")
    assert " after, and " in masked
    assert masked.count(MASK) == 2
    # The login before a password in Base64 is no secret.
    assert len(masked) < len(f"before  after, and .{MASK}{MASK}") + 2 * len("Basic " + _basic("canary-login:") + "==")


@given(st.text(min_size=12, max_size=40), st.text(max_size=6), st.sampled_from(sorted(WAYS)))
@example("0" * 12, "0", "in Base64")
@example("\ud800" * 12, "", "itself")
@settings(max_examples=100, deadline=None)
def test_any_text_can_be_a_secret(secret: str, around: str, way: str) -> None:
    # "\\xc3\\xa4" is one letter or two: it is taken for one, of bytes.
    assume("ASCII" not in way or all(character < "\x80" or character > "\xbf" for character in secret))
    try:
        written = WAYS[way](secret)
        if "Latin" not in way and "JSON whole" not in way:
            secret.encode()
    except UnicodeEncodeError:
        written = secret
    if way == "in JSON whole" and any(ord(character) > 0xFFFF for character in secret):
        written = json.dumps(secret)

    masked = redact(around + written, also=[secret])

    assert MASK in masked
    assert len(masked) <= len(around) + len(MASK) + 30


@given(st.text())
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert redact(text, also=["canary-that-is-never-there"]) == text or "://" in text


def test_nothing_is_masked_beside_secrets(client: ClientSecrets) -> None:
    text = f"50 % of {{'a': \"b\\n\"}} & more, &amp; %41 {quote(TOKEN)}! ä%"
    assert redact(text) == f"50 % of {{'a': \"b\\n\"}} & more, &amp; %41 {MASK}! ä%"


def test_overlapping_secrets_are_masked_whole() -> None:
    assert redact("x canary-one-two-three y", also=["canary-one-two", "one-two-three", "two"]) == f"x {MASK} y"


@pytest.mark.parametrize("length", [24, 30, 100, 379])
def test_the_beginning_of_a_long_token_is_masked_too(length: int) -> None:
    """Platforms cut what they quote."""
    secrets = ClientSecrets()
    secrets.renewed("access", LONG_TOKEN)
    assert redact(f"no such token: {LONG_TOKEN[:length]}... sorry") == f"no such token: {MASK}... sorry"


@pytest.mark.parametrize("keep", range(0, 140, 7))
def test_a_secret_at_the_cut_is_masked(client: ClientSecrets, keep: int) -> None:
    text = f"It is {json.dumps(ODD)} and {_percent(TOKEN)}, see?" + "." * 1000

    masked = redact(text, keep=keep)

    assert len(masked) <= keep + len(MASK)
    whole = redact(text)
    if masked.endswith(MASK):
        assert whole.startswith(masked)
    else:
        assert whole[: len(masked)] == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("407 at http://canary:pass@proxy:3128.", "407 at http://***@proxy:3128."),
        ("url='http://canary:p@ss@proxy'", "url='http://***@proxy'"),
        ('{"proxy": "http:\\/\\/canary:pass@proxy"}', '{"proxy": "http:\\/\\/***@proxy"}'),
        ("?via=http%3A%2F%2Fcanary%3Apass%40proxy%2F", "?via=http%3A%2F%2F***%40proxy%2F"),
        ("see https://example.com/a@b and a@b.example", "see https://example.com/a@b and a@b.example"),
        ('{"u":"http://host","mail":"x@y"}', '{"u":"http://host","mail":"x@y"}'),
    ],
)
def test_users_and_passwords_in_urls_are_masked(text: str, masked: str) -> None:
    assert redact(text) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer error", "Authorization: Bearer ***"),
        ("{'Authorization': 'Bearer error', 'a': 1}", "{'Authorization': 'Bearer ***', 'a': 1}"),
        ('{"authorization": "Basic YTpi"}', '{"authorization": "Basic ***"}'),
        ("(b'X-Api-Key', b'short')", "(b'X-Api-Key', b'***')"),
        ("Proxy-Authorization: Basic YTpi\r\n", "Proxy-Authorization: Basic ***\r\n"),
        ('{"access_token": "error", "expires_in": 5}', '{"access_token": "***", "expires_in": 5}'),
        ("grant_type=x&client_secret=abc&a=b", "grant_type=x&client_secret=***&a=b"),
        ("X-OCP-PERSONAL-ACCESS-TOKEN: pat", "X-OCP-PERSONAL-ACCESS-TOKEN: ***"),
        ("WWW-Authenticate: Bearer error", "WWW-Authenticate: Bearer error"),
        ("an authorization error: the access_token is missing", "an authorization error: the access_token is missing"),
    ],
)
def test_what_can_only_be_a_secret_is_masked_where_it_stands(text: str, masked: str) -> None:
    assert redact(text) == masked


def test_whatever_looks_like_a_signed_token_is_masked() -> None:
    assert redact("got eyJhbGciOiJub25lIn0.eyJzdWIiOiJjYW5hcnkifQ.c2ln, why?") == f"got {MASK}, why?"


@pytest.mark.parametrize("word", ["error", "unauthorized", "x", ""])
def test_a_short_token_does_not_mask_a_word_everywhere(word: str) -> None:
    """A broken token endpoint can answer anything, ``{"access_token": "error"}`` too."""
    secrets = ClientSecrets()
    secrets.renewed("access", word)
    assert redact(f"an error: {word}, unauthorized") == f"an error: {word}, unauthorized"


@pytest.mark.parametrize("word", ["abcd", "", "airflow", "Airflow"])
def test_a_short_password_does_not_either(word: str) -> None:
    secrets = ClientSecrets([word])
    secrets.hold()
    assert redact(f"abcd and airflow and Airflow {word}") == f"abcd and airflow and Airflow {word}"


def test_the_current_and_the_previous_token_are_masked() -> None:
    secrets = ClientSecrets()
    tokens = [f"canary-token-number-{number:06}" for number in range(4)]
    for token in tokens:
        secrets.renewed("access", token)
    secrets.renewed("refresh", "canary-refresh-token-1")

    assert redact(tokens[3]) == MASK
    assert redact(tokens[2]) == MASK
    assert redact("canary-refresh-token-1") == MASK
    assert redact(f"x {tokens[3]} {tokens[2]}") == f"x {MASK} {MASK}"


def test_ten_thousand_renewals_cost_nothing_lasting() -> None:
    secrets = ClientSecrets(["canary-password"])
    secrets.hold()
    sizes = []
    for number in range(10_000):
        secrets.renewed("access", f"canary-{number:010}-" + "x" * 100)
        secrets.renewed("refresh", f"canary-{number:010}-" + "y" * 100)
        if number % 1000 == 999:
            sizes.append(redaction._registry.size())

    assert set(sizes) == {sizes[0]}
    # Its own, and those that are still masked for a while.
    assert sizes[0][0] == 1 + 4 + limits.RETIRED_SECRETS


def test_large_tokens_are_forgotten_sooner() -> None:
    secrets = ClientSecrets()
    for number in range(200):
        secrets.renewed("access", f"canary-{number:010}-" + "x" * limits.TOKEN)
    assert redaction._registry.size()[0] <= 2 + limits.RETIRED_CHARACTERS // limits.TOKEN


def test_the_same_token_again_is_no_new_one() -> None:
    secrets = ClientSecrets()
    secrets.renewed("access", "canary-first-token")
    for _ in range(3):
        secrets.renewed("access", "canary-second-token")
    assert secrets._tokens["access"] == ("canary-second-token", "canary-first-token")


def test_secrets_of_a_closed_client_are_masked_for_a_while() -> None:
    secrets = ClientSecrets(["canary-password"])
    secrets.hold()
    secrets.renewed("access", "canary-token-of-it")
    secrets.release()
    secrets.release()
    assert redact("canary-password canary-token-of-it") == f"{MASK} {MASK}"

    for number in range(limits.RETIRED_SECRETS):
        other = ClientSecrets([f"canary-of-another-{number:04}"])
        other.hold()
        other.release()
    assert redact("canary-password") == "canary-password"
    assert redact(f"canary-of-another-{limits.RETIRED_SECRETS - 1:04}") == MASK


def test_a_client_that_is_used_again_is_masked_again() -> None:
    secrets = ClientSecrets(["canary-password"])
    secrets.renewed("access", "canary-token-of-it")
    secrets.release()
    for number in range(limits.RETIRED_SECRETS):
        ClientSecrets().renewed("access", f"canary-of-another-{number:06}")
    gc.collect()
    secrets.hold()
    assert redact("canary-password canary-token-of-it") == f"{MASK} {MASK}"


def test_a_secret_of_two_clients_stays_as_long_as_one_has_it() -> None:
    clients = [ClientSecrets(["canary-password"]) for _ in range(3)]
    for client in clients:
        client.hold()
    for client in clients[:2]:
        client.release()
    for number in range(2 * limits.RETIRED_SECRETS):
        other = ClientSecrets([f"canary-of-another-{number:04}"])
        other.hold()
        other.release()
    assert redact("canary-password") == MASK


def test_a_client_that_nobody_closed_is_forgotten() -> None:
    secrets = ClientSecrets(["canary-password"])
    secrets.hold()
    del secrets
    gc.collect()
    assert redaction._registry._used == {}


def test_threads_do_not_disturb_one_another() -> None:
    problems: list[BaseException] = []

    def work(name: int) -> None:
        try:
            secrets = ClientSecrets([f"canary-password-{name}"])
            for number in range(200):
                secrets.renewed("access", f"canary-{name}-{number:010}-xxxxxxxx")
                assert redact(f"canary-password-{name} canary-{name}-{number:010}-xxxxxxxx") == f"{MASK} {MASK}"
            secrets.release()
        except BaseException as e:
            problems.append(e)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert redaction._registry._used == {}
    assert redaction._registry.size()[0] == limits.RETIRED_SECRETS


def test_representations_show_nothing(client: ClientSecrets) -> None:
    assert "canary" not in repr(client)
    assert "canary" not in str(vars(redaction._registry).keys())


def test_airflow_gets_the_fixed_secrets_alone() -> None:
    secrets = ClientSecrets(["canary/&", "canaryword", "abcd", ""])
    secrets.renewed("access", TOKEN)
    found = secrets.for_airflow()
    assert found == ["canary/&", "canary%2F%26", "canary/%26", "canary/&amp;", "canaryword"]


@pytest.mark.parametrize(
    "text",
    [
        "://" * 100_000,
        "://" + "a" * 300_000,
        "http://a:b" * 30_000,
        "eyJ" * 100_000,
        "eyJaaaaaaaaaaa." * 20_000,
        "%41" * 100_000,
        "\\u0041" * 50_000,
        "&#65;" * 60_000,
        "&" * 300_000,
        "authorization" * 25_000,
        "authorization: bearer " * 14_000,
        "\\" * 300_000,
    ],
    ids=lambda text: text[:12],
)
def test_hostile_text_takes_no_time(text: str, client: ClientSecrets) -> None:
    """Nothing here goes back over the text: what takes the square of its length would not come back for hours."""
    assert isinstance(redact(text), str)
