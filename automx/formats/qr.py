"""QR codes as PNG, as SVG, as lines of a terminal, and on a card to print.

Standard: ISO/IEC 18004, with its quiet zone of four modules. SVG (version 1.1) has attributes only,
no styles and no scripts, so that it can be part of a page whose Content-Security-Policy allows
neither. A logo on a card is a data: URL (RFC 2397): the file needs no other.
"""

import re
import unicodedata
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

from automx.clientconfig import Logo
from automx.errors import BadRequestError

if TYPE_CHECKING:
    import segno

QUIET_ZONE = 4  # modules on each side

_LEVEL = "M"  # error correction of 15 %, for creased cards
_SCREEN_LEVEL = "L"  # 7 %: a terminal has no stains and little room
_PNG_SCALE = 10  # pixels for each module: 0.85 mm at 300 dpi
_SVG_SCALE = 8

# Blanks at which a line may be broken; a no-break space is none.
_BLANKS = re.compile(r"[^\S\xa0\u202f]+")
_NOT_IN_XML = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def png(text: str) -> bytes:
    """Return an image of the QR code of a text. Raises BadRequestError if the text is too long."""
    output = BytesIO()
    _code(text, _LEVEL).save(output, kind="png", scale=_PNG_SCALE, border=QUIET_ZONE, dpi=300)
    return output.getvalue()


def svg(text: str, *, title: str) -> str:
    """Return a drawing of the QR code of a text, as one SVG element with a line end.

    ``title`` is the text for screen readers. Raises BadRequestError if the text is too long.
    """
    code = _code(text, _LEVEL)
    modules = len(code.matrix) + 2 * QUIET_ZONE
    size = modules * _SVG_SCALE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" '
        f'viewBox="0 0 {modules} {modules}" role="img">\n'
        f"<title>{escape(_line(title), quote=False)}</title>\n"
        f'<rect width="{modules}" height="{modules}" fill="#fff"/>\n'
        f'<path fill="#000" shape-rendering="crispEdges" d="{_path(code)}"/>\n'
        "</svg>\n"
    )


def terminal(text: str, *, is_coloured: bool = True) -> str:
    """Return lines that show the QR code of a text on a terminal, two modules in each character.

    Each line sets its colours (ECMA-48; 16 and 231 are black and white in every palette of 256), so
    that it looks the same on light and on dark terminals. Without colours, light modules are drawn:
    the code is right on a dark terminal, and inverted on a light one. Raises BadRequestError if the
    text is too long.
    """
    rows = [list(row) for row in _code(text, _SCREEN_LEVEL).matrix_iter(border=QUIET_ZONE)]
    rows.append([0] * len(rows[0]))  # the number of rows is odd
    halves = " ▄▀█" if is_coloured else "█▀▄ "
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        line = "".join(halves[2 * up + low] for up, low in zip(upper, lower, strict=True))
        lines.append(f"\x1b[38;5;16;48;5;231m{line}\x1b[0m\n" if is_coloured else f"{line}\n")
    return "".join(lines)


def terminal_width(text: str) -> int:
    """Return the width of the lines of terminal(), in columns."""
    return len(_code(text, _SCREEN_LEVEL).matrix) + 2 * QUIET_ZONE


def card(
    text: str,
    *,
    title: str,
    steps: Sequence[str],
    notes: Sequence[str] = (),
    color: str = "#000",
    logo: tuple[Logo, bytes] | None = None,
) -> str:
    """Return a card of the size A6 to print and cut out, as an SVG document, on white.

    It shows, from top to bottom, the ``logo`` (its form and its bytes), else the ``title``, then
    the QR code of ``text``, the numbered ``steps`` and the ``notes`` in small print. All is black
    but the title and the discs around the numbers, which have the ``color``. Long texts are broken
    into lines and made smaller if needed. Raises BadRequestError if ``text`` is too long.
    """
    code = _code(text, _LEVEL)
    head = None if logo is None else _fitted(*logo, _line(title))
    layout = _layout(head or _line(title), list(map(_line, steps)), list(map(_line, notes)))
    width, height = _WIDTH, layout.height
    elements = "\n".join(_draw(layout, code, color))
    names = ' xmlns:xlink="http://www.w3.org/1999/xlink"' if logo else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg"{names} width="{width}mm" height="{height:g}mm" '
        f'viewBox="0 0 {width} {height:g}" '
        "font-family=\"Helvetica, Arial, 'Liberation Sans', sans-serif\">\n"
        f"<title>{escape(_line(title), quote=False)}</title>\n"
        f'<rect width="{width}" height="{height:g}" fill="#fff"/>\n'
        # the line to cut along
        f'<rect x="0.1" y="0.1" width="{width - 0.2:g}" height="{height - 0.2:g}" rx="4" '
        'fill="none" stroke="#000" stroke-width="0.2"/>\n'
        f"{elements}\n"
        "</svg>\n"
    )


def _code(text: str, level: str) -> "segno.QRCode":
    """Return the QR code of a text; error correction is higher where that needs no space."""
    import segno  # a web server that shows no QR code does not need it

    try:
        return segno.make_qr(text, error=level)
    except segno.DataOverflowError as error:
        raise BadRequestError("This text is too long for a QR code.") from error


def _path(code: "segno.QRCode") -> str:
    """Return the dark modules as the path of an SVG whose unit is a module, quiet zone included."""
    return "".join(
        f"M{QUIET_ZONE + run.start()} {y}h{len(run[0])}v1h-{len(run[0])}z"
        for y, row in enumerate(code.matrix, QUIET_ZONE)
        for run in re.finditer(b"\x01+", row)
    )


def _line(text: str) -> str:
    """Return a text on one line, without control characters and others that XML cannot hold."""
    return _BLANKS.sub(" ", _NOT_IN_XML.sub("", text)).strip()


# The card. All measures are millimetres.

_WIDTH, _HEIGHT = 105, 148  # A6
_MARGIN = 9
_TEXT_WIDTH = _WIDTH - 2 * _MARGIN
_LOGO_BOX = (60, 15)  # that of a page, as it is printed
_CODE_MAX, _CODE_MIN = 82, 56  # the code with its quiet zone
_ABOVE_RULE, _BELOW_RULE = 5, 3.5
# In font sizes:
_LEADING = 1.3  # the distance of lines
_BASELINE = 0.8  # how far below the top of its first line a text stands
_INDENT = 2.1  # of the steps: their numbers stand before it
_DISC = 0.7  # the radius of the disc around a number
_STEP_GAP, _NOTE_GAP = 0.85, 0.6

# Widths of letters in Helvetica and Arial, in font sizes; other letters have about 0.57.
_LETTERS = {
    0.24: "ijl'|",
    0.30: "It\xa0\u202f f.,:;!/\\[]",
    0.36: 'r()-`{}"“”*°',
    0.51: "cksvxyzJ^",
    0.70: "ABEKPSVXY&TFLZwCDHNRU",
    0.80: "GOQm",
    0.96: "MW@%…—",
}
_WIDTHS = {letter: width for width, letters in _LETTERS.items() for letter in letters}
_BOLD = 1.07  # how much wider bold letters are


def _width(text: str, size: float) -> float:
    """Return the approximate width of a text in the fonts of the card, rather too large."""

    def letter(char: str) -> float:
        if char in _WIDTHS:
            return _WIDTHS[char]
        if unicodedata.category(char) in {"Mn", "Me", "Cf"}:
            return 0
        if unicodedata.east_asian_width(char) in "WF":
            return 1
        return 0.7 if char.isupper() else 0.57

    # DejaVu Sans, which stands in where none of the fonts is there, is up to 8 % wider.
    return 1.12 * size * sum(map(letter, text))


def _wrap(text: str, size: float, width: float) -> list[str]:
    """Return a text in lines no wider than ``width``; a word that is wider than that is broken."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if _width(joined, size) <= width:
            line = joined
        elif line and _width(word, size) <= width:
            lines.append(line)
            line = word
        else:
            for char in joined[len(line) :]:
                if line and _width(line + char, size) > width:
                    lines.append(line)
                    line = ""
                line += char if line else char.strip()
    return [*lines, line] if line else lines


def _balanced(text: str, size: float, width: float) -> list[str]:
    """Return a text in as few lines as _wrap() does, but of about the same length."""
    lines = _wrap(text, size, width)
    widest_word = max((_width(word, size) for word in text.split(" ")), default=0)
    while len(lines) > 1 and (width := width * 0.98) >= widest_word:
        narrower = _wrap(text, size, width)
        if len(narrower) > len(lines):
            break
        lines = narrower
    return lines


@dataclass(frozen=True)
class _Text:
    """Lines of one font size."""

    lines: list[str]
    size: float

    @property
    def height(self) -> float:
        return self.size * (_LEADING * (len(self.lines) - 1) + 1) if self.lines else 0

    def draw(self, x: float, y: float, attributes: str = "") -> Iterator[str]:
        """Yield the lines, of which the first has its top at ``y``."""
        for number, line in enumerate(self.lines):
            baseline = y + self.size * (_BASELINE + _LEADING * number)
            yield (
                f'<text x="{x:.2f}" y="{baseline:.2f}" font-size="{self.size:.2f}"{attributes}>'
                f"{escape(line, quote=False)}</text>"
            )


@dataclass(frozen=True)
class _Picture:
    """An image, with a text for screen readers."""

    url: str
    width: float
    height: float
    title: str

    def draw(self, middle: float, y: float) -> Iterator[str]:
        """Yield the image, whose top is at ``y``."""
        yield (
            f'<g role="img">\n<title>{escape(self.title, quote=False)}</title>\n'
            f'<image x="{middle - self.width / 2:.2f}" y="{y:.2f}" width="{self.width:.2f}" '
            f'height="{self.height:.2f}" xlink:href="{self.url}"/>\n</g>'
        )


def _fitted(form: Logo, data: bytes, title: str) -> _Picture:
    """Return a logo that fits its box on the card."""
    scale = min(_LOGO_BOX[0] / form.width, _LOGO_BOX[1] / form.height)
    url = f"data:{form.content_type};base64,{b64encode(data).decode()}"
    return _Picture(url, form.width * scale, form.height * scale, title)


@dataclass(frozen=True)
class _Layout:
    """The texts of a card, and the room for the code."""

    head: _Text | _Picture
    steps: list[_Text]
    notes: list[_Text]

    @property
    def notes_height(self) -> float:
        """The small print without the rule above it."""
        return _stacked(self.notes, _NOTE_GAP)

    @property
    def room(self) -> float:
        """The height on A6 that is left for the code, with its quiet zone, and for white space."""
        texts = self.head.height + _stacked(self.steps, _STEP_GAP) + self.notes_height
        rule = _ABOVE_RULE + _BELOW_RULE if self.notes else 0
        return _HEIGHT - 2 * _MARGIN - texts - rule

    @property
    def height(self) -> float:
        """The height of the card: A6, or more if the smallest letters need it."""
        return round(_HEIGHT + max(_CODE_MIN - self.room, 0), 1)


def _stacked(texts: Sequence[_Text], gap: float) -> float:
    """Return the height of texts with a gap, in font sizes, between them."""
    return sum(text.height + gap * text.size for text in texts) - (
        gap * texts[-1].size if texts else 0
    )


def _layout(head: str | _Picture, steps: Sequence[str], notes: Sequence[str]) -> _Layout:
    """Return the layout with the largest letters that leave enough room for the code."""
    for scale in (1, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7):
        step, note = 3.9 * scale, 3.1 * scale
        step_width = _TEXT_WIDTH - _INDENT * step
        layout = _Layout(
            _title(head, scale) if isinstance(head, str) else head,
            [_Text(_balanced(text, step, step_width), step) for text in steps],
            [_Text(_balanced(text, note, _TEXT_WIDTH), note) for text in notes],
        )
        if layout.room >= _CODE_MIN:
            break
    return layout


def _title(title: str, scale: float) -> _Text:
    """Return a title in large letters on one line, or in smaller ones on several."""
    for size, most_lines in ((8, 1), (7, 1), (6, 1), (6, 2), (5, 2), (5, 3), (4.5, 3), (4, 4)):
        lines = _balanced(title, size * scale * _BOLD, _TEXT_WIDTH)
        if len(lines) <= most_lines:
            break
    if len(lines) > most_lines:
        lines = [*lines[: most_lines - 1], lines[most_lines - 1][:-1] + "…"]
    return _Text(lines, size * scale)


def _draw(layout: _Layout, code: "segno.QRCode", color: str) -> Iterator[str]:
    """Yield the elements of a card, from top to bottom."""
    room = max(layout.room, _CODE_MIN)
    side = min(room, _CODE_MAX)
    space = (room - side) / (3 if layout.notes else 2)
    y: float = _MARGIN
    fill = "" if color == "#000" else f' fill="{color}"'  # black is the default of SVG
    if isinstance(layout.head, _Picture):
        yield from layout.head.draw(_WIDTH / 2, y)
    else:
        bold = f' font-weight="bold" text-anchor="middle"{fill}'
        yield from layout.head.draw(_WIDTH / 2, y, bold)
    y += layout.head.height + space
    yield _placed(code, (_WIDTH - side) / 2, y, side)
    y += side + space
    for number, step in enumerate(layout.steps, 1):
        yield from _numbered(step, number, y, fill)
        y += step.height + _STEP_GAP * step.size
    if layout.notes:
        y = layout.height - _MARGIN - layout.notes_height
        yield (
            f'<path d="M{_MARGIN} {y - _BELOW_RULE:.2f}h{_TEXT_WIDTH}" stroke="#000" '
            'stroke-width="0.2"/>'
        )
    for note in layout.notes:
        yield from note.draw(_MARGIN, y)
        y += note.height + _NOTE_GAP * note.size


def _numbered(step: _Text, number: int, y: float, fill: str) -> Iterator[str]:
    """Yield a step behind its number, which stands in white on a disc."""
    size = step.size
    radius = _DISC * size
    middle = y + size * (_BASELINE - 0.36)  # half the height of digits and capitals
    yield f'<circle cx="{_MARGIN + radius:.2f}" cy="{middle:.2f}" r="{radius:.2f}"{fill}/>'
    digit = _Text([str(number)], 0.9 * size)
    top = middle + digit.size * (0.36 - _BASELINE)
    attributes = ' font-weight="bold" text-anchor="middle" fill="#fff"'
    yield from digit.draw(_MARGIN + radius, top, attributes)
    yield from step.draw(_MARGIN + _INDENT * size, y)


def _placed(code: "segno.QRCode", x: float, y: float, side: float) -> str:
    """Return the code, with its quiet zone, in a square of the card."""
    scale = side / (len(code.matrix) + 2 * QUIET_ZONE)
    return (
        f'<g role="img" transform="translate({x:.2f} {y:.2f}) scale({scale:.4f})">\n'
        f'<title>QR code</title>\n<path fill="#000" d="{_path(code)}"/>\n</g>'
    )
