"""What the package for Debian is made of; ``make test-packages`` builds it and tries it."""

import re
import subprocess
from pathlib import Path

import pytest

from packages import deb
from tests.commandline import automx
from tests.databases import run
from tests.processes import REPOSITORY, program

SCRIPTS = ("automx.postinst", "automx.prerm", "automx.postrm", "command", "launcher")


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_no_fault_in_the_scripts(name: str) -> None:
    # SC2043: a word of the launcher stands for several.
    command = [program("shellcheck", "shellcheck"), "--shell=sh", "--exclude=SC2043"]
    assert run([*command, str(deb.DEBIAN / name)], "") == ""


def test_units_are_those_of_contrib_with_the_path_of_the_package(tmp_path: Path) -> None:
    deb.write_units(tmp_path / "units")
    found = {path.name for path in (tmp_path / "units").iterdir()}
    timers = {f"{name}.timer" for name in deb.UNITS if name != "automx"}
    assert found == timers | {f"{name}.service" for name in deb.UNITS}
    for path in (tmp_path / "units").glob("*.service"):
        ours, theirs = (
            re.findall(r"(?m)^\w+=.*$", text)
            for text in (path.read_text(), (REPOSITORY / "contrib" / path.name).read_text())
        )
        changed = {line.partition("=")[0] for line in {*ours} ^ {*theirs}}
        assert changed <= {"Documentation", "ExecStart", "ExecStartPre"}
        assert all("/srv/" not in line for line in ours)


def test_settings_are_those_that_the_installation_ends_up_with(tmp_path: Path) -> None:
    deb.write_settings(tmp_path)
    settings = tmp_path / "etc/automx/automx.conf"
    lines = automx("config", env={"AUTOMX_CONF": str(settings)}).splitlines()
    assert [line for line in lines if not line.endswith("# default")] == [
        f"db_uri = sqlite:////var/lib/automx/automx.sqlite  # {settings}",
        f"proxy_count = 1  # {settings}",
    ]


def test_the_launcher_takes_the_newest_python_of_the_machine(tmp_path: Path) -> None:
    text = (deb.DEBIAN / "launcher").read_text().replace("/usr/lib/automx", str(tmp_path))
    text = text.replace("@FOLDERS@", " ".join(f"python{each}" for each in deb.PYTHONS))

    def launch() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", text, "automx", "db", "a b"], capture_output=True, text=True, check=False
        )

    nothing = launch()
    assert nothing.returncode == 1
    assert nothing.stderr.startswith("automx: there is no Python that this package has libraries")
    for version in ("3.11", "3.13"):  # as an upgrade of Debian brings them
        python = tmp_path / f"python{version}" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\necho {version} "$#" "$4"\n')
        python.chmod(0o755)
        assert launch().stdout == f"{version} 4 a b\n"


def test_the_trigger_names_the_python_of_the_newest_debian() -> None:
    triggers = (deb.DEBIAN / "automx.triggers").read_text()
    assert re.findall(r"(?m)^interest\S* (.*)$", triggers) == [f"/usr/bin/python{deb.PYTHONS[0]}"]
