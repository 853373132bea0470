"""QR codes: what an independent decoder reads from each form is the text that went in."""

import base64
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import click
import pytest
from lxml import etree

from automx.cli.card import Card, Note
from automx.clientconfig import Logo
from automx.errors import BadRequestError
from automx.formats import palette, qr
from automx.formats.dclogin import SCAN_STEPS
from tests.barcodes import decoded, drawn
from tests.documents import golden

ACCOUNT = "DCACCOUNT:https://mail.example.org/new_email?t=1w_Tq8XkF3wVb7MnZ2&n=summer%20camp"
LOGIN = (
    "dclogin://alice@example.com/?p=correct%20horse%20battery&v=1"
    "&ih=imap.example.com&ip=993&iu=alice%40example.com&is=ssl"
    "&sh=smtp.example.com&sp=587&su=alice%40example.com&ss=starttls"
)
PROFILE = "https://autoconfig.example.com/mobileconfig/?emailaddress=alice@example.com"

texts = pytest.mark.parametrize(
    "text",
    [ACCOUNT, LOGIN, PROFILE, "x", "0123456789", "邮件 ✉", LOGIN * 9],
    ids=["account", "login", "profile", "letter", "digits", "Unicode", "very long"],
)


@texts
def test_a_png_is_decoded_to_its_text(tmp_path: Path, text: str) -> None:
    image = tmp_path / "code.png"
    image.write_bytes(qr.png(text))
    assert decoded(image) == [text]


@texts
def test_an_svg_is_decoded_to_its_text(tmp_path: Path, text: str) -> None:
    drawing = tmp_path / "code.svg"
    drawing.write_text(qr.svg(text, title="Example Mail"))
    assert decoded(drawn(drawing)) == [text]


@texts
def test_a_card_is_decoded_to_its_text(tmp_path: Path, text: str) -> None:
    drawing = tmp_path / "card.svg"
    drawing.write_text(qr.card(text, title="Example Mail", steps=SCAN_STEPS, notes=["Keep it."]))
    assert decoded(drawn(drawing)) == [text]


def shown(lines: str, *, foreground: int, background: int, folder: Path) -> Path:
    """Return a picture of what a terminal shows, as PGM; its own colours are from 0 to 255."""
    palette = {"38;5;16;48;5;231": (0, 255), "0": (foreground, background)}
    colours = palette["0"]
    rows: list[list[int]] = []
    for line in lines.splitlines():
        upper: list[int] = []
        lower: list[int] = []
        for code, char in re.findall(r"\x1b\[([\d;]*)m|(.)", line):
            if code:
                colours = palette[code]
                continue
            ink, paper = colours
            upper.append(ink if char in "▀█" else paper)
            lower.append(ink if char in "▄█" else paper)
        rows += [upper, lower]
    width = max(map(len, rows))
    margin = 10  # of the terminal's own background
    pixels = [[background] * (width + 2 * margin) for _ in range(len(rows) + 2 * margin)]
    for y, row in enumerate(rows, margin):
        pixels[y][margin : margin + len(row)] = row
    scale = 4
    image = folder / "terminal.pgm"
    image.write_bytes(
        b"P5 %d %d 255\n" % (len(pixels[0]) * scale, len(pixels) * scale)
        + b"".join(bytes(p for p in row for _ in range(scale)) * scale for row in pixels)
    )
    return image


@texts
@pytest.mark.parametrize(
    ("foreground", "background"),
    [(0, 255), (230, 20), (0, 0)],
    ids=["light terminal", "dark terminal", "black on black"],
)
def test_lines_on_a_terminal_are_decoded_to_their_text(
    tmp_path: Path, text: str, foreground: int, background: int
) -> None:
    lines = qr.terminal(text)
    image = shown(lines, foreground=foreground, background=background, folder=tmp_path)
    assert decoded(image) == [text]
    plain = re.sub(r"\x1b\[[\d;]*m", "", lines)
    assert {len(line) for line in plain.splitlines()} == {qr.terminal_width(text)}


@texts
def test_lines_without_colours_are_right_on_a_dark_terminal(tmp_path: Path, text: str) -> None:
    lines = qr.terminal(text, is_coloured=False)
    assert "\x1b" not in lines
    assert decoded(shown(lines, foreground=230, background=20, folder=tmp_path)) == [text]


def test_a_login_with_all_settings_fits_into_a_terminal_of_80_columns() -> None:
    assert qr.terminal_width(LOGIN) <= 80


def test_drawings_are_as_expected() -> None:
    assert qr.svg(ACCOUNT, title="Example <Mail> & more") == golden("account.qr.svg")


@pytest.mark.parametrize("name", ["account", "login", "long"])
def test_cards_are_as_expected(name: str) -> None:
    cards = {
        "account": qr.card(
            ACCOUNT,
            title="Example Mail",
            steps=SCAN_STEPS,
            notes=["Valid until 31 December 2026. A mailbox lasts 7 days."],
        ),
        "login": qr.card(LOGIN, title="Bücher, Blumen & Brot <Berlin>", steps=SCAN_STEPS),
        "long": qr.card(PROFILE, title=LONG_TITLE, steps=LONG_STEPS, notes=[LONG_WORD]),
    }
    assert cards[name] == golden(f"{name}.card.svg")


LONG_TITLE = (
    "Fortbildungszentrum für Binnenschifffahrt und Hafenwirtschaft am Mittellandkanal e. V."
)
LONG_STEPS = ["Do this first, and take your time, since it is worth it. " * 2] * 4
LONG_WORD = "For " + "a" * 64 + "@" + "b" * 63 + ".example.org"


def lines_of(document: str) -> list[tuple[float, str]]:
    """Return the font size in millimetres and the text of each line on a card."""
    elements = etree.fromstring(document.encode()).iter("{*}text")
    return [(float(element.get("font-size", "")), element.text or "") for element in elements]


def test_a_long_title_stands_on_several_lines_in_smaller_letters() -> None:
    short, *_ = lines_of(qr.card(PROFILE, title="Mail", steps=[]))
    assert short == (8, "Mail")
    lines = lines_of(qr.card(PROFILE, title=LONG_TITLE, steps=[]))
    assert " ".join(text for _, text in lines) == LONG_TITLE
    assert len(lines) == 3
    assert {size for size, _ in lines} == {4}


def test_a_title_that_is_longer_than_any_name_is_cut() -> None:
    lines = lines_of(qr.card(PROFILE, title="Endless name " * 40, steps=[]))
    assert len(lines) == 4
    assert lines[-1][1].endswith("…")


def test_no_word_of_steps_and_notes_is_lost() -> None:
    document = qr.card(PROFILE, title="Mail", steps=LONG_STEPS, notes=[LONG_WORD, "End."])
    texts = [text for _, text in lines_of(document)]
    assert "".join(texts).replace(" ", "") == "".join(
        ["Mail", *(f"{n}{step}" for n, step in enumerate(LONG_STEPS, 1)), LONG_WORD, "End."]
    ).replace(" ", "")


def test_more_text_than_fits_makes_the_card_longer_and_not_the_code_smaller(
    tmp_path: Path,
) -> None:
    document = qr.card(LOGIN, title="Mail", steps=LONG_STEPS * 3)
    root = etree.fromstring(document.encode())
    assert root.get("width") == "105mm"
    assert float(root.get("height", "").removesuffix("mm")) > 148
    drawing = tmp_path / "card.svg"
    drawing.write_text(document)
    assert decoded(drawn(drawing)) == [LOGIN]


def test_names_cannot_break_out_of_a_drawing() -> None:
    name = "<script>&lt;]]>\x00\x0b\ufffe\ud800 \"'\n\x85Ende"
    harmless = "<script>&lt;]]> \"' Ende"
    card = qr.card(PROFILE, title=name, steps=[name], notes=[name])
    assert {text for _, text in lines_of(card)} == {harmless, "1"}
    for document in (card, qr.svg(PROFILE, title=name)):
        root = etree.fromstring(document.encode())
        assert root.findtext("{*}title") == harmless
        assert "script" not in {etree.QName(element).localname for element in root.iter()}


@pytest.mark.parametrize(
    "document",
    [qr.svg(LOGIN, title="Mail"), qr.card(LOGIN, title="Mail", steps=SCAN_STEPS, notes=["End."])],
    ids=["svg", "card"],
)
def test_a_drawing_needs_nothing_that_a_strict_policy_of_a_page_forbids(document: str) -> None:
    """Neither styles nor scripts nor anything from elsewhere; and no identifiers that clash."""
    root = etree.fromstring(document.encode())
    names = {etree.QName(element).localname for element in root.iter()}
    assert names <= {"svg", "title", "rect", "path", "g", "circle", "text"}
    attributes = {str(name) for element in root.iter() for name in element.attrib}
    assert not [a for a in attributes if a in {"style", "id", "class"} or a.startswith("on")]
    assert "href" not in document
    assert "url(" not in document


@pytest.mark.parametrize(
    "make",
    [
        qr.png,
        qr.terminal,
        qr.terminal_width,
        lambda text: qr.svg(text, title="Mail"),
        lambda text: qr.card(text, title="Mail", steps=[]),
    ],
)
def test_a_text_that_no_code_can_hold_is_told(make: Callable[[str], object]) -> None:
    with pytest.raises(BadRequestError, match=r"^This text is too long for a QR code\.$"):
        make("x" * 3000)


@pytest.mark.parametrize(
    ("language", "time", "step"),
    [("en", "9 days", "Hold the camera"), ("de", "9 Tage", "Halten Sie die Kamera")],
)
def test_a_card_has_a_language_and_the_color_of_the_provider(
    language: str, time: str, step: str
) -> None:
    note = Note("The mailbox and its mail end after %(time)s.", {"time": timedelta(days=9)})
    card = Card("Example Mail", SCAN_STEPS, [note], "#ffcc00").draw(ACCOUNT, language)
    texts = " ".join(text for _, text in lines_of(card))
    assert time in texts
    assert step in texts
    assert card.count(f'fill="{palette.on_paper("#ffcc00")}"') == 1 + len(SCAN_STEPS)
    assert palette.contrast(palette.on_paper("#ffcc00"), "#ffffff") >= 4.5


DRAWING = b"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 4 1'><path d='M0 0h4v1H0z'/></svg>"


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((180, 45), (60, 15)),
        ((32, 32), (15, 15)),
        ((1000, 10), (60, 0.6)),
        ((10, 1000), (0.15, 15)),
    ],
)
def test_a_logo_stands_in_place_of_the_title_and_fits_its_box(
    tmp_path: Path, size: tuple[int, int], shown: tuple[float, float]
) -> None:
    logo = Logo("image/svg+xml", *size), DRAWING
    card = Card("Bücher & Brot", SCAN_STEPS, color="#1a5fb4", logo=logo).draw(ACCOUNT, "en")
    root = etree.fromstring(card.encode())
    [image] = root.iter("{*}image")
    assert tuple(float(image.get(side, "")) for side in ("width", "height")) == shown
    assert float(image.get("x", "")) * 2 + shown[0] == pytest.approx(105, abs=0.02)
    kind, _, data = image.get("{http://www.w3.org/1999/xlink}href", "").partition(",")
    assert (kind, base64.b64decode(data)) == ("data:image/svg+xml;base64", DRAWING)
    group = image.getparent()
    assert group is not None
    assert group.findtext("{*}title") == root.findtext("{*}title") == "Bücher & Brot"
    assert "Bücher & Brot" not in [text for _, text in lines_of(card)]
    drawing = tmp_path / "card.svg"
    drawing.write_text(card)
    assert decoded(drawn(drawing)) == [ACCOUNT]


def test_a_card_in_a_language_without_catalogue_is_refused() -> None:
    with pytest.raises(click.UsageError, match="--language must be one of en, de, es, fr, it"):
        Card("Example Mail", SCAN_STEPS).draw(ACCOUNT, "tlh")
