"""Where the project is: one place says it, all files agree, and none guesses."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from automx.audit import SECRETS
from automx.models import metadata
from docs import manpages, project
from docs.project import FILES, IMAGE, ROOT, Project
from tests.processes import program

UNKNOWN = Project("automx")
GITHUB = Project("automx", "https://github.com/someone/automx-2")
OTHER = Project("automx", "https://git.example.org/mail/automx", "mailto:security@example.org")
FORM = Project("automx", "https://git.example.org/mail/automx", "https://example.org/report")


def content(known: Project) -> dict[str, str]:
    """Return all files as they are written for a project."""
    return {
        str(path.relative_to(ROOT)): written(known, path.read_text())
        for path, written in FILES.items()
    }


def test_each_file_says_what_pyproject_says() -> None:
    assert content(project.current()) == {
        str(path.relative_to(ROOT)): path.read_text() for path in FILES
    }, "make reference writes them"


def test_no_other_file_names_a_place_of_the_project() -> None:
    """An address that nobody has registered may be taken by a stranger."""
    tracked = subprocess.check_output(
        [program("git", "git"), "ls-files", "-z"], cwd=ROOT, text=True
    )
    hosts = rb"github\.com|gitlab\.com|codeberg\.org|ghcr\.io|docker\.io|pypi\.org/project"
    place = re.compile(rb"(?:" + hosts + rb")/automx\b|\bautomx\.(?:org|io|dev|net|readthedocs)\b")
    names = [name for name in tracked.split("\0") if name and (ROOT / name).is_file()]
    written = {str(path.relative_to(ROOT)) for path in FILES}
    names = [name for name in names if name not in {"pyproject.toml", *written}]
    found = {name: {*place.findall((ROOT / name).read_bytes())} for name in names}
    assert {name: places for name, places in found.items() if places} == {}


@pytest.mark.parametrize("known", [GITHUB, OTHER, FORM])
def test_all_files_change_with_the_address_and_back(known: Project) -> None:
    written = content(known)
    assert [name for name, text in written.items() if "ADDRESS" in text] == []
    for page in ("README.md", "CONTRIBUTING.md", "docs/install.md"):
        assert re.findall(r"(?m)^git clone (\S+) ", written[page]) == [known.repository]
    for path in FILES:
        name = str(path.relative_to(ROOT))
        assert FILES[path](UNKNOWN, written[name]) == content(UNKNOWN)[name]


def test_a_reader_is_told_what_to_write_while_no_address_is_known() -> None:
    written = content(UNKNOWN)
    for page in ("README.md", "CONTRIBUTING.md", "docs/install.md"):
        assert re.findall(r"(?m)^git clone (\S+) ", written[page]) == ["ADDRESS"]
        before = written[page].partition("git clone")[0].replace("\n", " ")
        assert "In place of `ADDRESS`, write the address of the page where you found" in before
    assert "There is no mail address" in written["SECURITY.md"]


@pytest.mark.parametrize(
    ("known", "way"),
    [
        (GITHUB, f"by [this form]({GITHUB.repository}/security/advisories/new)."),
        (OTHER, "by mail to <security@example.org>."),
        (FORM, "by [this form](https://example.org/report)."),
        (
            Project("automx", GITHUB.repository, OTHER.security),
            (
                f"by [this form]({GITHUB.repository}/security/advisories/new) or by mail to"
                " <security@example.org>."
            ),
        ),
    ],
)
def test_security_faults_have_a_way_that_is_true(known: Project, way: str) -> None:
    text = content(known)["SECURITY.md"]
    assert f"\nReport it privately, {way}\n" in text
    assert text.count("Report it privately") == 1


@pytest.mark.parametrize(
    ("known", "urls"),
    [
        (UNKNOWN, []),
        (GITHUB, [f"{GITHUB.repository}/security/advisories/new", f"{GITHUB.repository}#readme"]),
        (OTHER, [f"{OTHER.repository}#readme"]),
    ],
)
def test_the_forms_for_issues_link_to_what_exists(known: Project, urls: list[str]) -> None:
    links = yaml.safe_load(content(known)[".github/ISSUE_TEMPLATE/config.yml"])
    links = links.get("contact_links", [])
    assert [link["url"] for link in links] == urls


@pytest.mark.parametrize("known", [UNKNOWN, OTHER])
def test_the_image_and_the_man_page_name_the_source_only_if_it_is_known(known: Project) -> None:
    found = re.findall(r'image\.source="(.*)" \\\n', content(known)[str(IMAGE.relative_to(ROOT))])
    assert found == ([known.repository] if known.repository else [])
    assert ("HOMEPAGE" in manpages.home(known)) == bool(known.repository)


@pytest.mark.parametrize(
    "urls",
    [
        'Repository = "http://git.example.org/automx"',
        'Repository = "git@example.org:automx"',
        'Repository = "https://example.org/a b"',
        'Security = "security@example.org"',
        'Security = "mailto:a\\u001b@example.org"',
    ],
)
def test_what_is_no_address_is_refused(urls: str) -> None:
    with pytest.raises(ValueError, match=r"\[project.urls\]"):
        project.read(f'[project]\nname = "automx"\n[project.urls]\n{urls}\n')


def test_texts_about_drivers_name_the_package_and_its_extras() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for path in ("automx/config/__init__.py", "docs/deltachat.md", "docs/configuration.md"):
        for name, extra in re.findall(r"pip install '(\w+)\[(\w+)\]'", (ROOT / path).read_text()):
            assert name == project.current().name
            assert extra in table["optional-dependencies"]


def test_the_command_about_a_driver_needs_no_index_for_automx_itself(tmp_path: Path) -> None:
    """It is run where automx is installed: no stranger's package of that name is taken."""
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--dry-run", "--quiet"]
    result = subprocess.run(
        [*pip, "--report", str(tmp_path / "report"), "automx[redis]"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads((tmp_path / "report").read_text())["install"] == []


def test_security_names_each_secret_that_a_backup_holds() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    section = page.partition("## Backups\n")[2].partition("\n## ")[0]
    held = {c.name for table in metadata.tables.values() for c in table.columns} & {*SECRETS}
    assert held
    assert [name for name in held if f"`{name}`" not in section] == []
