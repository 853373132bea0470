"""The steps of ``automx quickstart``: their commands are right on this machine."""

import subprocess
from pathlib import Path

import pytest

from automx import config, installation
from automx.config import Settings
from automx.installation import Service
from automx.quickstart.steps import Situation, remaining
from automx.webserver import Site

HOST = "automx.example.com"
SYSTEMD = Service("systemctl enable --now automx", "systemctl restart automx")


def situation(settings: Settings, *, service: Service | None = None) -> Situation:
    """Return a situation in which nothing is done but the rows."""
    return Situation(
        "example.com",
        Site(HOST, ["example.com"], [HOST]),
        "nginx",
        settings,
        findings=[],
        is_served=None,
        has_address=False,
        file=settings.file,
        service=service,
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[automx]\n", "[automx]\npublic_host = H\nproxy_count = 1\n"),
        ("[automx]", "[automx]\npublic_host = H\nproxy_count = 1\n"),
        (
            "[automx]\n#public_host =\n#proxy_count = 0\n",
            "[automx]\npublic_host = H\nproxy_count = 1\n",
        ),
        # Another section has keys of the same names, before and behind.
        (
            (
                "[source.a]\ntype = file\nfile = /a\n# proxy_count = 7\n[automx]\nproxy_count=0\n"
                "[zone.b]\n#public_host = b\n#proxy_count = 8\n"
            ),
            (
                "[source.a]\ntype = file\nfile = /a\n# proxy_count = 7\n[automx]\npublic_host = H\n"
                "proxy_count = 1\n[zone.b]\n#public_host = b\n#proxy_count = 8\n"
            ),
        ),
        (
            "[source.a]\ntype = file\nfile = /a\n#proxy_count = 7\n[automx]\n#proxy_count = 0\n",
            (
                "[source.a]\ntype = file\nfile = /a\n#proxy_count = 7\n[automx]\npublic_host = H\n"
                "proxy_count = 1\n"
            ),
        ),
        (
            "[automx]\n#proxy_count = 0\n[zone.b]\n#proxy_count = 8\n",
            "[automx]\npublic_host = H\nproxy_count = 1\n[zone.b]\n#proxy_count = 8\n",
        ),
        # A comment stays beside the key that has a value.
        (
            "[automx]\n#proxy_count = 0\nProxy_Count : 0\n",
            "[automx]\npublic_host = H\n#proxy_count = 0\nproxy_count = 1\n",
        ),
        (
            "[automx]\n# proxy_count = 2\n#proxy_count = 0\n",
            "[automx]\npublic_host = H\nproxy_count = 1\n# proxy_count = 2\n#proxy_count = 0\n",
        ),
        # There is no section.
        (
            "[source.a]\ntype = file\nfile = /a",
            "[source.a]\ntype = file\nfile = /a\n[automx]\npublic_host = H\nproxy_count = 1\n",
        ),
        (
            "[DEFAULT]\nloglevel = INFO\n",
            "[DEFAULT]\nloglevel = INFO\n\n[automx]\npublic_host = H\nproxy_count = 1\n",
        ),
    ],
)
@pytest.mark.parametrize("is_link", [False, True])
def test_settings_are_changed_in_the_section_of_automx_only(
    tmp_path: Path, before: str, after: str, is_link: bool
) -> None:
    file = place = tmp_path / "it's automx.conf"
    if is_link:
        place = tmp_path / "link"
        place.symlink_to(file)
    file.write_text(before)
    step = remaining(situation(config.load({"AUTOMX_CONF": str(place)})))[0]
    [command] = step.commands
    for _ in range(2):
        subprocess.run(["sh", "-c", command], check=True)
    assert file.read_text() == after.replace("H", HOST)
    settings = config.load({"AUTOMX_CONF": str(place)})
    assert (settings.public_host, settings.proxy_count) == (HOST, 1)


@pytest.mark.parametrize("program", ["automx", "automx2"])
def test_the_section_is_the_one_that_is_read(tmp_path: Path, program: str) -> None:
    """The name of the file does not decide: the variable does."""
    file = tmp_path / "automx2.conf"
    for before in (f"[{program}]\nproxy_count = 0\n", "[DEFAULT]\nloglevel = INFO\n"):
        file.write_text(before)
        environ = {f"{program.upper()}_CONF": str(file), "HOME": str(tmp_path)}
        [command] = remaining(situation(config.load(environ)))[0].commands
        for _ in range(2):
            subprocess.run(["sh", "-c", command], check=True)
        assert file.read_text().count(f"[{program}]") == 1
        assert config.load(environ).proxy_count == 1


@pytest.mark.parametrize(
    ("service", "restart", "start"),
    [(None, (), "automx serve"), (SYSTEMD, ("systemctl restart automx",), SYSTEMD.start)],
)
def test_a_service_is_started_by_its_own_command(
    tmp_path: Path, service: Service | None, restart: tuple[str, ...], start: str
) -> None:
    file = tmp_path / "automx.conf"
    file.write_text("[automx]\n")
    settings = config.load({"AUTOMX_CONF": str(file)})
    setting, starting, *_ = remaining(situation(settings, service=service))
    assert setting.commands[1:] == restart
    assert starting.commands == (start,)
    assert ("makes it a service" in starting.text) == (service is None)


@pytest.mark.parametrize(
    ("settings", "unit", "openrc", "expected"),
    [
        ("/etc/automx/automx.conf", True, False, SYSTEMD),
        (
            "/etc/automx/automx.conf",
            False,
            True,
            Service("rc-service automx start", "rc-service automx restart"),
        ),
        ("/etc/automx/automx.conf", False, False, None),
        # A checkout beside a package has settings of its own, and is no service.
        ("/home/alice/.automx.conf", True, True, None),
        (None, True, True, None),
    ],
)
def test_the_service_of_a_machine_is_found(
    tmp_path: Path, settings: str | None, unit: bool, openrc: bool, expected: Service | None
) -> None:
    files = [tmp_path / "automx.service", tmp_path / "automx"]
    for file, exists in zip(files, (unit, openrc), strict=True):
        if exists:
            file.touch()
    path = Path(settings) if settings else None
    assert installation.service(path, [files[0]], files[1]) == expected


def test_pages_are_named_as_they_are_found_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, docs = tmp_path / "automx", tmp_path / "docs"
    docs.mkdir()
    (docs / "check.md").touch()
    package, of_debian = tmp_path / "usr/lib/automx", tmp_path / "usr/share/doc/automx"
    of_debian.mkdir(parents=True)
    (of_debian / "check.md.gz").touch()
    (of_debian / "tls.md").touch()
    monkeypatch.setattr(installation, "_PACKAGE", package)
    monkeypatch.setattr(installation, "_PACKAGE_DOCS", of_debian)
    monkeypatch.setattr(installation, "_HERE", checkout)
    assert installation.page("check.md") == str(docs / "check.md")
    assert installation.page("tls.md") == "docs/tls.md"  # that of Debian is not ours
    monkeypatch.chdir(tmp_path)
    assert installation.page("check.md") == "docs/check.md"
    monkeypatch.setattr(installation, "_HERE", package / "python3.13/site-packages/automx")
    monkeypatch.chdir("/")
    assert installation.page("check.md") == str(of_debian / "check.md.gz")
    assert installation.page("tls.md") == str(of_debian / "tls.md")
    assert installation.page("none.md") == "docs/none.md"
