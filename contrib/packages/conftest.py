"""``make test-packages`` writes what tests of packages have seen into docs/packages.md."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.processes import REPOSITORY

Record = Callable[[str, object], None]  # the fixture record_property
PAGE = REPOSITORY / "docs" / "packages.md"
BEGIN = "<!-- make test-packages writes this table -->\n"
END = "<!-- end of the table -->\n"


@pytest.fixture(scope="session")
def deb() -> Path:
    """Build the package for Debian and return its path; $DEB names one that is built already."""
    if path := os.environ.get("DEB"):
        return Path(path).resolve()
    result = subprocess.run(
        [sys.executable, "-m", "contrib.packages.deb"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip())


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write the row of a test that has said by ``record_property`` what it tried."""
    properties = dict(report.user_properties)
    if report.when != "call" or "tried" not in properties:
        return
    seen = properties.get("seen", "") if report.passed else f"**{report.outcome}**"
    row = f"| {properties['tried']} | {seen} | {datetime.now(UTC):%Y-%m-%d} |\n"
    head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    table, _, tail = rest.partition(END)
    title, line, *rows = table.splitlines(keepends=True)
    others = [each for each in rows if not each.startswith(f"| {properties['tried']} |")]
    text = "".join([head, BEGIN, title, line, *sorted([*others, row]), END, tail])
    PAGE.write_text(text, "utf-8")
