"""The pages for people and of a token in a real browser: Debian's Chromium, with Playwright."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from automx.accounts import tokens
from automx.address import EmailAddress
from automx.cli.card import Card, Note
from automx.cli.dclogin import PROFILE_STEPS, login_notes
from automx.clientconfig import Logo
from automx.database import Session, create_engine
from automx.formats.dclogin import SCAN_STEPS
from automx.migrations import upgrade
from automx.seed import populate
from tests.agents import AGENTS, IPHONE
from tests.barcodes import decoded
from tests.documents import golden
from tests.processes import PATIENCE, Server, program, serving
from tests.test_languages import LANGUAGES as TRANSLATIONS

LONG = (
    "somebody.with.a.long.name@a-very-long-name-of-a-company-which-nobody-types"
    ".department-of-mail.example.org"
)
STATES = {
    "start": "",
    "known": "?address=alice@example.com",
    "another color": "?address=jürgen@müller.example",
    "long": f"?address={LONG}",
    "directory": "?address=alice@directory.example",
    "no address": "?address=alice",
    "unknown": "?address=alice@unknown.example",
    "damaged": "?address=a&address=b",
    "token": "?t=0123456789abcdef",
    "unknown token": "?t=unknown",
    "revoked token": "?t=fedcba9876543210",
    "no profile": "mobileconfig/?emailaddress=alice@unknown.example",
    "nothing": "no/such/page",
}
PROFILE = "https://mail.example.com/mobileconfig/?emailaddress=alice@example.com"
LANGUAGES = ["en", *TRANSLATIONS]
BUDGET = 60_000  # bytes of the first page in all

# Adds up how far what is on the screen moved by itself.
WATCH_SHIFTS = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shifted += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""
# What has the focus, as a screen reader names it.
FOCUSED = """() => {
  const element = document.activeElement;
  const label = element.labels?.[0]?.textContent;
  return element.ariaLabel || label || element.textContent.trim();
}"""

# Where the lines of a card are, in millimetres.
LINES_OF_A_CARD = """() => [...document.querySelectorAll("svg > text")].map((line) => {
  const box = line.getBBox();
  const [top, bottom] = [box.y, box.y + box.height];
  return {left: box.x, right: box.x + box.width, top, bottom, text: line.textContent};
})"""

# Headlines that hold a word which is wider than they are.
TOO_WIDE_HEADLINES = """() => {
  document.body.style.overflowWrap = "normal";
  document.body.style.hyphens = "manual";
  return [...document.querySelectorAll("h1, h2, h3")]
    .filter((line) => line.scrollWidth > line.clientWidth)
    .map((line) => line.textContent);
}"""

UNFOLD = """() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
}"""

# Where everything is that can be touched.
TARGETS = """() => [...document.querySelectorAll("a, button, summary, input:not([type=hidden])")]
  .filter((element) => element.checkVisibility())
  .map((element) => ({
    ...element.getBoundingClientRect().toJSON(),
    isInFooter: element.matches("footer a"),
    html: element.outerHTML,
  }))"""


@pytest.fixture(scope="module")
def database_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the providers of tests/test_page.py."""
    path = tmp_path_factory.mktemp("page") / "automx.sqlite"
    upgrade(f"sqlite:///{path}")
    engine = create_engine(f"sqlite:///{path}")
    with Session(engine) as session:
        populate(session, json.loads(golden("page.seed.json")))
        token = "0123456789abcdef"
        now = datetime.now(UTC)
        tokens.add(session, "summer", "example.com", now=now, token=token)
        tokens.add(session, "old", "example.com", now=now, token="fedcba9876543210")
        session.commit()
        tokens.edit(session, "old", {"is_revoked": True}, actor="test", now=now)
        session.commit()
    engine.dispose()
    return path


@pytest.fixture(scope="module")
def server(database_file: Path) -> Iterator[Server]:
    """A running automx."""
    env = {
        "AUTOMX_DB_URI": f"sqlite:///{database_file}",
        "AUTOMX_WEB_ENDPOINT": "https://mail.example.com/new_email",
        "AUTOMX_PERMIT_CLEARTEXT_PASSWORDS": "yes",
        "AUTOMX_PAGE_IMPRINT": "https://example.com/imprint",
        "AUTOMX_PAGE_PRIVACY": "https://example.com/privacy",
        "AUTOMX_PAGE_APP_PASSWORDS": "1:https://mail.example.com/app-passwords",
    }
    with serving(env, database_file.with_name("log")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A running Chromium."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program("chromium", "chromium"),
            args=["--no-sandbox", "--host-resolver-rules=MAP * 127.0.0.1"],
            timeout=1000 * PATIENCE,
        )
        expect.set_options(timeout=1000 * PATIENCE)
        yield started
        started.close()


class Visit:
    """A visitor's browser window, and all that it asked for."""

    def __init__(self, browser: Browser, server: Server, **options: Any) -> None:
        values: dict[str, Any] = {
            "viewport": {"width": 1280, "height": 800},
            "user_agent": IPHONE,
            "locale": "en-US",
            "permissions": ["clipboard-read", "clipboard-write"],
        }
        self.context: BrowserContext = browser.new_context(**(values | options))
        self.context.set_default_timeout(1000 * PATIENCE)
        self.page: Page = self.context.new_page()
        self.server = server
        self.urls: list[str] = []
        self.problems: list[str] = []
        self.bytes = 0
        self.page.on("request", lambda request: self.urls.append(request.url))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: self._told(message.text))
        network = self.context.new_cdp_session(self.page)
        network.send("Network.enable")
        network.on("Network.loadingFinished", self._loaded)

    def open(self, query: str = "", *, everything: bool = False) -> Page:
        """Open the page, and all that can be unfolded."""
        self.page.goto(f"{self.server.url}/{query}")
        if everything:
            self.page.evaluate(UNFOLD)
        return self.page

    def _loaded(self, event: dict[str, Any]) -> None:
        self.bytes += int(event["encodedDataLength"])

    def _told(self, text: str) -> None:
        if "the server responded with a status of 4" not in text:  # the states that are errors
            self.problems.append(text)


@pytest.fixture
def visits(browser: Browser, server: Server) -> Iterator["Visits"]:
    """Makes visits, and looks in the end whether the browser complained of any."""
    made = Visits(browser, server)
    yield made
    for visit in made.visits:
        foreign = [url for url in visit.urls if not url.startswith((f"{server.url}/", "data:"))]
        visit.context.close()
        assert foreign == []
        assert visit.problems == []


class Visits:
    """Makes visits with different browsers; calling it takes the options of a context."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self.browser, self.server = browser, server
        self.visits: list[Visit] = []

    def __call__(self, **options: Any) -> Visit:
        """Return a new visit."""
        self.visits.append(Visit(self.browser, self.server, **options))
        return self.visits[-1]


def violations(page: Page) -> list[str]:
    """Return what axe-core finds wrong, with the elements that it finds wrong."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_nothing_bars_anybody(
    visits: Visits, subtests: pytest.Subtests, width: int, scheme: str
) -> None:
    """axe-core looks at each state with everything unfolded."""
    visit = visits(viewport={"width": width, "height": 800}, color_scheme=scheme)
    for state, query in STATES.items():
        with subtests.test(state):
            assert violations(visit.open(query, everything=True)) == []


def test_nothing_bars_anybody_from_the_dialog(visits: Visits) -> None:
    for scheme in ("light", "dark"):
        page = visits(color_scheme=scheme).open("?address=alice@example.com")
        page.get_by_role("button", name="QR code for another device").click()
        assert page.get_by_role("dialog", name="QR code for another device").is_visible()
        assert violations(page) == []


def test_dark_is_dark(visits: Visits) -> None:
    backgrounds = {"light": "rgb(246, 244, 239)", "dark": "rgb(20, 24, 28)"}
    for scheme, background in backgrounds.items():
        page = visits(color_scheme=scheme).open()
        expect(page.locator("body")).to_have_css("background-color", background)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_narrow_phone_is_wide_enough_and_thumbs_are_not_too_thick(
    visits: Visits, subtests: pytest.Subtests, language: str
) -> None:
    visit = visits(viewport={"width": 360, "height": 740}, has_touch=True, locale=language)
    for state, query in STATES.items():
        with subtests.test(state):
            page = visit.open(query, everything=True)
            assert page.evaluate("document.documentElement.scrollWidth") == 360
            boxes = page.evaluate(TARGETS)
            assert boxes
            for box in boxes:
                assert box["height"] >= 44, box
                assert box["width"] >= 44 or box["isInFooter"], box
                assert box["left"] >= 0, box
                assert box["right"] <= 360, box


def test_a_keyboard_is_enough(visits: Visits) -> None:
    visit = visits()
    page, keyboard = visit.open(), visit.page.keyboard
    stops = []

    def tab(times: int = 1) -> str:
        for _ in range(times):
            keyboard.press("Tab")
            stops.append(page.evaluate(FOCUSED))
            ring = "() => getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(ring) == "solid"
        return str(stops[-1])

    assert tab() == "Mail address"
    keyboard.type("alice@example.com")
    keyboard.press("Enter")
    page.wait_for_url("**/?address=alice%40example.com")

    stops.clear()
    assert tab(8) == "QR code for another device"
    keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.is_visible()
    assert page.evaluate(FOCUSED) == "Close"
    keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate(FOCUSED) == "QR code for another device"
    keyboard.press("Enter")
    keyboard.press("Enter")
    assert not dialog.is_visible()

    assert tab() == "Delta Chat"
    keyboard.press("Enter")
    assert page.get_by_text("Install Delta Chat, and create a profile.").is_visible()
    assert tab(3) == "All settings"
    keyboard.press("Enter")
    assert tab(2) == "Copy: imap.example.com"
    keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Copied: imap.example.com")
    assert page.evaluate("navigator.clipboard.readText()") == "imap.example.com"
    tab(21)
    assert stops == [
        *("Read your mail in the browser", "Mail address", "Show the steps"),
        *("Make an app password", "iPhone and iPad", "Get the profile"),
        "Mail only, without calendars and contacts",
        *("QR code for another device", "Delta Chat"),
        *("get.delta.chat", "On other devices", "All settings", "Copy all"),
        *("Copy: imap.example.com", "Copy: 993", "Copy: alice@example.com"),
        *("Copy: smtp.example.com", "Copy: 465", "Copy: alice@example.com"),
        "Copy: https://dav.example.com/calendars/alice@example.com/",
        "Copy: alice@example.com",
        *("Copy: imap.example.com", "Copy: 4190", "Copy: alice"),
        "Other ways to the same mail",
        "Mail on your <phone>",
        "Help of Example",
        "help@example.com",
        *("English", "Deutsch", "Español", "Français", "Italiano", "Imprint", "Privacy"),
    ]


def test_each_button_copies_its_whole_value(visits: Visits) -> None:
    page = visits().open(f"?address={LONG}", everything=True)
    for text in (LONG, LONG.replace("somebody.with.a.long.name@", "imap.")):
        page.get_by_role("button", name=f"Copy: {text}", exact=True).first.click()
        expect(page.get_by_role("status")).to_have_text(f"Copied: {text}")
        assert page.evaluate("navigator.clipboard.readText()") == text


def test_one_button_copies_all_settings(visits: Visits) -> None:
    page = visits(user_agent=AGENTS["Windows"][0], locale="de").open("?address=bob@müller.example")
    page.get_by_role("button", name="Alles kopieren").click()
    expect(page.get_by_role("status")).to_have_text("Kopiert")
    login = "Benutzername: bob@xn--mller-kva.example\nAnmeldung: Passwort, normal\n"
    assert page.evaluate("navigator.clipboard.readText()") == (
        "Posteingang IMAP\nServer: imap.example.com\nPort: 993\nVerschlüsselung: SSL/TLS\n"
        f"{login}\n"
        "Postausgang SMTP\nServer: smtp.example.com\nPort: 465\nVerschlüsselung: SSL/TLS\n"
        f"{login}"
    )


def test_the_link_of_a_program_that_wants_servers_leads_to_the_settings(visits: Visits) -> None:
    page = visits(user_agent=AGENTS["Android"][0]).open("?address=alice@example.com")
    page.get_by_text("Gmail", exact=True).click()
    page.get_by_role("link", name="Settings to copy").click()
    expect(page.get_by_role("heading", name="All settings")).to_be_in_viewport()


def enlarge(visit: Visit) -> None:
    """Let the browser show letters of twice the usual size."""
    network = visit.context.new_cdp_session(visit.page)
    network.send("Page.enable")
    network.send("Page.setFontSizes", {"fontSizes": {"standard": 32, "fixed": 26}})


@pytest.mark.parametrize("language", LANGUAGES)
def test_letters_of_twice_the_size_do_not_scroll_sideways(
    visits: Visits, subtests: pytest.Subtests, language: str
) -> None:
    visit = visits(viewport={"width": 360, "height": 740}, locale=language)
    enlarge(visit)
    for state, query in STATES.items():
        with subtests.test(state):
            page = visit.open(query, everything=True)
            expect(page.locator("html")).to_have_css("font-size", "32px")
            assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("language", LANGUAGES)
def test_letters_of_twice_the_size_break_no_word_of_a_headline(
    visits: Visits, language: str
) -> None:
    """Debian's Chromium takes DejaVu Sans, which is wider than the fonts of phones."""
    for state, device in (("known", "Android"), ("known", "Windows"), ("token", "iPhone")):
        visit = visits(
            viewport={"width": 360, "height": 740}, locale=language, user_agent=AGENTS[device][0]
        )
        enlarge(visit)
        page = visit.open(STATES[state], everything=True)
        assert page.evaluate(TOO_WIDE_HEADLINES) == []


def test_a_value_that_may_not_be_copied_is_selected(visits: Visits) -> None:
    visit = visits(permissions=[])
    refuse = "navigator.clipboard.writeText = () => Promise.reject(new Error('no'))"
    visit.context.add_init_script(refuse)
    page = visit.open("?address=alice@example.com", everything=True)
    page.get_by_role("button", name="Copy: smtp.example.com").first.click()
    assert page.evaluate("getSelection().toString()") == "smtp.example.com"
    expect(page.get_by_role("status")).to_be_empty()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_camera_reads_the_url_of_the_profile(
    visits: Visits, server: Server, scheme: str, tmp_path: Path
) -> None:
    page = visits(color_scheme=scheme).open("?address=alice@example.com")
    page.get_by_role("button", name="QR code for another device").click()
    code = page.get_by_role("img", name="QR code of the profile")
    assert code.evaluate("image => image.decode().then(() => image.complete)")
    page.screenshot(path=tmp_path / "screen.png")
    assert decoded(tmp_path / "screen.png") == [PROFILE]
    page.mouse.click(5, 5)  # beside the dialog
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (360, 800)])
def test_a_camera_reads_the_code_of_a_token(
    visits: Visits, scheme: str, size: tuple[int, int], tmp_path: Path
) -> None:
    width, height = size
    page = visits(viewport={"width": width, "height": height}, color_scheme=scheme).open(
        STATES["token"]
    )
    page.screenshot(path=tmp_path / "screen.png")
    assert decoded(tmp_path / "screen.png") == [
        "DCACCOUNT:https://mail.example.com/new_email?t=0123456789abcdef&n=summer"
    ]


def test_all_but_comfort_works_without_scripts(visits: Visits, tmp_path: Path) -> None:
    visit = visits(java_script_enabled=False, viewport={"width": 360, "height": 740})
    page = visit.open()
    page.get_by_label("Mail address").fill("alice@example.com")
    page.get_by_role("button", name="Show the steps").click()
    page.wait_for_url("**/?address=alice%40example.com")
    assert page.get_by_role("heading", name="On this device").is_visible()
    page.get_by_text("On other devices").click()
    page.get_by_text("Thunderbird", exact=True).click()
    assert page.get_by_text("open its menu ☰ and choose “Add Account”, “Email”.").is_visible()
    page.get_by_role("heading", name="All settings").click()
    assert page.get_by_role("button").all_text_contents() == ["Show the steps"]
    page.get_by_text("QR code for another device").click()
    code = page.get_by_role("img", name="QR code of the profile")
    code.scroll_into_view_if_needed()
    page.wait_for_load_state("networkidle")
    code.screenshot(path=tmp_path / "code.png")
    assert decoded(tmp_path / "code.png") == [PROFILE]
    with page.expect_download() as download:
        page.get_by_role("link", name="Get the profile").first.click()
    assert download.value.suggested_filename == "alice-example.com.mobileconfig"


@pytest.mark.parametrize("state", ["start", "known", "long"])
@pytest.mark.parametrize("width", [360, 820, 1280])
def test_the_page_is_small_and_stands_still(visits: Visits, state: str, width: int) -> None:
    visit = visits(viewport={"width": width, "height": 5000})  # all of it is on the screen
    visit.context.add_init_script(WATCH_SHIFTS)
    page = visit.open(STATES[state])
    page.wait_for_load_state("networkidle")
    assert 5_000 < visit.bytes < BUDGET
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    # A tenth of a tenth: Web Vitals call up to 0.1 good. A slow browser paints before the script.
    assert page.evaluate("window.shifted") < 0.01
    assert not [url for url in visit.urls if "mobileconfig.svg" in url]  # nobody looked at it


def test_germans_read_german_and_may_change_that(visits: Visits) -> None:
    page = visits(locale="de-AT").open()
    page.get_by_label("E-Mail-Adresse").fill("alice@example.com")
    page.get_by_role("button", name="Schritte zeigen").click()
    assert page.get_by_role("heading", name="Auf diesem Gerät").is_visible()
    page.get_by_role("link", name="English").click()
    assert page.get_by_role("heading", name="On this device").is_visible()
    page.get_by_label("Mail address").fill("bob@example.com")
    page.get_by_role("button", name="Show the steps").click()
    assert page.get_by_text("for bob@example.com").is_visible()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_printed_card_stays_within_its_margins(browser: Browser, language: str) -> None:
    """Debian's Chromium takes DejaVu Sans, which is wider than the fonts of the card."""
    each = "This code makes a mailbox of its own for each person, at %(domain)s."
    ends = "The mailbox and its mail end after %(time)s without use."
    notes = [
        Note(each, {"domain": LONG.partition("@")[2]}),
        Note(ends, {"time": timedelta(days=9)}),
        *login_notes(EmailAddress.parse("somebody@example.com")),
    ]
    logo = Logo("image/svg+xml", 220, 56), b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    page = browser.new_page()
    for steps, image in product((SCAN_STEPS, PROFILE_STEPS), (None, logo)):
        card = Card("Example & Sons", steps, notes, logo=image).draw("x" * 90, language)
        page.set_content(card)
        lines = page.evaluate(LINES_OF_A_CARD)
        assert len(lines) > 10
        # A letter may reach some tenths of a millimetre before its line.
        assert [line for line in lines if line["left"] < 8.5 or line["right"] > 96] == []
        height = float(card.partition('height="')[2].partition("mm")[0])
        assert all(line["top"] > 8 and line["bottom"] < height - 8 for line in lines)
    page.close()


def test_a_mac_starts_with_the_macs_way(visits: Visits) -> None:
    page = visits(user_agent=AGENTS["Mac"][0]).open("?address=alice@example.com")
    assert page.locator("details.method[open] h3").all_text_contents() == ["Mac"]


def test_what_was_typed_stays_text(visits: Visits) -> None:
    typed = "\"><img src=x onerror=document.title='x'><script>document.title='x'</script>"
    page = visits().open()
    page.get_by_label("Mail address").fill(typed)
    page.keyboard.press("Enter")
    page.wait_for_url("**/?address=*")
    expect(page.get_by_label("Mail address")).to_have_value(typed)
    expect(page).to_have_title("Set up your mail")


def test_a_server_that_is_not_ready_says_so_to_everybody(
    visits: Visits, database_file: Path
) -> None:
    hidden = database_file.with_suffix(".hidden")
    database_file.rename(hidden)
    try:
        visit = visits()
        page = visit.open()
        assert page.get_by_role("alert").is_visible()
        assert violations(page) == []
        visit.problems.clear()  # the browser tells of status 503
    finally:
        hidden.rename(database_file)
