"""Where our application's JWT may go, and the key that signs it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sessions_app.telephony.vonage.client import load_private_key, trusted_region

from .keys import ec_pem, pem, public_pem, rsa_key, rsa_pem

LABELS = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\Z")
PIECES = st.sampled_from(
    [
        "https://",
        "http://",
        "//",
        ":",
        "@",
        "/",
        "\\",
        "?",
        "#",
        ".",
        "-",
        "%",
        "%2e",
        "%40",
        "api",
        "api-eu-3",
        "evil",
        "evil.org",
        "vonage",
        "nexmo",
        "vonage.com",
        "nexmo.com",
        ".com",
        "VONAGE.COM",
        "443",
        ":443",
        "user:pw@",
        "127.0.0.1",
        "[::1]",
        "。",
        "ｖ",
        "\u212a",
        " ",
        "\t",
        "\r\n",
        "\x00",
    ]
)


def is_vonages(host: str | None) -> bool:
    labels = (host or "").split(".")
    return labels[-2:] in (["vonage", "com"], ["nexmo", "com"]) and all(labels)


@pytest.mark.parametrize(
    "url",
    [
        "https://api-us-3.vonage.com",
        "https://api-ap-4.vonage.com",
        "https://api-sg-1.nexmo.com",
        "https://api.nexmo.com",
        "https://vonage.com",
    ],
)
def test_vonages_own_hosts_are_trusted(url: str) -> None:
    assert trusted_region(url) == url
    assert trusted_region(url + "/") == url
    assert trusted_region(url.upper()) == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "api.vonage.com",
        "//api.vonage.com",
        "http://api.vonage.com",
        "wss://api.vonage.com",
        "https://evilvonage.com",
        "https://evil-vonage.com",
        "https://vonage.com.evil.org",
        "https://vonage.co",
        "https://com",
        "https://evil.org/vonage.com",
        "https://evil.org?vonage.com",
        "https://evil.org#vonage.com",
        "https://evil.org#.vonage.com",
        "https://evil.org\\.vonage.com",
        "https://evil.org\\@vonage.com",
        "https://vonage.com@evil.org",
        "https://user:pw@api.vonage.com",
        "https://@api.vonage.com",
        "https://api.vonage.com:443",
        "https://api.vonage.com:8443",
        "https://api.vonage.com:",
        "https://api.vonage.com.",
        "https://.vonage.com",
        "https://api..vonage.com",
        "https://api.vonage.com/v1",
        "https://api.vonage.com/?x=1",
        "https://api.vonage.com\n",
        " https://api.vonage.com",
        "https://api.vonage.com%2eevil.org",
        "https://api.ｖonage.com",
        "https://api。vonage.com",
        "https://\u212a.vonage.com",
        "https://" + "a" * 64 + ".vonage.com",
        "https://" + "a." * 200 + "vonage.com",
    ],
)
def test_everything_else_is_not(url: str | None) -> None:
    assert trusted_region(url) is None


@settings(deadline=None)
@given(st.lists(LABELS, max_size=4), st.sampled_from(["vonage.com", "nexmo.com"]))
def test_every_plain_host_under_vonages_domains_is_trusted(labels: list[str], domain: str) -> None:
    url = "https://" + ".".join([*labels, domain])
    assert trusted_region(url) == url


@settings(deadline=None)
@given(st.lists(LABELS, min_size=1, max_size=4))
def test_no_other_host_is_trusted(labels: list[str]) -> None:
    host = ".".join(labels)
    if not is_vonages(host):
        assert trusted_region(f"https://{host}") is None
    assert trusted_region(f"https://{host}.org") is None
    assert trusted_region(f"https://{host}vonage.com") is None


@settings(deadline=None, max_examples=1000)
@given(st.lists(PIECES, max_size=8).map("".join) | st.text())
@example("https://api.vonage.com")
def test_what_is_trusted_is_a_vonage_host_to_every_reader_of_addresses(url: str) -> None:
    base = trusted_region(url)
    if base is None:
        return
    for text in (base, url):
        plain = urlsplit(text)
        assert plain.scheme == "https"
        assert is_vonages(plain.hostname)
        assert plain.port is None and plain.username is None
        assert httpx.URL(text).host == plain.hostname
    assert not urlsplit(base).path


@pytest.mark.parametrize(
    "mangle",
    [
        lambda text: text,
        lambda text: text.strip(),
        lambda text: text.replace("\n", "\\n"),
        lambda text: text.replace("\n", "\\r\\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: '"' + text.replace("\n", "\\n") + '"',
        lambda text: f"\n  '{text}'  \n",
    ],
    ids=["plain", "stripped", "literal n", "literal rn", "crlf", "quoted", "padded"],
)
def test_a_key_is_mended_from_what_environments_do_to_it(mangle: object) -> None:
    assert callable(mangle)
    assert load_private_key(mangle(rsa_pem())) == rsa_pem()


def test_both_forms_of_rsa_keys_sign() -> None:
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        loaded = load_private_key(pem(rsa_key(), form))
        token = jwt.encode({"a": 1}, loaded, algorithm="RS256")
        assert jwt.decode(token, public_pem(), algorithms=["RS256"]) == {"a": 1}


def test_a_key_is_read_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "private.key").write_text(rsa_pem())
    assert load_private_key(str(tmp_path / "private.key")) == rsa_pem()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_private_key("~/private.key") == rsa_pem()


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("", "read nothing"),
        ("  ", "read nothing"),
        ("/no/such/file.key", "No such file"),
        ("/", "Is a directory"),
        ("x" * 5000, "File name too long"),
        ("a\x00b", "readable file"),
        ("~nobody-by-that-name/x", "readable file"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----", "no whole private key"),
        ("-----BEGIN PRIVATE KEY-----", "no whole private key"),
    ],
)
def test_what_is_no_key_is_told_with_what_was_wanted(value: str, read: str) -> None:
    with pytest.raises(ValueError, match=f"{read}.*wanted the application's RSA private key"):
        load_private_key(value)


def test_keys_of_the_wrong_kind_are_told_apart() -> None:
    wrong = {
        "no whole private key": public_pem(),
        "not RSA": ec_pem(),
        "locked by a password": pem(rsa_key(), password=b"secret"),
        "1024 bits": pem(rsa_key(1024)),
    }
    for read, text in wrong.items():
        with pytest.raises(ValueError, match=read):
            load_private_key(text)


def test_no_error_repeats_the_value(tmp_path: Path) -> None:
    body = rsa_pem().splitlines()[5]
    binary = tmp_path / "key.der"
    binary.write_bytes(b"\x00\xff" + body.encode())
    for value in (body, f"-----BEGIN PRIVATE KEY-----\n{body}", str(binary), ec_pem()):
        with pytest.raises(ValueError, match="wanted") as caught:
            load_private_key(value)
        assert body not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
