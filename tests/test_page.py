"""The page for people, as it is sent; tests/test_page_browser.py looks at it in a browser."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html import escape, unescape
from itertools import product
from pathlib import Path
from urllib.parse import urljoin

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from automx.address import MAX_ADDRESS_OCTETS
from automx.database import Session, create_engine
from automx.formats import palette
from automx.seed import populate
from tests.agents import AGENTS, IPHONE
from tests.conftest import Execute
from tests.documents import golden, unversioned
from tests.processes import REPOSITORY
from tests.profiles import profile_of

TITLES = {
    "iPhone and iPad": "ios",
    "Mac": "mac",
    "Thunderbird": "thunderbird",
    "Outlook (new)": "outlook-new",
    "Outlook (classic)": "outlook",
    "Outlook for Mac": "outlook-mac",
    "Thunderbird for Android": "thunderbird-android",
    "FairEmail": "fairemail",
    "Gmail": "gmail",
    "Samsung Email": "samsung",
    "Delta Chat": "deltachat",
}
USUAL = [word for word in TITLES.values() if word != "deltachat"]


@pytest.fixture(autouse=True)
def _rows(database: Path) -> None:
    """Three providers, one with everything that a page can show, one with a directory."""
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as session:
        populate(session, json.loads(golden("page.seed.json")))
        session.commit()
    engine.dispose()


def page(client: FlaskClient, address: str | None = None, **headers: str) -> TestResponse:
    """Return the page for an address, as a browser with these headers gets it."""
    query = {} if address is None else {"address": address}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get("/", query_string=query, headers=names)


def ways(answer: TestResponse) -> list[tuple[str, bool]]:
    """Return the ways to set up mail that a page shows, and whether each is open."""
    found = re.findall(
        r'<details class="card method"( open)?>\n<summary>.*?<h3>(.*?)</h3>', answer.text
    )
    return [(TITLES[title], bool(is_open)) for is_open, title in found]


def copied(answer: TestResponse) -> list[str]:
    """Return the values that have a button to copy them."""
    values = re.findall(r'<span class="value" translate="no">(.*?)</span>', answer.text)
    return [unescape(value.replace("<wbr>", "")) for value in values]


def test_an_address_is_answered_with_all_that_there_is_to_do(client: FlaskClient) -> None:
    answer = page(client, "alice@example.com", User_Agent=IPHONE)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert unversioned(answer.text) == golden("page-known.html")


def test_the_page_may_load_nothing_from_elsewhere_and_is_kept_by_nobody(
    client: FlaskClient,
) -> None:
    for address in (None, "", "alice", "alice@example.com", "alice@unknown.example"):
        answer = page(client, address)
        assert answer.headers["Content-Security-Policy"] == (
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:;"
            " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Robots-Tag"] == "noindex"
        assert not re.search(r" style=|<style|<script(?! src=\"static/)| on[a-z]+=", answer.text)


def test_everybody_of_a_domain_gets_the_same_page(client: FlaskClient) -> None:
    alice = page(client, "alice@example.com")
    nobody = page(client, "nobody@example.com")
    assert alice.status_code == nobody.status_code == 200
    assert alice.text.replace("alice", "nobody") == nobody.text


def test_login_names_of_a_directory_are_not_told_and_it_is_not_even_asked(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = page(client, "alice@directory.example")
    assert answer.status_code == 200
    assert copied(answer) == ["imap.example.com", "993", "smtp.example.com", "465"]
    assert answer.text.count("the login name that you were given") == 2
    assert caplog.records == []


def test_servers_stand_in_the_order_in_which_people_need_them(client: FlaskClient) -> None:
    answer = page(client, "alice@example.com")
    alice = "alice@example.com"
    assert copied(answer) == [
        *("imap.example.com", "993", alice),
        *("smtp.example.com", "465", alice),
        *("https://dav.example.com/calendars/alice@example.com/", alice),
        *("imap.example.com", "4190", "alice"),
        *("alice.pop.example.com", "995", alice),
        *("smtp.example.com", "587", alice),
    ]
    assert "<dd>OAuth2, Encrypted password</dd>" in answer.text


@pytest.mark.parametrize("device", AGENTS)
def test_the_way_of_the_visitors_device_comes_first_and_is_open(
    client: FlaskClient, device: str
) -> None:
    agent, first = AGENTS[device]
    answer = page(client, "alice@example.com", User_Agent=agent)
    shown = ways(answer)
    assert shown[0] == (first, True)
    assert not any(is_open for _, is_open in shown[1:])
    assert sorted(way for way, _ in shown) == sorted(USUAL)
    assert re.findall("<h2.*?>(.*?)</h2>", answer.text)[:2] == [
        "On this device",
        "On other devices",
    ]


def test_a_device_that_nobody_knows_gets_the_usual_order(client: FlaskClient) -> None:
    answer = page(client, "alice@example.com", User_Agent="Teapot/1.0")
    assert [way for way, _ in ways(answer)] == USUAL
    assert re.findall("<h2.*?>(.*?)</h2>", answer.text)[0] == "What to do"


def test_the_setting_chooses_and_orders_the_mail_programs(make_app: Callable[..., Flask]) -> None:
    client = make_app(page_apps=("deltachat", "gmail", "thunderbird", "ios")).test_client()
    iphone = page(client, "alice@example.com", User_Agent=IPHONE)
    assert ways(iphone) == [
        ("deltachat", True),
        ("ios", False),
        ("gmail", False),
        ("thunderbird", False),
    ]
    teapot = page(client, "alice@example.com", User_Agent="Teapot/1.0")
    assert [way for way, _ in ways(teapot)] == ["deltachat", "gmail", "thunderbird", "ios"]


def test_a_setting_that_leaves_nothing_for_a_device_leaves_the_settings_to_copy(
    make_app: Callable[..., Flask],
) -> None:
    client = make_app(page_apps=("ios",)).test_client()
    answer = page(client, "alice@reading.example", User_Agent=IPHONE)
    assert answer.status_code == 200
    assert ways(answer) == []
    assert '<details class="fold" id="settings" open>' in answer.text


def test_delta_chat_is_shown_where_accounts_are_made_for_it(
    client: FlaskClient, make_app: Callable[..., Flask]
) -> None:
    assert "Delta Chat" not in page(client, "alice@example.com").text
    offering = make_app(web_endpoint="https://mail.example.com/new_email").test_client()
    assert ways(page(offering, "alice@example.com"))[-1] == ("deltachat", False)


@pytest.mark.parametrize(
    ("device", "is_open"), [("iPhone", False), ("Linux", False), ("Windows", True)]
)
def test_the_settings_are_folded_for_those_whose_program_needs_none(
    client: FlaskClient, device: str, is_open: bool
) -> None:
    text = page(client, "alice@example.com", User_Agent=AGENTS[device][0]).text
    assert f'<details class="fold" id="settings"{" open" * is_open}>' in text


def test_every_mail_program_has_a_sign_of_its_own(make_app: Callable[..., Flask]) -> None:
    client = make_app(page_apps=tuple(TITLES.values())).test_client()
    text = page(client, "alice@example.com").text
    signs = re.findall(r'<use href="#i-([a-z-]+)"/></svg><h3>', text)
    assert len(set(signs)) == len(signs) == len(TITLES)
    assert set(signs) < set(re.findall(r'<symbol id="i-([a-z-]+)"', text))


def test_people_are_sent_for_an_app_password_where_the_provider_wants_one(
    make_app: Callable[..., Flask],
) -> None:
    urls = {"1": "https://mail.example.com/app?a=1&b=2", "*": "https://others.example/"}
    client = make_app(page_app_passwords=urls).test_client()
    for address, url in (("alice@example.com", urls["1"]), ("bob@müller.example", urls["*"])):
        text = page(client, address).text
        assert f'<a href="{escape(url)}">Make an app password</a>' in text
    client = make_app(page_app_passwords={"1": urls["1"]}).test_client()
    assert "app password" not in page(client, "bob@müller.example").text


def test_every_page_links_to_imprint_and_privacy(make_app: Callable[..., Flask]) -> None:
    imprint, privacy = "https://example.com/?p=imprint&l=de", "https://example.com/privacy"
    client = make_app(page_imprint=imprint, page_privacy=privacy).test_client()
    html = {"Accept": "text/html"}
    for path in ("/", "/?address=a", "/?t=x", "/mobileconfig?emailaddress=a", "/nothing/here"):
        text = client.get(path, headers=html).text
        assert f'<a href="{escape(imprint)}">Imprint</a>' in text
        assert f'<a href="{privacy}">Privacy</a>' in text


# Paths that a browser asks for in vain: the status, what the page says, what is in the field.
IN_VAIN = [
    ("/mobileconfig?emailaddress=a@b.example", 404, "the domain b.example.", "a@b.example"),
    ("/mobileconfig/?email=a@m%C3%BCller.test", 404, "the domain müller.test.", "a@müller.test"),
    ("/email.mobileconfig?email=alice", 400, "This is not a whole mail address.", "alice"),
    ("/mobileconfig", 400, "This link is damaged.", ""),
    ("/mobileconfig?emailaddress=a@b.c&emailaddress=d@e.f", 400, "This link is damaged.", ""),
    ("/mobileconfig/?emailaddress=alice@reading.example", 500, "settings of this domain are", ""),
    ("/no/such/page", 404, "There is no page at this link.", ""),
]  # fmt: skip


def provider_shown(answer: TestResponse) -> tuple[str, str]:
    """Return the text of the logo at the top of a page, and the color of its style sheet."""
    logo = re.search(r'<img src="[^"]*\blogo\b[^"]*" [^>]*alt="([^"]*)">', answer.text)
    color = re.search(r'rel="stylesheet" href="[^"]*&amp;color=([^"]*)"', answer.text)
    assert color
    return logo[1] if logo else "", color[1]


@pytest.mark.parametrize(("path", "status", "said", "typed"), IN_VAIN)
def test_a_browser_that_asks_in_vain_gets_the_page_and_a_program_a_line(
    client: FlaskClient, path: str, status: int, said: str, typed: str
) -> None:
    line = client.get(path, headers={"Accept": "*/*"})
    assert (line.status_code, line.content_type) == (status, "text/plain; charset=utf-8")
    answer = client.get(path, headers={"Accept": "text/html,*/*;q=0.8", "Host": "example.com"})
    assert (answer.status_code, answer.content_type) == (status, "text/html; charset=utf-8")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src")
    assert said in answer.text
    assert escaped_value(answer) == typed
    assert provider_shown(answer) == ("Example &amp; Sons", "1a5fb4")
    folder = path.partition("?")[0].rpartition("/")[0]
    for url in re.findall(r'(?:href|src)="((?:\.\./)*(?:static|logo)[^"]*)"', answer.text):
        assert client.get(urljoin(f"{folder}/", unescape(url))).status_code == 200


@pytest.mark.parametrize("query", ["t=unknown", "t=a&t=b", "t="])
def test_an_error_of_a_qr_code_has_the_logo_of_the_host_names_provider(
    client: FlaskClient, query: str
) -> None:
    answer = client.get(f"/new_email?{query}", headers={"Host": "autoconfig.example.com"})
    assert answer.status_code in {400, 403}
    assert provider_shown(answer) == ("Example &amp; Sons", "1a5fb4")
    assert '<a href="mailto:help@example.com">' in answer.text  # who has a new code
    for url in re.findall(r'(?:href|src)="(\?(?:style|logo)[^"]*)"', answer.text):
        assert client.get(f"/new_email{unescape(url)}").status_code == 200
    strange = client.get(f"/new_email?{query}", headers={"Host": "mail.provider.test"})
    assert provider_shown(strange) == ("", "")


def test_a_failure_is_told_even_if_the_provider_cannot_be_looked_up(
    client: FlaskClient, database: Path
) -> None:
    database.unlink()
    for path in ("/mobileconfig?emailaddress=alice", "/no/such/page"):
        answer = client.get(path, headers={"Accept": "text/html", "Host": "new.example"})
        assert answer.status_code == (404 if path == "/no/such/page" else 400)
        assert answer.content_type == "text/html; charset=utf-8"
        assert provider_shown(answer) == ("", "")


def test_a_deep_path_makes_no_large_page(client: FlaskClient) -> None:
    answer = client.get("/a" * 1000, headers={"Accept": "text/html"})
    assert (answer.status_code, answer.text) == (404, "There is nothing at this address.\n")


def test_a_profile_that_a_form_asks_for_in_vain_is_told_on_a_page(client: FlaskClient) -> None:
    form = {"emailaddress": "a@unknown.example", "password": "hunter2"}
    answer = client.post("/mobileconfig", data=form, headers={"Accept": "text/html"})
    assert answer.status_code == 404
    assert "We do not know the domain unknown.example." in answer.text
    assert "hunter2" not in answer.text
    answer = client.post("/mobileconfig", data={"x": "y" * 70_000}, headers={"Accept": "text/html"})
    assert (answer.status_code, answer.text) == (413, "The request is too large.\n")


def test_a_domain_without_an_outgoing_server_has_no_profile(client: FlaskClient) -> None:
    answer = page(client, "alice@reading.example", User_Agent=IPHONE)
    assert [way for way, _ in ways(answer)] == USUAL[2:]
    assert "mobileconfig" not in answer.text


@pytest.mark.parametrize("address", ["jürgen@müller.example", "jürgen@xn--mller-kva.example"])
def test_both_spellings_of_a_domain_lead_to_the_same_page(
    client: FlaskClient, address: str
) -> None:
    answer = page(client, address)
    assert answer.status_code == 200
    assert 'value="jürgen@müller.example"' in answer.text
    assert "mobileconfig/?emailaddress=j%C3%BCrgen@xn--mller-kva.example" in answer.text
    assert "jürgen@xn--mller-kva.example" in copied(answer)


def test_an_unknown_domain_is_named_in_a_friendly_way(client: FlaskClient) -> None:
    for address in ("alice@xn--mller-kva.test", "alice@müller.test"):
        answer = page(client, address)
        assert answer.status_code == 404
        assert "We do not know the domain müller.test." in answer.text
        assert 'aria-invalid="true" aria-describedby="problem"' in answer.text
        assert ways(answer) == []


HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>@example.com",
    "alice@example.com\"onfocus=alert(1) autofocus=\"",
    "'\"<>&@exa<b>mple.com",
    "alice@@example.com",
    "alice",
    "@",
    "a@" + "x" * 5000,
    "alice@example.com\r\nSet-Cookie: a=b",
    "\x00",
    "\ufffe@example.com",
    "alice@xn--\x7f.com",
]  # fmt: skip


@pytest.mark.parametrize("address", HOSTILE)
def test_what_is_no_address_is_shown_as_it_was_typed_and_does_nothing(
    client: FlaskClient, address: str
) -> None:
    answer = page(client, address)
    assert answer.status_code == 400
    assert "This is not a whole mail address. It should look like name@example.com" in answer.text
    rest = answer.text.replace(escaped_value(answer), "")
    assert not re.search(r"<img src=x|<script>|<b>", rest)
    assert unescape(escaped_value(answer)) == address.strip()[:MAX_ADDRESS_OCTETS]
    assert not re.search("[<>\"']", escaped_value(answer))
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("sign", ["a", "'", "&", "é", "\N{SPARKLES}"])
def test_a_page_is_not_larger_for_a_longer_text_than_for_any_address(
    client: FlaskClient, sign: str
) -> None:
    longest = page(client, sign * MAX_ADDRESS_OCTETS)
    assert longest.status_code == 400
    assert len(page(client, sign * 10_000).data) == len(longest.data)


def escaped_value(answer: TestResponse) -> str:
    """Return what stands in the field, as it is written in the page."""
    found = re.search(r' maxlength="320" value="([^"]*)" placeholder=', answer.text)
    assert found
    return found[1]


def test_a_legal_address_with_signs_of_html_is_escaped_everywhere(client: FlaskClient) -> None:
    answer = page(client, "o'neil&sons{{7*7}}@example.com")
    assert answer.status_code == 200
    assert "o'neil" not in answer.text
    assert "&sons" not in answer.text
    assert "{{7*7}}" in answer.text
    assert "o'neil&sons{{7*7}}@example.com" in copied(answer)


def test_an_address_that_is_given_twice_is_refused_in_a_page(client: FlaskClient) -> None:
    answer = client.get("/?address=alice@example.com&address=bob@example.com")
    assert answer.status_code == 400
    assert "This link is damaged. Please type your address." in answer.text


def test_rows_that_cannot_be_served_are_told_in_a_page_and_explained_in_the_log(
    client: FlaskClient, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    execute("UPDATE domain SET provider_id = 99 WHERE name = 'example.com'")
    answer = page(client, "alice@example.com")
    assert answer.status_code == 500
    assert "The settings of this domain are incomplete." in answer.text
    (record,) = caplog.records
    assert "there is no such provider" in record.getMessage()


def test_the_provider_of_the_host_name_is_shown_before_anything_is_typed(
    client: FlaskClient,
) -> None:
    for host in ("autoconfig.example.com", "example.com", "autodiscover.example.com"):
        answer = page(client, Host=host)
        assert '<img src="logo?domain=example.com" width="220" height="55"' in answer.text
        assert "&amp;color=1a5fb4" in answer.text
        assert '<a href="https://mail.example.com/">' in answer.text
        assert 'placeholder="name@example.com"' in answer.text
    answer = page(client, Host="autoconfig.xn--mller-kva.example")
    assert '<p class="provider">Sun Mail</p>' in answer.text
    assert 'placeholder="name@müller.example"' in answer.text


def test_a_host_name_that_belongs_to_no_domain_shows_no_provider(client: FlaskClient) -> None:
    answer = page(client, Host="mail.provider.test")
    assert answer.status_code == 200
    assert 'class="provider"' not in answer.text
    assert "Example" not in answer.text


def test_the_logo_is_that_of_the_address_not_of_the_host(client: FlaskClient) -> None:
    answer = client.get("/logo?domain=example.com", headers={"Host": "mail.provider.test"})
    assert (answer.status_code, answer.content_type) == (200, "image/svg+xml")
    assert client.get("/logo?domain=plain.test").status_code == 404
    assert client.get("/logo?domain=a..b").status_code == 400


def test_the_language_is_the_visitors(client: FlaskClient) -> None:
    wanted = {
        "": "en",
        "de": "de",
        "de-AT,de;q=0.8,en;q=0.5": "de",
        "pl,de;q=0.7,en;q=0.3": "de",
        "pl": "en",
        "fr-CA": "fr",
        "es-419,en;q=0.8": "es",
        "it": "it",
        "en-GB,de": "en",
        "de-CH,en;q=0.9": "de",
        "de;q=0,pl": "en",
        "*": "en",
        "<script>": "en",
    }
    for accepted, language in wanted.items():
        answer = page(client, "alice@example.com", Accept_Language=accepted)
        assert answer.headers["Content-Language"] == language
        assert f'<html lang="{language}" dir="ltr">' in answer.text
        title = {
            "en": "Set up your mail",
            "de": "E-Mail einrichten",
            "es": "Configurar su correo",
            "fr": "Configurer votre messagerie",
            "it": "Configura la tua posta",
        }[language]
        assert f"<h1>{title}</h1>" in answer.text
    german = page(client, "alice@example.com", Accept_Language="de").text
    assert ">E-Mail auf dem Handy</a>" in german
    assert "Mail on your" not in german


def test_a_chosen_language_stays_chosen(client: FlaskClient) -> None:
    answer = client.get(
        "/?address=alice%2Bx@example.com&lang=de", headers={"Accept-Language": "en"}
    )
    assert '<html lang="de"' in answer.text
    assert '<input type="hidden" name="lang" value="de">' in answer.text
    assert '<a href="?address=alice%2Bx%40example.com&amp;lang=en" hreflang="en"' in answer.text
    assert '<html lang="en"' in client.get("/?lang=xx").text
    assert '<html lang="en"' in client.get("/?lang=../../etc").text


def test_files_are_kept_for_ever_under_the_url_of_their_version(client: FlaskClient) -> None:
    text = unescape(page(client, "alice@example.com").text)
    style, script = re.findall(r'="(static/page\.[^"]+)"', text)
    for url, kind in ((style, "text/css"), (script, "text/javascript")):
        answer = client.get(f"/{url}")
        assert (answer.status_code, answer.content_type) == (200, f"{kind}; charset=utf-8")
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        old = client.get("/" + url.replace("v=", "v=0"))
        assert (old.data, old.headers["Cache-Control"]) == (answer.data, "no-cache")
    assert ":root{--accent:#1a5fb4;--brand:#1a5fb4;" in client.get(f"/{style}").text


@pytest.mark.parametrize("color", ["red", "fff", "1a5fb4}", "1A5FB4", "1a5fb4;x", "#1a5fb4"])
def test_only_colors_reach_the_style_sheet(client: FlaskClient, color: str) -> None:
    answer = client.get("/static/page.css", query_string={"color": color})
    assert (answer.status_code, answer.text) == (400, "The argument color is no colour.\n")


def test_any_color_of_a_provider_can_be_read() -> None:
    backgrounds = {"light": ("#f6f4ef", "#ffffff"), "dark": ("#14181c", "#1d2328")}
    sheet = (REPOSITORY / "automx" / "static" / "page.css").read_text()
    for color in (color for colors in backgrounds.values() for color in colors):
        assert f": {color.replace('#ffffff', '#fff')};" in sheet
    for red, green, blue in product(range(0, 256, 51), repeat=3):
        brand = f"#{red:02x}{green:02x}{blue:02x}"
        light, used, text, dark = re.findall("#[0-9a-f]{6}", palette.style(brand))
        assert used == brand
        assert palette.contrast(text, brand) >= 4.5
        for accent, theme in ((light, "light"), (dark, "dark")):
            assert all(palette.contrast(accent, back) >= 4.5 for back in backgrounds[theme])


def test_a_color_that_can_be_read_stays_as_it_is() -> None:
    assert palette.contrast("#000000", "#ffffff") == 21
    assert palette.style("#1A5FB4").startswith(":root{--accent:#1a5fb4;--brand:#1a5fb4;")
    assert palette.style("") == palette.style(palette.DEFAULT_COLOR)


def test_a_page_without_language_and_title_is_shown_in_each_language(
    client: FlaskClient, execute: Execute
) -> None:
    execute(
        "DELETE FROM documentation;"
        "INSERT INTO documentation VALUES (1, 1, 'https://help.example.com/', '', '');"
        "INSERT INTO documentation VALUES (2, 1, 'https://help.example.com/de', 'de', 'Hilfe');"
        "INSERT INTO documentation VALUES (3, 1, 'https://help.example.com/en', 'en', 'Help')"
    )
    link = '<li><a href="https://help.example.com/">https://help.example.com/</a></li>'
    for language, own, other in (("de", ">Hilfe<", ">Help<"), ("en", ">Help<", ">Hilfe<")):
        text = page(client, "alice@example.com", Accept_Language=language).text
        assert link in text
        assert f'lang="{language}"{own}' in text
        assert f'hreflang="{language}"' in text
        assert other not in text.replace("<h2", "")


def test_qr_codes_are_made_for_known_domains_only(client: FlaskClient) -> None:
    answer = client.get("/mobileconfig.svg?emailaddress=alice@example.com")
    assert (answer.status_code, answer.content_type) == (200, "image/svg+xml")
    assert answer.headers["Cache-Control"] == "no-store"
    url = "http://localhost/mobileconfig/?emailaddress=alice@example.com"
    assert f"<title>{url}</title>" in answer.text
    assert client.get("/mobileconfig.svg?emailaddress=alice@unknown.test").status_code == 404
    assert client.get("/mobileconfig.svg?emailaddress=alice").status_code == 400
    assert client.get("/mobileconfig.svg").status_code == 400


def test_the_link_to_the_profile_leads_to_the_profile(client: FlaskClient) -> None:
    text = unescape(page(client, "o'neil&sons@example.com").text)
    whole, mail_only = dict.fromkeys(re.findall(r'href="(mobileconfig/[^"]+)"', text))
    for url, types in ((whole, ["mail.managed", "caldav.account"]), (mail_only, ["mail.managed"])):
        profile = profile_of(client.get(f"/{url}"))
        content = profile["PayloadContent"]
        assert [payload["PayloadType"] for payload in content] == [f"com.apple.{t}" for t in types]
        assert content[0]["EmailAddress"] == "o'neil&sons@example.com"


def test_a_choice_of_profiles_is_offered_only_where_there_is_one(
    client: FlaskClient, execute: Execute
) -> None:
    assert "only=mail" in page(client, "alice@example.com").text
    execute("DELETE FROM davserver_domain")
    assert "only=mail" not in page(client, "alice@example.com").text


def test_a_prefix_that_a_proxy_removes_is_not_missed(make_app: Callable[..., Flask]) -> None:
    """All links are relative to the page, and the QR code knows the prefix."""
    client = make_app(proxy_count=1).test_client()
    headers = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "example.com",
        "X-Forwarded-Prefix": "/automx",
    }
    answer = client.get("/?address=alice@example.com", headers=headers)
    links = re.findall(r' (?:href|src|action)="([^"]*)"', answer.text)
    assert [link for link in links if link.startswith("/")] == []
    answer = client.get("/mobileconfig.svg?emailaddress=alice@example.com", headers=headers)
    url = "https://example.com/automx/mobileconfig/?emailaddress=alice@example.com"
    assert f"<title>{url}</title>" in answer.text


# Host, X-Forwarded-Proto and -Prefix, the settings, and where the code of the profile leads.
CODES = [
    ("autoconfig.example.com", "http", "", {}, "https://autoconfig.example.com/"),
    ("autoconfig.example.com", "https", "", {}, "https://autoconfig.example.com/"),
    ("autoconfig.example.com:443", "http", "", {}, "https://autoconfig.example.com/"),
    ("autoconfig.example.com:80", "http", "", {}, "https://autoconfig.example.com/"),
    ("AutoConfig.Example.com", "", "", {}, "https://autoconfig.example.com/"),
    ("example.com", "http", "/automx", {}, "https://example.com/automx/"),
    # The certificate of the public host is known to be there.
    ("autoconfig.example.com", "http", "", {"public_host": "mx.test"}, "https://mx.test/"),
    ("localhost", "http", "/a", {"public_host": "mx.test"}, "https://mx.test/a/"),
    (
        "autoconfig.example.com",
        "http",
        "",
        {"web_endpoint": "https://mx.test:8443/new"},
        "https://mx.test:8443/",
    ),
    (
        "autoconfig.example.com",
        "http",
        "",
        {"web_endpoint": "http://mx.test/new"},
        "https://autoconfig.example.com/",
    ),
    (
        "autoconfig.example.com",
        "https",
        "",
        {"public_host": "mx.test"},
        "https://autoconfig.example.com/",
    ),
    ("autoconfig.example.com:8443", "https", "", {}, "https://autoconfig.example.com:8443/"),
    # Names and ports of one's own machine or network.
    ("localhost:4243", "http", "", {}, "http://localhost:4243/"),
    ("automx.localhost", "http", "", {}, "http://automx.localhost/"),
    ("192.0.2.1", "http", "", {}, "http://192.0.2.1/"),
    ("[2001:db8::1]:80", "http", "", {}, "http://[2001:db8::1]/"),
    ("automx", "http", "", {}, "http://automx/"),
    ("automx.example.com:4243", "http", "", {}, "http://automx.example.com:4243/"),
]


@pytest.mark.parametrize(("host", "scheme", "prefix", "settings", "expected"), CODES)
def test_the_code_of_a_profile_leads_to_https_whatever_a_proxy_calls_the_request(
    make_app: Callable[..., Flask],
    host: str,
    scheme: str,
    prefix: str,
    settings: dict[str, str],
    expected: str,
) -> None:
    client = make_app(proxy_count=1, **settings).test_client()
    headers = {"Host": host, "X-Forwarded-Proto": scheme, "X-Forwarded-Prefix": prefix}
    answer = client.get("/mobileconfig.svg?emailaddress=alice@example.com", headers=headers)
    url = f"{expected}mobileconfig/?emailaddress=alice@example.com"
    assert f"<title>{url}</title>" in answer.text


def test_the_address_is_not_in_the_log(
    make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    page(make_app(loglevel="INFO").test_client(), "alice@example.com")
    assert [record.getMessage() for record in caplog.records] == ["GET / 200"]


def test_mail_programs_are_served_without_the_library_of_qr_codes(database: Path) -> None:
    code = (
        "import sys; from automx import create_app; from automx.config import make;"
        f"client = create_app(make(db_uri='sqlite:///{database}')).test_client();"
        "answer = client.get('/mail/config-v1.1.xml?emailaddress=alice@example.com');"
        "print(answer.status_code, 'segno' in sys.modules);"
        "answer = client.get('/mobileconfig.svg?emailaddress=alice@example.com');"
        "print(answer.status_code, 'segno' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "200 False\n200 True\n"
