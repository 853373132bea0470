"""Mail addresses and domain names, as people type them and as strangers abuse them."""

import pytest

from automx.address import (
    EmailAddress,
    expand,
    expand_url,
    fill_in,
    fill_in_url,
    parse_domain,
    parse_host,
    unicode_domain,
)
from automx.errors import AddressError


@pytest.mark.parametrize(
    ("typed", "local_part", "domain"),
    [
        ("alice@example.com", "alice", "example.com"),
        ("Alice@EXAMPLE.com", "Alice", "example.com"),
        ("  alice@example.com ", "alice", "example.com"),
        ("o'neil+a=b&c@example.com", "o'neil+a=b&c", "example.com"),
        ("a.b.c@example.com", "a.b.c", "example.com"),
        ("a" * 64 + "@example.com", "a" * 64, "example.com"),
        ("ju\u0308rgen@example.com", "j\u00fcrgen", "example.com"),
        ("jürgen@MÜLLER.de", "jürgen", "xn--mller-kva.de"),
        ("alice@xn--mller-kva.de", "alice", "xn--mller-kva.de"),
        ("00123@example.com.", "00123", "example.com"),
        ("alice@_test.example", "alice", "_test.example"),
        ("alice@faß.de", "alice", "xn--fa-hia.de"),
    ],
)
def test_an_address_keeps_its_local_part_and_gets_an_a_label(
    typed: str, local_part: str, domain: str
) -> None:
    assert EmailAddress.parse(typed) == EmailAddress(local_part, domain)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "alice",
        "@",
        "alice@",
        "@example.com",
        "a\u037eb@example.com",  # its normal form is "a;b"
        "alice@@example.com",
        "alice@example.com@example.org",
        "ali ce@example.com",
        "alice@exam ple.com",
        "alice\n@example.com",
        "alice\x00@example.com",
        "alice\u2028@example.com",
        "alice\u202e@example.com",
        "alice\ud800@example.com",
        '"alice"@example.com',
        "<alice>@example.com",
        "alice,bob@example.com",
        "['alice@example.com']",
        "alice@example.com,bob@example.com",
        ".alice@example.com",
        "alice.@example.com",
        "al..ice@example.com",
        "../alice@example.com",
        "jürgen..x@example.com",
        "alice\u00b9@example.com",
        "\uff41lice@example.com",
        "a" * 65 + "@example.com",
        "\u00e4" * 33 + "@example.com",
        "alice@[127.0.0.1]",
        "alice@-example.com",
        "alice@example-.com",
        "alice@example..com",
        "alice@.example.com",
        "alice@exa%mple.com",
        "alice@*.example.com",
        "alice@xn--zzzzzzzz99999.com",
        "alice@xn--.com",
        "alice@" + "a" * 64 + ".com",
        "a" * 10_000 + "@example.com",
        "alice@" + "a." * 5_000 + "com",
        "alice@\u2603\u202e.com",
    ],
)
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(AddressError):
        EmailAddress.parse(typed)


def test_a_refused_address_is_not_repeated_in_the_error() -> None:
    with pytest.raises(AddressError) as caught:
        EmailAddress.parse("<script>@example.com")
    assert "script" not in str(caught.value)


def test_a_domain_is_found_in_both_of_its_forms() -> None:
    assert parse_domain("Bücher.Example.") == parse_domain("xn--bcher-kva.example")
    assert unicode_domain("xn--bcher-kva.example") == "bücher.example"
    assert unicode_domain("example.com") == "example.com"


@pytest.mark.parametrize(
    "name",
    [
        "\u00ad" * 600 + "example.com",
        "\u0660" * 20_000,
        "é." * 10_000,
        "a" + "\u0301\u0316" * 10_000,
    ],
    ids=["characters that are dropped", "one label", "many labels", "marks in another order"],
)
def test_a_name_of_any_length_takes_no_time(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("idna.encode", lambda *_, **__: pytest.fail("it is mapped"))
    with pytest.raises(AddressError):
        parse_domain(name)
    with pytest.raises(AddressError):
        parse_host(name)


def test_placeholders_are_expanded() -> None:
    address = EmailAddress.parse("Alice@example.com")
    text = "%EMAILADDRESS% %EMAILLOCALPART% %EMAILDOMAIN% 100% %OTHER%"
    expanded = "Alice@example.com Alice example.com 100% %OTHER%"
    assert expand(text, "example.com", address) == expanded


def test_an_expanded_value_is_not_expanded_again() -> None:
    address = EmailAddress.parse("%EMAILDOMAIN%@example.com")
    assert expand("%EMAILLOCALPART%", "example.com", address) == "%EMAILDOMAIN%"


def test_without_an_address_only_the_domain_can_be_expanded() -> None:
    assert expand("mail.%EMAILDOMAIN%", "example.com", None) == "mail.example.com"
    assert expand("%EMAILLOCALPART%.%EMAILDOMAIN%", "example.com", None) is None


def test_in_a_url_the_local_part_is_written_as_a_url_needs_it() -> None:
    address = EmailAddress.parse("Jürgen/.x/?a#b%c+d&e@example.com")
    assert expand_url("https://dav.example.com/%EMAILADDRESS%/", "example.com", address) == (
        "https://dav.example.com/J%C3%BCrgen%2F.x%2F%3Fa%23b%25c+d&e@example.com/"
    )
    assert expand_url("https://%EMAILDOMAIN%/%EMAILLOCALPART%", "example.com", None) is None


@pytest.mark.parametrize(
    ("text", "without_address", "with_address"),
    [
        ("%EMAILADDRESS%", "%EMAILADDRESS%", "%EMAILADDRESS%"),
        ("x%EMAILADDRESS%", "x%EMAILADDRESS%", "xa/b@example.com"),
        ("%EMAILDOMAIN%", "example.com", "example.com"),
        ("%EMAILDOMAIN%/%EMAILLOCALPART%", "example.com/%EMAILLOCALPART%", "example.com/a/b"),
        ("%REALNAME%", "%REALNAME%", "%REALNAME%"),
        ("100%", "100%", "100%"),
    ],
)
def test_what_is_known_is_filled_in_and_the_rest_stays(
    text: str, without_address: str, with_address: str
) -> None:
    address = EmailAddress.parse("a/b@example.com")
    assert fill_in(text, "example.com", None) == without_address
    assert fill_in(text, "example.com", address) == with_address
    assert fill_in_url(f"https://h/{text}", "example.com", None) == f"https://h/{text}".replace(
        "%EMAILDOMAIN%", "example.com"
    )


def test_a_url_has_the_local_part_in_its_encoded_form() -> None:
    address = EmailAddress.parse("a/b@example.com")
    url = "https://%EMAILDOMAIN%/%EMAILLOCALPART%/%EMAILADDRESS%"
    assert fill_in_url(url, "example.com", address) == "https://example.com/a%2Fb/a%2Fb@example.com"


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Mail.Example.COM.", "mail.example.com"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
    ],
)
def test_a_host_is_a_name_or_an_ip_address(text: str, host: str) -> None:
    assert parse_host(text) == host
    assert parse_host(host) == host


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[mail.example.com]", "fe80::1%eth0", "2001:db8::1:", "::g", "1.2.3.4:5", "[::1]:5"],
)
def test_what_is_neither_a_host_name_nor_an_ip_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_host(text)
