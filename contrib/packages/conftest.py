"""``make test-packages`` writes what tests of packages have seen into docs/packages.md."""

import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from packages.images import Image, built_image
from tests.processes import REPOSITORY

Record = Callable[[str, object], None]  # the fixture record_property
PAGE = REPOSITORY / "docs" / "packages.md"
BEGIN = "<!-- make test-packages writes this table -->\n"
END = "<!-- end of the table -->\n"
FAILED = "**failed**"
SEEN = pytest.StashKey[dict[str, list[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    """Let tests name the row of the table that they belong to."""
    config.addinivalue_line("markers", "row(what): what the tests of a row of the table have tried")
    config.stash[SEEN] = {}


@pytest.fixture(scope="session")
def deb() -> Path:
    """Build the package for Debian and return its path; $DEB names one that is built already."""
    if path := os.environ.get("DEB"):
        return Path(path).resolve()
    result = subprocess.run(
        [sys.executable, "-m", "contrib.packages.deb"],
        cwd=REPOSITORY,
        env=os.environ | {"DEBEMAIL": "packages@example.org"},  # lintian wants a real host
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip())


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Build the image for containers."""
    with built_image(tmp_path_factory.mktemp("image")) as image:
        yield image


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write into the row of a test what it has said by ``record_property("seen", ...)``.

    The tests of a row say it in their order. If one of them fails, the row says no more than that.
    """
    report = yield
    row = item.get_closest_marker("row")
    if row is not None and (report.when == "call" or not report.passed):
        [what] = row.args
        said = [str(value) for name, value in item.user_properties if name == "seen"]
        seen = item.config.stash[SEEN].setdefault(what, [])
        seen += said if report.passed else [FAILED]
        write(what, FAILED if FAILED in seen else ", ".join(seen))
    return report


def write(what: str, seen: str) -> None:
    """Write a row of the table; the others stay."""
    row = f"| {what} | {seen} | {datetime.now(UTC):%Y-%m-%d} |\n"
    head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    table, _, tail = rest.partition(END)
    title, line, *rows = table.splitlines(keepends=True)
    others = [each for each in rows if not each.startswith(f"| {what} |")]
    text = "".join([head, BEGIN, title, line, *sorted([*others, row]), END, tail])
    PAGE.write_text(text, "utf-8")
