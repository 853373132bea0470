"""Colours of the page for people, computed from the colour of the provider.

For every colour, text has a contrast of at least 4.5 to 1 (WCAG 2.2, success criterion 1.4.3, level
AA), in light and in dark mode.
"""

DEFAULT_COLOR = "#0b5f6b"

# Of the backgrounds of page.css behind the accent, those with the least contrast.
PAPER_LIGHT = "#f6f4ef"
CARD_DARK = "#1d2328"

_MIN_CONTRAST = 4.5
_STEPS = 64  # from a colour to black or white


def style(color: str) -> str:
    """Return CSS that sets the colours of a page: ``--accent``, ``--brand`` and ``--on-brand``.

    ``color`` is ``#`` and six hexadecimal digits, or "" for automx's own. The accent is for text,
    lines and focus rings: the colour, made darker or lighter until its contrast is enough. The
    brand is the colour itself, for large areas; text on it is black or white.
    """
    color = (color or DEFAULT_COLOR).lower()
    on_brand = max("#000000", "#ffffff", key=lambda text: contrast(text, color))
    light = _readable(color, PAPER_LIGHT, "#000000")
    dark = _readable(color, CARD_DARK, "#ffffff")
    return (
        f":root{{--accent:{light};--brand:{color};--on-brand:{on_brand}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{--accent:{dark}}}}}\n"
    )


def on_paper(color: str) -> str:
    """Return the colour, made darker until text in it can be read on white paper."""
    return _readable(color.lower(), "#ffffff", "#000000")


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2), from 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _readable(color: str, background: str, goal: str) -> str:
    """Return the first colour between ``color`` and ``goal`` that has enough contrast."""
    channels = list(zip(_channels(color), _channels(goal), strict=True))
    for step in range(_STEPS):
        mixed = (round(start + (end - start) * step / _STEPS) for start, end in channels)
        found = "#" + "".join(f"{channel:02x}" for channel in mixed)
        if contrast(found, background) >= _MIN_CONTRAST:
            return found
    return goal


def _luminance(color: str) -> float:
    """Return the relative luminance of a colour of sRGB (WCAG 2.2), from 0 to 1."""
    linear = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in _channels(color))
    )
    return sum(
        weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
