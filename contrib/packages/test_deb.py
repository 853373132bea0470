"""The package for Debian: installed, started, upgraded, removed and purged on a bare Debian."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from automx.cli import COMMANDS
from packages.conftest import Record
from packages.machines import Machine, debian
from tests.databases import run
from tests.processes import program, wait_until

SHOW = "systemctl show --property=ActiveState --property=Result --value automx"
ASK = (
    "curl --silent --fail --retry 30 --retry-connrefused --retry-delay 1"
    " 'http://127.0.0.1:4243/mail/config-v1.1.xml?emailaddress=alice@example.com'"
)
# What the sample has for Thunderbird.
SERVERS = ["imap.example.com", "pop3.example.com", "smtp.example.com", "smtp.example.com"]
INSTALL = "apt-get install --yes --no-install-recommends -o Dpkg::Options::=--force-confold"
FILES = """\
750 root:automx /etc/automx
640 root:automx /etc/automx/automx.conf
755 root:root /usr/bin/automx
755 root:root /usr/lib/automx/automx
750 automx:automx /var/lib/automx
600 automx:automx /var/lib/automx/automx.sqlite
"""
UNITS = """\
automx-backup.service static -
automx-backup.timer disabled enabled
automx-dns.service static -
automx-dns.timer disabled enabled
automx-prune.service static -
automx-prune.timer disabled enabled
automx-publish.service static -
automx-publish.timer disabled enabled
automx-sync.service static -
automx-sync.timer disabled enabled
automx.service enabled enabled
"""
COMPLETE = """\
. /usr/share/bash-completion/completions/automx
COMP_WORDS=(automx domain show ex) COMP_CWORD=3
_automx_completion automx
echo "${COMPREPLY[@]}"
"""
# Everything by this name, but for what belongs to no package or to this test.
FIND = (
    "find / -xdev -name '*automx*' -not -path '/packages/*' -not -path '/var/cache/apt/*'"
    " -not -path '/etc/*-' | sort"
)


def later_version(deb: Path, folder: Path) -> Path:
    """Return the same package as version 99.0, with another default in its settings."""
    tree, path = folder / "tree", folder / "later.deb"
    run(["dpkg-deb", "--raw-extract", str(deb), str(tree)], "")
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", "Version: 99.0", control.read_text()))
    settings = tree / "etc/automx/automx.conf"
    settings.write_text(settings.read_text() + "# A new setting.\n")
    run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(path)], "")
    return path


@pytest.fixture(scope="module")
def folder(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two versions of the package."""
    path = tmp_path_factory.mktemp("packages")
    path.chmod(0o755)
    (path / "first.deb").write_bytes(deb.read_bytes())
    later_version(deb, path)
    return path


def process_of(machine: Machine) -> str:
    return machine.run("systemctl show --property=MainPID --value automx").strip()


def servers_of(machine: Machine) -> list[str]:
    """Return the servers of the document that Thunderbird gets."""
    return re.findall(r"<hostname>(.*)</hostname>", machine.run(ASK))


ROWS = {
    suite: pytest.mark.row(f"{name}: the package under systemd, without a network")
    for suite, name in (("bookworm", "Debian 12"), ("trixie", "Debian 13"))
}


@pytest.mark.row("lintian")
def test_lintian_finds_no_error(deb: Path, record_property: Record) -> None:
    command = [program("lintian", "lintian"), "--allow-root", "--fail-on=error", str(deb)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    record_property("seen", f"no error, {result.stdout.count('W: ')} warnings")


# One machine goes through the life of the package; each fixture is its next state.


@pytest.fixture(
    scope="module", params=[pytest.param(suite, marks=row) for suite, row in ROWS.items()]
)
def bare(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A bare Debian with its systemd."""
    with debian(request.param, folder, tmp_path_factory.mktemp("machine") / "log") as machine:
        yield machine


@pytest.fixture(scope="module")
def installed(bare: Machine) -> Machine:
    """The machine with the package, and the sample in its database."""
    bare.run(f"{INSTALL} /packages/first.deb")
    # Root works in a folder that the user automx cannot enter.
    bare.run("automx seed --sample")
    return bare


@pytest.fixture(scope="module")
def upgraded(installed: Machine) -> Machine:
    """The machine with the next version; the administrator had changed settings and a timer."""
    installed.run("echo '# mine' >>/etc/automx/automx.conf")
    installed.run("chmod 600 /etc/automx/automx.conf; chown automx /etc/automx/automx.conf")
    installed.run("systemctl enable --now automx-prune.timer")
    before = process_of(installed)
    installed.run(f"{INSTALL} /packages/later.deb")
    wait_until(lambda: process_of(installed) not in {before, "0"}, "the restart")
    return installed


@pytest.fixture(scope="module")
def removed(upgraded: Machine) -> Machine:
    """The machine from which the package was removed."""
    upgraded.run("apt-get remove --yes automx")
    return upgraded


@pytest.fixture(scope="module")
def again(removed: Machine) -> Machine:
    """The machine on which it was installed a second time."""
    removed.run(f"{INSTALL} /packages/later.deb")
    return removed


def test_the_service_answers_when_the_package_is_installed(
    installed: Machine, record_property: Record
) -> None:
    assert installed.run(SHOW) == "success\nactive\n", installed.run("journalctl --unit=automx")
    assert servers_of(installed) == SERVERS
    assert installed.run(f"stat -c '%U' /proc/{process_of(installed)}") == "automx\n"
    record_property("seen", "installed")
    record_property("seen", "served")


def test_files_belong_to_root_and_the_user_automx(installed: Machine) -> None:
    paths = [line.split()[-1] for line in FILES.splitlines()]
    assert installed.run(f"stat -c '%a %U:%G %n' {' '.join(paths)}") == FILES
    assert installed.run("dpkg --verify automx") == ""


def test_the_service_is_on_and_all_timers_are_off(installed: Machine) -> None:
    units = installed.run("systemctl list-unit-files --no-legend 'automx*' | sort")
    assert re.sub(r" +", " ", units) == UNITS
    assert installed.run("systemctl list-timers --no-legend 'automx*'") == ""


def test_the_service_of_a_timer_does_its_work(installed: Machine) -> None:
    installed.run("systemctl start automx-prune")
    journal = installed.run("journalctl --output=cat --unit=automx-prune")
    assert "Nothing to do." in journal


def test_shells_complete_the_command(installed: Machine) -> None:
    found = installed.run(f"bash -s <<'END'\n{COMPLETE}END")
    assert found == "example.com example.net example.org\n"
    for shell, path in (
        ("zsh", "/usr/share/zsh/vendor-completions/_automx"),
        ("fish", "/usr/share/fish/vendor_completions.d/automx.fish"),
    ):
        assert installed.run(f"automx completion {shell}") == installed.run(f"cat {path}")


def test_there_is_a_man_page_of_each_command(installed: Machine) -> None:
    pages = installed.run("cd /usr/share/man/man1 && ls automx*").split()
    assert pages == sorted(["automx.1.gz", *(f"automx-{name}.1.gz" for name in COMMANDS)])
    page = installed.run("gzip -dc /usr/share/man/man1/automx-domain.1.gz")
    assert ".SS automx domain disable\n" in page


def test_an_upgrade_keeps_settings_database_and_timers(
    upgraded: Machine, record_property: Record
) -> None:
    assert upgraded.run("dpkg-query --show -f '${Version}' automx") == "99.0"
    assert servers_of(upgraded) == SERVERS
    settings = upgraded.run("tail -1 /etc/automx/automx.conf; stat -c %a /etc/automx/automx.conf")
    assert settings == "# mine\n600\n"
    assert upgraded.run("systemctl is-active automx-prune.timer") == "active\n"
    record_property("seen", "upgraded")


def test_settings_and_database_stay_when_the_package_is_removed(
    removed: Machine, record_property: Record
) -> None:
    assert removed.run("systemctl is-active automx || true") == "inactive\n"
    assert removed.run("systemctl is-active automx-prune.timer || true") == "inactive\n"
    removed.run("test ! -e /usr/lib/automx && test ! -e /usr/bin/automx")
    removed.run("test -e /etc/automx/automx.conf && test -e /var/lib/automx/automx.sqlite")
    record_property("seen", "removed")


def test_a_second_installation_finds_all_as_it_was(again: Machine, record_property: Record) -> None:
    assert servers_of(again) == SERVERS
    record_property("seen", "installed again")


def test_only_the_database_stays_when_the_package_is_purged(
    again: Machine, record_property: Record
) -> None:
    again.run("echo secret >/etc/automx/db_uri")
    result = again.attempt("apt-get purge --yes automx")
    assert result.returncode == 0, result.stderr
    said = "The database of automx stays: rm -r /var/lib/automx removes it."
    assert said in result.stdout + result.stderr
    assert again.run(FIND).splitlines() == ["/var/lib/automx", "/var/lib/automx/automx.sqlite"]
    assert again.run("systemctl list-unit-files --no-legend 'automx*' || true") == ""
    record_property("seen", "purged")
