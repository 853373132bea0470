"""docs/install.md on bare Debians with systemd: its commands word for word, in their order.

Debian's packages and the libraries are fetched before, and then there is no network. The upgrade
and the way back are those of docs/tasks.md; the next version is a commit that changes no more than
its number.
"""

import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from automx import __version__
from packages.conftest import Record
from packages.machines import Machine, booted, bootstrap, cut_off, repository, typed, with_network
from tests.bareroot import TRAP, Result
from tests.databases import run
from tests.processes import REPOSITORY
from tests.test_docs import blocks
from tests.test_docs_commands import INSTALLATION, faults, installation, uninstallation
from tests.test_release import git

TASKS = REPOSITORY / "docs" / "tasks.md"
BLOCKS = [each for each in installation() if "rc-service" not in each.text]
[PACKAGES] = re.findall(r"(?m)^apt-get install .*$", BLOCKS[0].text)
LATER = "99.0.0"
STATE = "systemctl show --property=ActiveState --property=Result --value"
ASK = "curl --silent 'http://127.0.0.1:4243/mail/config-v1.1.xml?emailaddress=alice@example.com'"
LEFT = "find /etc /srv /usr /var -xdev -name '*automx*' -not -path /srv/automx.git | sort"
ROWS = {
    suite: pytest.mark.row(f"{name}: the commands of the installation, under systemd")
    for suite, name in (("bookworm", "Debian 12"), ("trixie", "Debian 13"))
}


def beginning(start: str) -> str:
    """Return the block of docs/tasks.md that begins so."""
    [text] = [text for _, text in blocks(TASKS) if text.startswith(start)]
    return text


def follow(machine: Machine, texts: Sequence[str]) -> list[str]:
    """Run blocks of commands, each in a shell of its own, and return what each prints.

    The test fails if a command does, but for those that cannot succeed without a network.
    """
    results = []
    for text in texts:
        done = machine.attempt(f"exec bash -c {shlex.quote(TRAP + typed(text))} 2>&1")
        failed = machine.run("touch /tmp/failed && cat /tmp/failed && rm /tmp/failed")
        results.append(Result(done.returncode, done.stdout, failed.splitlines()))
    assert faults(results) == []
    return [result.output for result in results]


@dataclass(frozen=True)
class Installation:
    """A machine on which the page was followed; ``printed`` is what each of its blocks printed.

    ``origin`` is the repository that it has cloned.
    """

    machine: Machine
    origin: Path
    printed: Sequence[str] = ()

    def version(self) -> str:
        return self.machine.run("automx --version").split()[-1]


# One machine goes through the life of the installation; each fixture is its next state.


@pytest.fixture(
    scope="module", params=[pytest.param(suite, marks=row) for suite, row in ROWS.items()]
)
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The machine after the installation."""
    folder = tmp_path_factory.mktemp("install")
    root, origin = folder / "root", repository(folder)
    try:
        bootstrap(request.param, root, "--include=systemd,dbus")
        with_network(root, f"apt-get update\n{PACKAGES} --download-only")
        cut_off(root, origin, PACKAGES, "'.[postgresql,mysql]' hatchling")
        with booted(root, [origin], folder / "log") as machine:
            printed = follow(machine, [text for text, _ in BLOCKS])
            yield Installation(machine, folder / "automx.git", printed)
    finally:
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def upgraded(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The machine after an upgrade to the next version."""
    clone = tmp_path_factory.mktemp("later")
    run(["git", "clone", "--quiet", str(installed.origin), str(clone)], "")
    module = clone / "automx/__init__.py"
    module.write_text(module.read_text().replace(f'"{__version__}"', f'"{LATER}"'))
    git(clone, "commit", "--quiet", "--all", "--message", f"Release {LATER}")
    git(clone, "push", "--quiet")
    follow(installed.machine, [beginning("automx db current\nautomx backup ")])
    return installed


@pytest.fixture(scope="module")
def uninstalled(upgraded: Installation) -> Machine:
    """The machine after all was removed."""
    with_systemd, _ = uninstallation()
    follow(upgraded.machine, [with_systemd])
    return upgraded.machine


def test_the_service_answers_after_the_installation(
    installed: Installation, record_property: Record
) -> None:
    machine = installed.machine
    assert machine.run(f"{STATE} automx") == "success\nactive\n"
    assert machine.run("systemctl is-enabled automx") == "enabled\n"
    assert machine.run("curl --silent --fail http://127.0.0.1:4243/healthz") == "ok\n"
    process = machine.run("systemctl show --property=MainPID --value automx").strip()
    assert machine.run(f"stat -c '%U' /proc/{process}") == "automx\n"
    record_property("seen", "installed")


def test_commands_print_what_the_page_shows(installed: Installation) -> None:
    pairs = zip(installed.printed, BLOCKS, strict=True)
    shown = [(printed, block.output) for printed, block in pairs if block.output]
    assert [printed for printed, _ in shown] == [output for _, output in shown]
    assert len(shown) == 2
    [settings] = [text for _, text in blocks(INSTALLATION) if text.startswith("db_uri = ")]
    assert any(printed.startswith(settings) for printed in installed.printed)


def test_each_protocol_answers_for_the_domain_of_the_page(
    installed: Installation, record_property: Record
) -> None:
    [printed] = [text for text in installed.printed if "</Autodiscover>" in text]
    assert "ready\n" in printed
    assert printed.count("</clientConfig>") == 2
    assert printed.count("<hostname>imap.example.com</hostname>") == 2
    assert "<key>IncomingMailServerHostName</key>\n" in printed
    assert "<Server>imap.example.com</Server>" in printed
    record_property("seen", "answered for the example")


def test_the_timer_is_listed_and_does_its_work(
    installed: Installation, record_property: Record
) -> None:
    [listed] = [text for text in installed.printed if "automx-prune.timer" in text]
    assert re.search(r"automx-prune\.timer +automx-prune\.service\n", listed)
    installed.machine.run("systemctl start automx-prune")
    assert installed.machine.run(f"{STATE} automx-prune") == "success\ninactive\n"
    assert "Nothing to do.\n" in installed.machine.run("journalctl --output=cat -u automx-prune")
    record_property("seen", "timer ran")


def test_another_address_is_a_file_of_systemctl_edit(installed: Installation) -> None:
    [lines] = [text for info, text in blocks(INSTALLATION) if info == "ini"]
    folder = "/etc/systemd/system/automx.service.d"
    edit = f"mkdir {folder}\ncat >{folder}/override.conf <<'END'\n{lines}END\n"
    installed.machine.run(f"{edit}systemctl daemon-reload\nsystemctl restart automx")
    for address in ("127.0.0.1", "[::1]"):
        asked = f"curl --silent --fail http://{address}:8080/readyz"
        assert installed.machine.run(asked) == "ready\n"
    installed.machine.run("systemctl revert automx\nsystemctl restart automx")


def test_an_upgrade_takes_the_new_version_and_keeps_the_rows(
    upgraded: Installation, record_property: Record
) -> None:
    assert upgraded.version() == LATER
    assert "<hostname>imap.example.com</hostname>" in upgraded.machine.run(ASK)
    assert upgraded.machine.run(f"{STATE} automx") == "success\nactive\n"
    record_property("seen", "upgraded")


def test_the_older_version_comes_back_with_the_rows(
    upgraded: Installation, record_property: Record
) -> None:
    machine = upgraded.machine
    back = [
        beginning("systemctl stop automx\nautomx db downgrade "),
        beginning("cd /usr/local/src/automx\ngit reset "),
    ]
    follow(machine, back)
    assert upgraded.version() == __version__
    assert "<hostname>imap.example.com</hostname>" in machine.run(ASK)
    machine.run("automx domain del example.com")
    assert machine.run("automx domain list --names") == "example.net\n"
    follow(machine, [beginning("systemctl stop automx\nmv ")])
    assert "<hostname>imap.example.com</hostname>" in machine.run(ASK)
    record_property("seen", "taken back")


def test_only_the_database_is_left(uninstalled: Machine, record_property: Record) -> None:
    left = uninstalled.run(LEFT).splitlines()
    assert left == ["/var/lib/automx", "/var/lib/automx/automx.sqlite"]
    assert uninstalled.run("systemctl list-unit-files --no-legend 'automx*' || true") == ""
    assert uninstalled.run("systemctl list-units --no-legend 'automx*'") == ""
    assert uninstalled.attempt("id automx").returncode == 1
    record_property("seen", "uninstalled")
