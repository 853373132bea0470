"""The package for Debian: installed, started, upgraded, removed and purged on a bare Debian."""

import re
import subprocess
from pathlib import Path

import pytest

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


def test_lintian_finds_no_error(deb: Path, record_property: Record) -> None:
    record_property("tried", "lintian")
    command = [program("lintian", "lintian"), "--allow-root", "--fail-on=error", str(deb)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    record_property("seen", f"no error, {result.stdout.count('W: ')} warnings")


@pytest.mark.parametrize(("suite", "name"), [("bookworm", "Debian 12"), ("trixie", "Debian 13")])
def test_the_package_lives_as_debian_expects(
    folder: Path, tmp_path: Path, suite: str, name: str, record_property: Record
) -> None:
    record_property("tried", f"{name}: the package under systemd, without a network")
    with debian(suite, folder, tmp_path / "log") as machine:
        # Installed
        machine.run(f"{INSTALL} /packages/first.deb")
        assert machine.run(SHOW) == "success\nactive\n", machine.run("journalctl --unit=automx")
        # Root works in a folder that the user automx cannot enter.
        machine.run("automx seed --sample")
        assert servers_of(machine) == SERVERS
        assert machine.run(f"stat -c '%U' /proc/{process_of(machine)}") == "automx\n"
        paths = [line.split()[-1] for line in FILES.splitlines()]
        assert machine.run(f"stat -c '%a %U:%G %n' {' '.join(paths)}") == FILES
        units = machine.run("systemctl list-unit-files --no-legend 'automx*' | sort")
        assert re.sub(r" +", " ", units) == UNITS
        assert machine.run("systemctl list-timers --no-legend 'automx*'") == ""
        assert machine.run("dpkg --verify automx") == ""
        machine.run("systemctl start automx-prune")
        journal = machine.run("journalctl --output=cat --unit=automx-prune")
        assert "Nothing to do." in journal

        # Completion and man pages
        found = machine.run(f"bash -s <<'END'\n{COMPLETE}END")
        assert found == "example.com example.net example.org\n"
        for shell, path in (
            ("zsh", "/usr/share/zsh/vendor-completions/_automx"),
            ("fish", "/usr/share/fish/vendor_completions.d/automx.fish"),
        ):
            assert machine.run(f"automx completion {shell}") == machine.run(f"cat {path}")
        page = machine.run("gzip -dc /usr/share/man/man1/automx-domain.1.gz")
        assert ".SS automx domain disable\n" in page

        # Upgraded: settings, rights and database stay, and the service has started again.
        machine.run("echo '# mine' >>/etc/automx/automx.conf")
        machine.run("chmod 600 /etc/automx/automx.conf; chown automx /etc/automx/automx.conf")
        before = process_of(machine)
        machine.run("systemctl enable --now automx-prune.timer")
        machine.run(f"{INSTALL} /packages/later.deb")
        assert machine.run("dpkg-query --show -f '${Version}' automx") == "99.0"
        wait_until(lambda: process_of(machine) not in {before, "0"}, "the restart")
        assert servers_of(machine) == SERVERS
        settings = machine.run(
            "tail -1 /etc/automx/automx.conf; stat -c %a /etc/automx/automx.conf"
        )
        assert settings == "# mine\n600\n"
        assert machine.run("systemctl is-active automx-prune.timer") == "active\n"

        # Removed: only settings and data stay.
        machine.run("apt-get remove --yes automx")
        assert machine.run("systemctl is-active automx || true") == "inactive\n"
        assert machine.run("systemctl is-active automx-prune.timer || true") == "inactive\n"
        machine.run("test ! -e /usr/lib/automx && test ! -e /usr/bin/automx")
        machine.run("test -e /etc/automx/automx.conf && test -e /var/lib/automx/automx.sqlite")

        # Installed again: all is as it was.
        machine.run(f"{INSTALL} /packages/later.deb")
        assert servers_of(machine) == SERVERS

        # Purged: the database stays, and it is said how to remove it.
        machine.run("echo secret >/etc/automx/db_uri")
        result = machine.attempt("apt-get purge --yes automx")
        assert result.returncode == 0, result.stderr
        said = "The database of automx stays: rm -r /var/lib/automx removes it."
        assert said in result.stdout + result.stderr
        assert machine.run(FIND).splitlines() == [
            "/var/lib/automx",
            "/var/lib/automx/automx.sqlite",
        ]
        assert machine.run("systemctl list-unit-files --no-legend 'automx*' || true") == ""
    record_property("seen", "installed, served, upgraded, removed, installed again, purged")
