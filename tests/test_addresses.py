"""What may be shown of an address, whatever its password; and which addresses are refused."""

from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapt import addresses
from adapt.addresses import host, is_loopback, shown
from adapt.params import InputError

PASSWORDS = st.text(st.sampled_from("abzAZ019/@#?:%&=;.,!_-+~"), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no address: a@b", "no address: a@b"),
        ("https://me:p@ss@host/x", "https://host/x"),
        ("git+ssh://token@host/x y", "git+ssh://host/x y"),
        ("s3://b/k?AWSAccessKeyId=A&part=1", "s3://b/k?AWSAccessKeyId=***&part=1"),
        ("'http://h/?sig=abc'", "'http://h/?sig=***'"),
        ("http://h/#access_token=abc", "http://h/#access_token=***"),
        ("with url: /api?token=abc", "with url: /api?token=***"),
        ("http://me:p/w@host/x http://b:1/y", "http://host/x http://b:1/y"),
        ("http://me:1/2@host/x", "http://host/x"),
        ("'http://me:p w\"x@host'", "'http://host'"),
        ("http://me:x@[::1]:80/x", "http://[::1]:80/x"),
        ("http://me:hunt", "http://***"),
        ("at http://127.0.0.1:80: refused (http://[::1])", None),
        ("http://a:80,http://b:90, mail me@x", None),
        ('{"uri": "http://host:5000", "by": "me@x"}', None),
        ("hf://datasets/owner/name@4f2a sqlite:////a/b.db s3://b/a@b models:/adapt@champion", None),
    ],
)
def test_what_is_shown(text: str, expected: str | None) -> None:
    assert shown(text) == (text if expected is None else expected)


@settings(max_examples=300)
@given(PASSWORDS, st.sampled_from(["host", "host:5000", "127.0.0.1:9", "[::1]:80", "bucket"]))
@example("12/34", "host")
@example("p://w", "host")
@example("//", "host")
def test_no_password_is_shown(password: str, where: str) -> None:
    for text in (f"http://me:{password}@{where}/path", f"store http://me:{password}@{where} away"):
        assert shown(text) == text.replace(f"me:{password}@", "")


@example("@:A")
@settings(max_examples=300)
@given(st.text(max_size=60))
def test_every_text_is_answered(text: str) -> None:
    for known in (text, f"http://{text}", f"http://me:{text}@host", f"?token={text}"):
        assert shown(shown(known)) == shown(known)
    host(f"http://{text}")
    is_loopback(f"http://{text}")


@given(PASSWORDS)
def test_an_address_with_one_reading_is_taken(password: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPT_RAY_STORAGE", f" http://me:{quote(password, safe='')}@host:80/x@y ")
        with pytest.raises(InputError, match="@ behind its first /"):
            addresses.given("ADAPT_RAY_STORAGE")
        patch.setenv("ADAPT_RAY_STORAGE", f" http://me:{quote(password, safe='')}@host:80/x ")
        assert addresses.given("ADAPT_RAY_STORAGE").endswith("@host:80/x")


@pytest.mark.parametrize("password", ["p/w", "1/2", "p@w", "p#w", "p?w", "p:w", "p%w", "p w", '"'])
@pytest.mark.parametrize("variable", addresses.VARIABLES)
def test_an_address_with_two_readings_is_refused_without_repeating_it(
    variable: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"http://me:hunter2{password}@host/x")
    with pytest.raises(InputError) as caught:
        addresses.given(variable)
    assert str(caught.value).startswith(f"{variable}: has a") and "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["", "s3://bucket/a@b", "/mnt/a b", "sqlite:////x/y.db", "http://127.0.0.1:5000/api"]
)
def test_plain_addresses_are_taken(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert addresses.given("MLFLOW_TRACKING_URI") == address


def test_hosts() -> None:
    assert host("http://me:p/w@host:80/x") == "host:80"
    assert host("http://[::1") == ""
    assert is_loopback("http://127.0.0.1:5000") and is_loopback("http://[::1]:80")
    assert not is_loopback("http://host/127.0.0.1") and not is_loopback("http://[::1")


def test_a_long_word_takes_no_time() -> None:
    """Half a megabyte without an address, and one at its end: minutes, were each letter a start."""
    text = "y" * 500_000
    assert addresses.shown(text) == text
    assert addresses.shown(f"{text}://me:hunter2@host/") == f"{text}://host/"
