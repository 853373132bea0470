"""Releases: what is refused, and the workflows that test and publish."""

import io
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from automx import __version__
from docs import release
from tests.databases import run
from tests.processes import REPOSITORY, program

WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))
METADATA = """\
Metadata-Version: 2.4
Name: automx
Version: {version}
Summary: {summary}
License-Expression: Apache-2.0
Description-Content-Type: text/markdown

# automx
"""


def git(folder: Path, *words: str) -> None:
    settings = ("user.name=A", "user.email=a@example.com", "commit.gpgsign=no", "tag.gpgsign=no")
    options = [word for setting in settings for word in ("-c", setting)]
    run([program("git", "git"), "-C", str(folder), *options, *words], "")


def write(folder: Path, version: str, heading: str) -> None:
    (folder / "automx").mkdir(exist_ok=True)
    (folder / "automx/__init__.py").write_text(f'"""A."""\n\n__version__ = "{version}"\n')
    (folder / "CHANGELOG.md").write_text(
        f"# Changelog\n\n{heading}\n\n- x\n\n## [0.9.0] - 2025-01-01\n"
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of which version 1.2.0 may be released."""
    git(tmp_path, "init", "--quiet")
    write(tmp_path, "1.2.0", "## [1.2.0] - 2026-12-24")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message", "Release 1.2.0")
    git(tmp_path, "tag", "--annotate", "v1.2.0", "--message", "automx 1.2.0")
    return tmp_path


def test_a_release_is_made_if_tag_version_and_changelog_agree(checkout: Path) -> None:
    assert [*release.faults(checkout, "v1.2.0")] == []


def committed(version: str, heading: str) -> Callable[[Path], None]:
    """Return what commits other files, and moves the tag there."""

    def change(folder: Path) -> None:
        write(folder, version, heading)
        git(folder, "commit", "--all", "--message", "x")
        git(folder, "tag", "--force", "v1.2.0")

    return change


@pytest.mark.parametrize(
    ("change", "tag", "fault"),
    [
        (
            committed("1.2.0", "## [1.2.0] - unreleased"),
            "v1.2.0",
            "CHANGELOG.md: 1.2.0 needs the day of the release (YYYY-MM-DD), not: unreleased",
        ),
        (
            committed("1.2.0", "## [1.3.0] - 2026-12-24"),
            "v1.2.0",
            "CHANGELOG.md begins with 1.3.0, and the version is 1.2.0",
        ),
        (
            committed("1.2.1", "## [1.2.1] - 2026-12-24"),
            "v1.2.0",
            "the tag v1.2.0 is not v1.2.1, by the version in automx/__init__.py",
        ),
        (
            lambda folder: git(folder, "tag", "--delete", "v1.2.0"),
            "v1.2.0",
            'there is no tag v1.2.0: git tag --sign v1.2.0 --message "automx 1.2.0"',
        ),
        (
            lambda folder: git(folder, "commit", "--allow-empty", "--message", "later"),
            "v1.2.0",
            "the tag v1.2.0 is at another commit: ",
        ),
        (
            lambda folder: write(folder, "1.2.0", "## [1.2.0] - 2026-12-25"),
            "v1.2.0",
            "there are changes without a commit: M CHANGELOG.md",
        ),
        (
            lambda folder: (folder / "new").touch(),
            "v1.2.0",
            "there are changes without a commit: ?? new",
        ),
    ],
)
def test_a_release_is_refused(
    checkout: Path, change: Callable[[Path], Any], tag: str, fault: str
) -> None:
    change(checkout)
    [found] = release.faults(checkout, tag)
    assert found.startswith(fault)


@pytest.mark.parametrize("version", ["", "next", "1.2.0-rc1", "v1.2.0"])
def test_a_version_that_packages_could_not_have_is_refused(checkout: Path, version: str) -> None:
    write(checkout, version, f"## [{version}] - 2026-12-24")
    assert any(
        "PEP 440" in line or "is no version" in line for line in release.faults(checkout, "v1")
    )


def wheel(folder: Path, text: str) -> Path:
    path = folder / "automx-1.2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("automx-1.2.0.dist-info/METADATA", text)
    return path


def source(folder: Path, text: str) -> Path:
    path = folder / "automx-1.2.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("automx-1.2.0/PKG-INFO")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize("packed", [wheel, source])
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (METADATA.format(version="1.2.0", summary="Mail"), None),
        (METADATA.format(version="1.2.1", summary="Mail"), "has the version 1.2.1, not 1.2.0"),
        (METADATA.format(version="1.2.0", summary="Mail").partition("\n\n")[0], "has no README"),
        (METADATA.format(version="x", summary="Mail"), "version"),
        ("Metadata-Version: 2.4\nName: automx\n", "version"),
        (
            METADATA.format(version="1.2.0", summary="Mail").replace("Apache-2.0", "Free"),
            "license-expression",
        ),
    ],
)
def test_metadata_that_an_index_would_refuse_is_told(
    tmp_path: Path, packed: Callable[[Path, str], Path], text: str, fault: str | None
) -> None:
    found = [*release.faults_of_file(packed(tmp_path, text), "1.2.0")]
    assert bool(found) == bool(fault)
    assert any((fault or "") in line for line in found) == bool(fault)


@pytest.mark.parametrize("name", ["a.whl", "a.tar.gz"])
def test_a_file_that_is_no_package_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive")
    [found] = release.faults_of_file(tmp_path / name, "1.2.0")
    assert found.startswith(f"{name} cannot be read: ")


def test_the_newest_section_of_the_changelog_is_that_of_the_version() -> None:
    version, day = release.newest(REPOSITORY)
    assert version == __version__ == release.version(REPOSITORY)
    assert day == "unreleased" or re.fullmatch(r"\d{4}-\d\d-\d\d", day)


def test_the_version_stands_in_one_place() -> None:
    pattern = '^(__)?version(__)? *= *"'
    command = [program("git", "git"), "grep", "--files-with-matches", "-E", pattern]
    found = subprocess.check_output([*command, "--", "*.py", "*.toml"], cwd=REPOSITORY, text=True)
    assert found.split() == ["automx/__init__.py"]


def steps(path: Path) -> list[dict[str, Any]]:
    """Return all steps of a workflow."""
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    return [step for job in jobs for step in job.get("steps", [])]


def test_continuous_integration_and_releases_run_what_people_run() -> None:
    targets = {*re.findall(r"(?m)^([a-z-]+):", (REPOSITORY / "Makefile").read_text())}
    commands = [step["run"] for path in WORKFLOWS for step in steps(path) if "run" in step]
    made = [name for text in commands for name in re.findall(r"(?m)^make ([a-z-]+)", text)]
    assert made == ["release"]
    assert targets >= {*made}
    assert "bash .ci/run" in commands


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ("github-workflows", "workflows/*.yml"),
        ("dependabot", "dependabot.yml"),
        ("github-issue-forms", "ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", "ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_files_of_github_have_the_form_that_it_reads(schema: str, names: str) -> None:
    paths = sorted((REPOSITORY / ".github").glob(names))
    assert paths
    command = [sys.executable, "-m", "check_jsonschema", f"--builtin-schema=vendor.{schema}"]
    assert run([*command, *map(str, paths)], "") == "ok -- validation done\n"


def test_each_file_that_names_versions_of_others_is_kept_up_to_date() -> None:
    tracked = run(["git", "-C", str(REPOSITORY), "ls-files"], "").splitlines()
    ecosystems = {
        "pyproject.toml": "pip",
        "Dockerfile": "docker",
        "compose.yaml": "docker-compose",
    }
    expected = {
        (ecosystems[path.name], f"/{path.parent}".removesuffix("."))
        for path in map(Path, tracked)
        if path.name in ecosystems
    }
    updates = yaml.safe_load((REPOSITORY / ".github/dependabot.yml").read_text())["updates"]
    found = {(update["package-ecosystem"], update["directory"]) for update in updates}
    assert found == expected | {("github-actions", "/")}


def test_no_workflow_has_a_known_fault_of_security() -> None:
    command = [str(Path(sys.executable).with_name("zizmor")), "--offline", "--min-severity=medium"]
    result = subprocess.run(
        [*command, str(REPOSITORY / ".github")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_shellcheck_finds_no_fault_in_the_commands_of_workflows(path: Path) -> None:
    for step in steps(path):
        if "run" in step:
            command = [program("shellcheck", "shellcheck"), "--shell=bash", "-"]
            assert run(command, step["run"]) == ""


def test_a_release_waits_for_the_tests_and_has_no_more_rights_than_it_needs() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/release.yml").read_text())
    jobs = workflow["jobs"]
    assert (jobs["build"]["needs"], jobs["publish"]["needs"]) == ("test", "build")
    assert jobs["test"]["uses"] == "./.github/workflows/ci.yml"
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
