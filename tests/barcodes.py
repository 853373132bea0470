"""QR codes read back by zbar, which has no code in common with the library that makes them."""

import subprocess
from pathlib import Path

from tests.processes import program


def decoded(image: Path) -> list[str]:
    """Return the texts of the QR codes that are found in an image file: PNG or PGM.

    zbar finds no code whose colours are exchanged.
    """
    command = [program("zbarimg", "zbar-tools"), "--quiet", "--raw", "--nodbus"]
    result = subprocess.run(
        [*command, "--set", "disable", "--set", "qrcode.enable", image],
        capture_output=True,
        check=False,  # 4: no code
    )
    return result.stdout.decode().splitlines()


def drawn(drawing: Path) -> Path:
    """Return a PNG of an SVG file, in twice its size, as librsvg draws it."""
    image = drawing.with_suffix(".drawn.png")
    rsvg_convert = program("rsvg-convert", "librsvg2-bin")
    subprocess.run([rsvg_convert, "--zoom", "2", "--output", image, drawing], check=True)
    return image
