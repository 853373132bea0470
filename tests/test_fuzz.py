"""Each parser keeps its promise for odd bytes: the targets of ``make fuzz``, for a short time."""

import logging
from collections.abc import Iterator
from random import Random

import pytest

from tests.fuzz import CORPUS
from tests.fuzz.promises import LARGE, REPEATED, expanded
from tests.fuzz.targets import TARGETS, corpus, run

NAMES = sorted(TARGETS)
# Those that need a thousandth of a second or more get fewer inputs.
SLOW = {"dns_answer", "documents", "http_request", "ldap_answer", "mailadm_rows", "settings_file"}
SLOW |= {"mailadm_file", "mailcow_answer", "web_checks"}

PIECES = (
    *(b"", b"\n", b"\r\n", b"\0", b" ", b".", b"%", b"@", b"/", b"//", b"?", b"#", b":"),
    *(b"[", b"]", b"{", b"}", b"<", b"&", b'"', b"'", b"\\", b"=", b",", b";", b"|", b"-1"),
    *(b"9" * 20, b"xn--", b"%EMAILADDRESS%", b"null", b"None", b"1e999", b"\\ud800"),
    *(text.encode("utf-8", "surrogatepass") for text in ("ß", "\u0130", "\u2028", "\ud800", "😀")),
)


@pytest.fixture(scope="module", autouse=True)
def _silent() -> Iterator[None]:
    """Write no log: to format thousands of lines takes longer than the parsers do."""
    logger = logging.getLogger("automx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@pytest.mark.parametrize("name", NAMES)
def test_a_parser_keeps_its_promise_for_each_file_of_its_corpus(name: str) -> None:
    for path in corpus(name):
        run(name, path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_a_parser_keeps_its_promise_for_random_changes_of_its_corpus(name: str) -> None:
    real = [data for path in corpus(name) if not (data := path.read_bytes()).startswith(REPEATED)]
    random = Random(name)
    for _ in range(20 if name in SLOW else 200):
        data = random.choice(real)
        for _ in range(random.randint(1, 4)):
            begin, length = random.randint(0, len(data)), random.randint(0, 4)
            piece = random.choice((random.choice(PIECES), random.randbytes(length)))
            data = data[:begin] + piece + data[begin + length :]
        try:
            run(name, data)
        except Exception as error:
            error.add_note(f"The input was {data!r}.")
            raise


def test_each_folder_of_the_corpus_belongs_to_a_target() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == NAMES


def test_a_short_form_stands_for_a_large_input() -> None:
    large = expanded(b"\xffa\xffbc\xffd")
    assert large == b"a" + b"bc" * (LARGE // 2) + b"d"
    assert expanded(b"\xffa\xff\xff") == b"\xffa\xff\xff"
