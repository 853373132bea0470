"""The pictures of the documentation: pages show those that ``make screenshots`` makes."""

import re
from pathlib import Path

import pytest

from docs import screenshots
from tests.barcodes import decoded
from tests.processes import REPOSITORY

PAGES = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("**/*.md")]
MOST = 100_000  # bytes of a picture
CODE = f"DCACCOUNT:https://mail.example.com/new_email?t={screenshots.SECRET}&n={screenshots.TOKEN}"


def shown(page: Path) -> list[tuple[Path, str]]:
    """Return the files of the pictures on a page, each with the text in its place."""
    text = page.read_text()
    tags = [dict(re.findall(r'(\w+)="([^"]*)"', tag)) for tag in re.findall("<img [^>]*>", text)]
    found = [(tag["src"], tag.get("alt", "")) for tag in tags]
    found += [(name, alt) for alt, name in re.findall(r"!\[([^]]*)\]\(([^)]+)\)", text)]
    return [((page.parent / name).resolve(), alt) for name, alt in found]


def test_pages_show_exactly_the_pictures_that_the_command_makes() -> None:
    named = {file for page in PAGES for file, _ in shown(page)}
    there = {file for file in screenshots.FOLDER.rglob("*") if file.is_file()}
    assert there == {screenshots.FOLDER / name for name in screenshots.PICTURES}
    assert named == there


@pytest.mark.parametrize("page", ["README", "docs/index", "docs/page", "docs/deltachat"])
def test_the_pages_for_a_first_look_have_pictures(page: str) -> None:
    assert shown(REPOSITORY / f"{page}.md")


def test_people_who_see_no_pictures_read_what_is_on_them() -> None:
    texts = [alt for page in PAGES for _, alt in shown(page)]
    assert [text for text in texts if len(text.split()) < 5] == []


@pytest.mark.parametrize("name", screenshots.PICTURES)
def test_a_picture_is_a_small_png(name: str) -> None:
    content = (screenshots.FOLDER / name).read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) < MOST


@pytest.mark.parametrize("name", ["token-page.png", "card.png", "terminal-token.png"])
def test_a_qr_code_on_a_picture_is_that_of_the_example(name: str) -> None:
    assert decoded(screenshots.FOLDER / name) == [CODE]
