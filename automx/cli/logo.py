"""The file of a logo: its media type, and its size in pixels as the image itself says it.

PNG (RFC 2083), JPEG (ITU-T T.81), WebP (RFC 9649) and SVG 2.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from automx.cli.caller import open_file
from automx.rows import MAX_LOGO

_PNG = b"\x89PNG\r\n\x1a\n"
_NUMBER = r"\s*[\"']\s*([0-9.]+)(?:px)?\s*[\"']"


def read(path: Path) -> dict[str, Any]:
    """Return the member ``logo`` of the details of a provider. Raises BadParameter."""
    try:
        with open_file(path) as file:
            data = file.read(MAX_LOGO + 1)
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_LOGO:
        raise click.BadParameter(f"{path} has more than {MAX_LOGO} bytes.")
    for type_, is_it, size in _FORMATS:
        if is_it(data):
            try:
                width, height = size(data)
            except (IndexError, OverflowError, ValueError) as error:
                raise click.BadParameter(f"{path} does not say its size in pixels.") from error
            return {"type": type_, "width": width, "height": height, "data": data}
    raise click.BadParameter(f"{path} is no image in PNG, JPEG, WebP or SVG.")


def _number(data: bytes, at: int, length: int, *, big: bool = True) -> int:
    octets = data[at : at + length]
    if len(octets) < length:
        raise ValueError
    return int.from_bytes(octets, "big" if big else "little")


def _png(data: bytes) -> tuple[int, int]:
    return _number(data, 16, 4), _number(data, 20, 4)


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:  # a start of frame
            return _number(data, at + 7, 2), _number(data, at + 5, 2)
        at += 1 if marker == 0xFF else 2 + _number(data, at + 2, 2)
    raise ValueError


def _webp(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X":
            return (
                _number(data, 24, 3, big=False) + 1,
                _number(data, 27, 3, big=False) + 1,
            )
        case b"VP8L":
            bits = _number(data, 21, 4, big=False)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case _:
            sizes = (_number(data, at, 2, big=False) & 0x3FFF for at in (26, 28))
            width, height = sizes
            return width, height


def _svg(data: bytes) -> tuple[int, int]:
    found = re.search(r"<svg\b[^>]*>", data.decode())
    tag = found[0] if found else ""
    sides = [re.search(rf"\s{side}\s*={_NUMBER}", tag) for side in ("width", "height")]
    if sides[0] and sides[1]:
        return round(float(sides[0][1])), round(float(sides[1][1]))
    box = re.search(r"\sviewBox\s*=\s*[\"']([^\"']*)[\"']", tag)
    numbers = re.split(r"[\s,]+", box[1].strip()) if box else []
    return round(float(numbers[2])), round(float(numbers[3]))


_FORMATS: tuple[tuple[str, Callable[[bytes], bool], Callable[[bytes], tuple[int, int]]], ...] = (
    ("image/png", lambda data: data.startswith(_PNG), _png),
    ("image/jpeg", lambda data: data.startswith(b"\xff\xd8\xff"), _jpeg),
    ("image/webp", lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
    ("image/svg+xml", lambda data: b"<svg" in data[:4096], _svg),
)
