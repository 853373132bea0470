"""Takes the pictures of the documentation: pages, a card, and what commands print.

``make screenshots`` runs it. Debian's Chromium shows pages of a private ``automx serve``, whose
database holds the sample. Terminals are real ones, too: ``automx quickstart`` finds a name server
and a mail server on loopback, at their own ports, so only root can run it. Fonts are always the
same, and pngquant makes the files small.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tests.agents import AGENTS
from tests.clients.deltachat import network
from tests.commandline import automx
from tests.internet import dovecot
from tests.nameserver import name_server
from tests.processes import AUTOMX, program, serving
from tests.terminals import on_a_terminal
from tests.tls import Authority

FOLDER = Path(__file__).parent / "pictures"

_COLOR = "#0a6a5b"
# Drawn for the pictures.
_LOGO = f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="220" height="56" viewBox="0 0 220 56">
<rect width="56" height="56" rx="14" fill="{_COLOR}"/>
<path d="M13 19h30v20H13zM13 20l15 12 15-12" fill="none" stroke="#fff" stroke-width="3"
 stroke-linejoin="round"/>
<g fill="none" stroke="#1f9d88" stroke-width="7" stroke-linecap="round">
<path d="M76 20h128M76 37h84"/>
</g>
</svg>
"""
SECRET, TOKEN = "kx7dn2m9q4rtw8vz3hcp5gfa", "oneday"
_ADDRESS = "?address=alice@example.com"
_CERTIFICATE_END = re.compile(r"(?<=certificate until )\d{4}-\d\d-\d\d")

_FONTS = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
<dir>/usr/share/fonts/opentype/inter</dir>
<dir>/usr/share/fonts/truetype/dejavu</dir>
<cachedir>{folder}</cachedir>
<match><test name="family"><string>sans-serif</string></test>
<edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit></match>
<match><test name="family"><string>system-ui</string></test>
<edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit></match>
<match><test name="family"><string>monospace</string></test>
<edit name="family" mode="prepend" binding="strong"><string>DejaVu Sans Mono</string></edit></match>
</fontconfig>
"""
_TERMINAL = """\
<!doctype html>
<meta charset="utf-8">
<style>
body {{ margin: 0; }}
pre {{ display: inline-block; margin: 0; padding: 18px 22px; background: #14181c; color: #e9ebec;
  font: 14px/16px monospace; }}
b {{ color: #7fd6c6; }}
i {{ display: inline-block; height: 16px; background: #fff; color: #000; font-style: normal; }}
</style>
<pre>{lines}</pre>
"""
_PAPER = """\
<!doctype html>
<style>
body {{ display: inline-block; margin: 0; padding: 16px; background: #e4e1d9; }}
svg {{ display: block; border-radius: 15px; }}
</style>
{card}
"""


@dataclass(frozen=True)
class Stage:
    """What there is to take pictures of; ``folder`` is for files."""

    browser: Browser
    env: dict[str, str]
    url: str
    folder: Path

    def page(
        self, query: str, device: str, width: int, height: int, scheme: Any = "light"
    ) -> bytes:
        """Return a picture of a page, ``width`` and ``height`` in CSS pixels, as PNG."""
        with self.browser.new_context(
            viewport={"width": width, "height": height},
            device_scale_factor=2,
            color_scheme=scheme,
            locale="en",
            user_agent=AGENTS[device][0],
        ) as context:
            page = context.new_page()
            page.goto(f"{self.url}/{query}", wait_until="networkidle")
            return page.screenshot(animations="disabled")

    def document(self, html: str, selector: str, scale: float = 2) -> bytes:
        """Return a picture of an element of a document, as PNG."""
        with self.browser.new_context(device_scale_factor=scale) as context:
            page = context.new_page()
            page.set_content(html)
            return page.locator(selector).screenshot()

    def terminal(self, *commands: tuple[str, str]) -> bytes:
        """Return a picture of commands, each with what it has printed."""
        lines = "\n".join(f"<b>$ {escape(line)}</b>\n{_coloured(text)}" for line, text in commands)
        return self.document(_TERMINAL.format(lines=lines.rstrip()), "pre", 1.5)

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        """Return what a command prints to a terminal of 100 columns."""
        wide = {**self.env, **(env or {}), "COLUMNS": "100"}
        text = on_a_terminal([AUTOMX, *arguments], wide, with_errors=False)
        return text.replace("\r\n", "\n")


def _coloured(text: str) -> str:
    """Return what a terminal shows as HTML; QR codes are all that has colours."""
    tags = {"38;5;16;48;5;231": "<i>", "0": "</i>"}
    parts = re.split(r"\x1b\[([\d;]*)m", text)
    return "".join(tags[part] if index % 2 else escape(part) for index, part in enumerate(parts))


def _card(stage: Stage) -> bytes:
    file = stage.folder / "card.svg"
    automx("token", "qr", TOKEN, "--output", file, "--card", env=stage.env)
    return stage.document(_PAPER.format(card=file.read_text()), "body")


def _token(stage: Stage) -> bytes:
    command = f"token qr {TOKEN}"
    return stage.terminal((f"automx {command}", stage.run(*command.split())))


def _quickstart(stage: Stage) -> bytes:
    """Return the beginning and the end: what is found and written, and what is left."""
    domain, mail = "example.com", "mail.example.com"
    addresses = network()
    zone = f"{mail}. IN A {addresses.mail}\n"
    zone += f"_imaps._tcp IN SRV 0 1 993 {mail}.\n_submissions._tcp IN SRV 0 1 465 {mail}.\n"
    authority = Authority(stage.folder)
    env = {"AUTOMX_DB_URI": f"sqlite:///{stage.folder}/first.sqlite", "AUTOMX_WEB_ENDPOINT": ""}
    automx("db", "upgrade", env=stage.env | env)
    command = ["quickstart", domain, "--yes", "--web-server", "nginx"]
    with (
        name_server(stage.folder / "names", {domain: zone}) as names,
        dovecot(stage.folder / "dovecot", addresses.mail, authority.issue(mail)),
    ):
        options = ["--dns", names.option, "--ca-file", str(authority.root)]
        text = stage.run(*command, *options, env=env)
    text = _CERTIFICATE_END.sub("2027-03-01", text)  # else each picture differs
    begin, _, rest = text.partition(f"Added domain {domain}.\n")
    end = rest.partition("What is left to do:")[2]
    shown = f"{begin}Added domain {domain}.\n\n[…]\n\nWhat is left to do:{end}"
    return stage.terminal((f"automx {' '.join(command)}", shown))


# Each picture by its name; documents show all of them.
PICTURES: dict[str, Callable[[Stage], bytes]] = {
    "page-desktop-light.png": lambda stage: stage.page(_ADDRESS, "Windows", 1040, 1045),
    "page-desktop-dark.png": lambda stage: stage.page(_ADDRESS, "Mac", 1040, 900, "dark"),
    "page-phone-light.png": lambda stage: stage.page(_ADDRESS, "iPhone", 360, 780),
    "page-phone-dark.png": lambda stage: stage.page(_ADDRESS, "Android", 360, 780, "dark"),
    "token-page.png": lambda stage: stage.page(f"?t={SECRET}", "Linux", 1040, 1000),
    "card.png": _card,
    "terminal-quickstart.png": _quickstart,
    "terminal-token.png": _token,
}


def take(folder: Path) -> None:
    """Write all pictures into a folder, and delete others that are there."""
    with (
        tempfile.TemporaryDirectory(prefix="automx-pictures-") as work,
        _stage(Path(work)) as stage,
    ):
        made = {name: _small(take_one(stage)) for name, take_one in PICTURES.items()}
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for name, content in made.items():
        (folder / name).write_bytes(content)


@contextmanager
def _stage(folder: Path) -> Iterator[Stage]:
    """Run a server with the sample, and a Chromium that has few fonts."""
    folder.chmod(0o755)  # Dovecot's own users must be able to enter
    env = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{folder}/automx.sqlite",
        "AUTOMX_WEB_ENDPOINT": "https://mail.example.com/new_email",
        "AUTOMX_PAGE_IMPRINT": "https://example.com/imprint",
        "AUTOMX_PAGE_PRIVACY": "https://example.com/privacy",
    }
    (folder / "logo.svg").write_text(_LOGO)
    (folder / "fonts.conf").write_text(_FONTS.format(folder=folder / "fonts"))
    details = ["--color", _COLOR, "--logo", str(folder / "logo.svg")]
    details += ["--webmail-url", "https://mail.example.com/"]
    automx("db", "upgrade", env=env)
    automx("seed", "--sample", env=env)
    automx("provider", "set", "1", "--yes", *details, env=env)
    options = ["--domain", "example.com", "--token-stdin"]
    automx("token", "add", TOKEN, *options, env=env, stdin=SECRET)
    with (
        serving(env, folder / "log", "--workers", "1") as server,
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=program("chromium", "chromium"),
            args=["--no-sandbox"],
            env={**os.environ, "FONTCONFIG_FILE": str(folder / "fonts.conf")},
        ) as browser,
    ):
        yield Stage(browser, env, server.url, folder)


def _small(picture: bytes) -> bytes:
    """Return a PNG with a palette of few colours."""
    command = [program("pngquant", "pngquant"), "--strip", "--speed", "1", "--nofs", "64", "-"]
    return subprocess.run(command, input=picture, capture_output=True, check=True).stdout  # noqa: S603 - a program of Debian


if __name__ == "__main__":
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
