"""Texts have British spellings, with -ize (Oxford); names in code keep theirs."""

import re
from pathlib import Path

import pytest

from tests.processes import REPOSITORY

AMERICAN = (
    r"behaviors?|canceled|catalogs?|centers?|centered|colors?|colored|favors?|favorites?"
    r"|fulfills?|gray|honors?|labeled|(?-i:license)|modeled|neighbors?|neighboring|traveled"
)
# Beside words that are no verbs of this kind, such as "otherwise" and "promise".
WITH_S = (
    r"(?:author|custom|final|general|initial|maxim|minim|normal|optim|organ|prioriti|real|recogn"
    r"|serial|special|standard|summar|synchron|util|visual)is(?:e[sd]?|ing|ations?)"
)
# No options, members, files or names of the style sheet.
WRONG = re.compile(
    rf"(?<![-\w.#\"'/])(?:{AMERICAN}|{WITH_S})(?![-\w=\"'(])",
    re.IGNORECASE,
)
PAGES = [
    path
    for pattern in ("*.md", "docs/**/*.md", ".github/**/*.md", ".github/**/*.yml")
    for path in sorted(REPOSITORY.glob(pattern))
]
# Texts of commands and settings, and what people read in a browser.
TEXTS = [
    REPOSITORY / "docs/commands.md",
    REPOSITORY / "contrib/automx.conf",
    REPOSITORY / "automx/translations/messages.pot",
]


def prose(text: str) -> str:
    """Return Markdown without code."""
    return re.sub(r"(?ms)^```.*?^```|`[^`]*`", "", text)


def test_words_of_both_spellings_are_told_apart() -> None:
    text = (
        "The Color of a catalog; recognised. --color, `color`, color=red, Apache License, a license"
    )
    assert WRONG.findall(prose(text)) == ["Color", "catalog", "recognised", "license"]
    assert not WRONG.search("colour, catalogue, otherwise, promises, recognized, premises, licence")


@pytest.mark.parametrize("path", [*PAGES, *TEXTS], ids=lambda path: path.name)
def test_a_text_is_spelt_as_all_others(path: Path) -> None:
    text = path.read_text()
    assert WRONG.findall(text if path in TEXTS else prose(text)) == []
