"""What contrib gives to administrators works as it is: services, scripts, the Caddyfile."""

import os
import re
import site
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from automx.migrations import head
from tests.commandline import automx
from tests.databases import Instance, run
from tests.processes import AUTOMX, REPOSITORY, program, running

CONTRIB = REPOSITORY / "contrib"
SCRIPTS = [*sorted(CONTRIB.glob("*.sh")), CONTRIB / "automx.openrc"]
TIMED = ["automx-prune", "automx-sync", "automx-dns", "automx-publish", "automx-backup"]
SERVICES = ["automx.service", *(f"{name}.service" for name in TIMED)]
TIMERS = ["automx-certbot.timer", *(f"{name}.timer" for name in TIMED)]
PUBLISHED = "/var/cache/automx-published"
CADDYFILES = ["Caddyfile", "Caddyfile.on-demand"]
INSTALLED = "/srv/automx/bin/automx"  # where the services look for the program


def unit(folder: Path, name: str = "automx.service") -> Path:
    """Return a copy of a systemd unit with the program that is tested."""
    text = (CONTRIB / name).read_text()
    assert INSTALLED in text
    path = folder / name
    path.write_text(text.replace(INSTALLED, str(AUTOMX)))
    return path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; it needs no running systemd."""
    return subprocess.run(
        [program("systemd-analyze", "systemd"), *map(str, arguments)],
        env={**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    program = tmp_path / "automx-certbot"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    certbot = (CONTRIB / "automx-certbot.service").read_text()
    assert "ExecStart=/usr/local/sbin/automx-certbot\n" in certbot
    certbot = certbot.replace("/usr/local/sbin/automx-certbot", str(program))
    (tmp_path / "automx-certbot.service").write_text(certbot)
    timers = [tmp_path / name for name in TIMERS]
    for timer in timers:
        timer.write_text((CONTRIB / timer.name).read_text())
    units = [*(unit(tmp_path, name) for name in SERVICES), tmp_path / "automx-certbot.service"]
    result = analyze("verify", "--man=no", *units, *timers)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("name", SERVICES)
def test_systemd_calls_the_unit_safe(tmp_path: Path, name: str) -> None:
    result = analyze("security", "--offline=true", "--no-pager", unit(tmp_path, name))
    exposure = re.search(r"Overall exposure level for [\w.-]+: ([\d.]+)", result.stdout)
    assert exposure, result.stderr
    assert float(exposure[1]) <= 1.5


@pytest.mark.parametrize("name", SERVICES[1:])
def test_all_units_run_as_the_same_user_with_the_same_limits_and_settings(name: str) -> None:
    service, timed = (
        set(re.findall(r"(?m)^\w+=.*$", (CONTRIB / each).read_text()))
        for each in ("automx.service", name)
    )
    own = {"Description", "After", "Type", "ExecStart"}
    some = {"SuccessExitStatus", "CacheDirectory", "CacheDirectoryMode"}
    assert {line.partition("=")[0] for line in timed - service} - some == own


def test_the_folder_of_published_files_is_the_same_for_systemd_and_nginx() -> None:
    service = (CONTRIB / "automx-publish.service").read_text()
    assert f"\nCacheDirectory={PUBLISHED.removeprefix('/var/cache/')}\n" in service
    roots = re.findall(r"alias ([^\s$]+)\$", (CONTRIB / "nginx-published.conf").read_text())
    assert {*roots} - {"/var/www/html"} == {PUBLISHED}


def test_nginx_with_published_files_has_all_that_nginx_has_without() -> None:
    """Between "published:" and "end" stands what is new; the head of the file is another one."""
    plain, published = (
        (CONTRIB / name).read_text().partition("# What automx reads:")[2]
        for name in ("nginx.conf", "nginx-published.conf")
    )
    new = re.compile(r"(?m)^ *# published:.*\n(?:.*\n)*?^ *# end\n\n?")
    assert len(new.findall(published)) == 3
    assert new.sub("", published) == plain


def test_the_timer_of_dns_runs_the_command_of_the_documentation() -> None:
    text = (CONTRIB / "automx-dns.timer").read_text()
    (line,) = re.findall(r"(?m)^#     (\*/10 \* \* \* \* .*)$", text)
    command = f"{INSTALLED} dns-apply --all --yes"
    assert line == f"*/10 * * * * STATE_DIRECTORY=/var/lib/automx {command} >/dev/null"
    assert f"\n{line}\n" in (REPOSITORY / "docs" / "dns.md").read_text()
    assert f"ExecStart={command}\n" in (CONTRIB / "automx-dns.service").read_text()


def test_the_timer_of_backups_runs_the_command_of_the_documentation() -> None:
    text = (CONTRIB / "automx-backup.timer").read_text()
    (line,) = re.findall(r"(?m)^#     (15 3 \* \* \* .*)$", text)
    command = f'{INSTALLED} backup "/var/lib/automx/backup-$(date +%a).gz"'
    of_cron = command.replace("%", r"\%")  # a plain one is a line end there
    assert line == f"15 3 * * * STATE_DIRECTORY=/var/lib/automx {of_cron} >/dev/null"
    assert f"\n{line}\n" in (REPOSITORY / "docs" / "database.md").read_text()
    of_systemd = command.replace("$", "$$").replace("%", "%%")
    assert (
        f"ExecStart=/bin/sh -c 'exec {of_systemd}'\n"
        in (CONTRIB / "automx-backup.service").read_text()
    )


def test_command_of_the_timer_finds_the_database_of_the_service(tmp_path: Path) -> None:
    env = {"AUTOMX_CONF": "/dev/null", "STATE_DIRECTORY": str(tmp_path)}
    automx("db", "upgrade", env=env)
    text = unit(tmp_path, "automx-prune.service").read_text()
    (command,) = re.findall(r"(?m)^ExecStart=(.*)$", text)
    result = subprocess.run(
        command.split(), env={**os.environ, **env}, check=True, capture_output=True, text=True
    )
    assert (result.stdout, result.stderr) == ("Nothing to do.\n", "")


@pytest.mark.parametrize(
    ("name", "minutes", "command", "of_cron", "page"),
    [
        ("automx-prune", 10, "prune", "prune", "install.md"),
        ("automx-sync", 5, "sync", "sync --due", "sources.md"),
        ("automx-publish", 1, f"publish {PUBLISHED}", f"publish {PUBLISHED}", "publishing.md"),
    ],
)
def test_cron_runs_the_same_command_as_the_timer(
    name: str, minutes: int, command: str, of_cron: str, page: str
) -> None:
    text = (CONTRIB / f"{name}.timer").read_text()
    (line,) = re.findall(rf"(?m)^#     \*/{minutes} \* \* \* \* (.*)$", text)
    assert line == f"STATE_DIRECTORY=/var/lib/automx {INSTALLED} {of_cron} >/dev/null"
    assert f"OnCalendar=*:0/{minutes}\n" in text
    assert f"\n*/{minutes} * * * * {line}\n" in (REPOSITORY / "docs" / page).read_text()
    assert f"ExecStart={INSTALLED} {command}\n" in (CONTRIB / f"{name}.service").read_text()


def test_commands_of_the_unit_migrate_and_tell_systemd_that_they_are_ready(tmp_path: Path) -> None:
    commands = dict(re.findall(r"(?m)^(ExecStart\w*)=(.*)$", unit(tmp_path).read_text()))
    state, notify = tmp_path / "state", tmp_path / "notify"
    state.mkdir()
    env = {"AUTOMX_CONF": "/dev/null", "STATE_DIRECTORY": str(state), "NOTIFY_SOCKET": str(notify)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = commands["ExecStart"].replace("--port 4243", f"--port {port}").split()
    assert str(port) in serve

    upgraded = subprocess.run(
        commands["ExecStartPre"].split(), env={**os.environ, **env}, check=True, capture_output=True
    )
    assert b"up to date" in upgraded.stdout
    assert (state / "automx.sqlite").exists()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(notify))
        systemd.settimeout(30)
        with running(serve, tmp_path / "log", ready=lambda: True, env=env) as service:
            assert systemd.recv(100) == b"READY=1"
            assert service.stop() == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_script_is_clean_and_portable(script: Path) -> None:
    unused = ["--exclude=SC2034"] if script.suffix == ".openrc" else []  # OpenRC reads them
    command = [program("shellcheck", "shellcheck"), "--shell=sh", *unused, str(script)]
    assert run(command, "") == ""
    assert run(["sh", "-n", str(script)], "") == ""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_as_executable_as_its_use_needs(script: Path) -> None:
    assert os.access(script, os.X_OK) == (script.suffix == ".sh")


def test_openrc_and_systemd_start_the_same_command() -> None:
    (started,) = re.findall(r"(?m)^ExecStart=(.*)$", (CONTRIB / "automx.service").read_text())
    script = (CONTRIB / "automx.openrc").read_text()
    shell = script.partition("depend()")[0] + '\necho "$command $command_args"'
    assert run(["sh"], shell) == f"{started}\n"


@pytest.mark.parametrize("name", CADDYFILES)
def test_caddy_finds_no_fault_in_the_caddyfile(tmp_path: Path, name: str) -> None:
    caddy, file = program("caddy", "caddy"), str(CONTRIB / name)
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}
    result = subprocess.run(
        [caddy, "validate", "--adapter", "caddyfile", "--config", file],
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert '"level":"warn"' not in result.stderr
    assert run([caddy, "fmt", file], "") == (CONTRIB / name).read_text()


def test_both_caddyfiles_pass_requests_on_alike() -> None:
    listed, on_demand = ((CONTRIB / name).read_text() for name in CADDYFILES)
    behind_another = re.compile(r"(?m)^\t\t# CHANGE: behind another proxy.*\n(?:\t\t# .*\n)+")
    snippet = re.compile(r"(?m)^\(automx\) \{\n(?:.*\n)*?\}\n")
    found = snippet.findall(on_demand)
    assert [behind_another.sub("", text) for text in snippet.findall(listed)] == found
    assert len(found) == 1


def provider_sql(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run provider-sql.sh with some of its variables set."""
    return subprocess.run(
        ["sh", str(CONTRIB / "provider-sql.sh"), *arguments],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
    )


OREILLY = {
    "PROVIDER_NAME": 'O\'Reilly \\ "Söhne" $HOME `id` %s; DROP TABLE provider;--',
    "PROVIDER_SHORT_NAME": "O'Reilly",
    "DOMAINS": "oreilly.example *.oreilly.example",
    "IMAP_HOSTS": "imap.oreilly.example imap.oreilly.example:143",
    "POP_HOSTS": "pop.oreilly.example",
    "SMTP_HOSTS": "smtp.oreilly.example smtp.oreilly.example:587",
    "CALDAV_URLS": "https://dav.oreilly.example:8443/%EMAILADDRESS%/ http://[::1]/",
    "CARDDAV_URLS": "https://dav.oreilly.example/",
    "USER_NAME": "%EMAILLOCALPART%",
}

OREILLY_ROWS = f"""\
2|{OREILLY["PROVIDER_NAME"]}|O'Reilly
3|oreilly.example|2
4|*.oreilly.example|2
4|10|imap.oreilly.example|993|imap|SSL|%EMAILLOCALPART%|plain
5|20|imap.oreilly.example|143|imap|STARTTLS|%EMAILLOCALPART%|plain
6|10|pop.oreilly.example|995|pop|SSL|%EMAILLOCALPART%|plain
7|10|smtp.oreilly.example|465|smtp|SSL|%EMAILLOCALPART%|plain
8|20|smtp.oreilly.example|587|smtp|STARTTLS|%EMAILLOCALPART%|plain
1|https://dav.oreilly.example:8443/%EMAILADDRESS%/|8443|caldav|%EMAILLOCALPART%
2|http://[::1]/|80|caldav|%EMAILLOCALPART%
3|https://dav.oreilly.example/|443|carddav|%EMAILLOCALPART%
4|3
4|4
5|3
5|4
6|3
6|4
7|3
7|4
8|3
8|4
1|3
1|4
2|3
2|4
3|3
3|4
"""

OREILLY_QUERY = """
SELECT id, name, short_name FROM provider WHERE id > 1;
SELECT id, name, provider_id FROM domain WHERE provider_id > 1 ORDER BY id;
SELECT id, prio, name, port, type, socket_type, user_name, authentication FROM server
  WHERE id > 3 ORDER BY id;
SELECT id, url, port, type, user_name FROM davserver ORDER BY id;
SELECT server_id, domain_id FROM server_domain WHERE server_id > 3 ORDER BY server_id, domain_id;
SELECT davserver_id, domain_id FROM davserver_domain ORDER BY davserver_id, domain_id;
"""


@pytest.fixture
def sqlite3(database: Path) -> list[str]:
    """The command that runs SQL in the test's database."""
    return [program("sqlite3", "sqlite3"), str(database)]


def test_printed_sql_gives_a_provider_that_clients_are_answered_from(
    database: Path, sqlite3: list[str]
) -> None:
    run(sqlite3, provider_sql().stdout)
    run(sqlite3, provider_sql(**OREILLY).stdout)
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    assert automx("show", "alice@example.net", env=env) == (
        "alice@example.net, Example Inc.\n"
        "IMAP  mail.example.com  port 993  SSL       login alice@example.net  password-cleartext\n"
        "SMTP  mail.example.com  port 465  SSL       login alice@example.net  password-cleartext\n"
        "SMTP  mail.example.com  port 587  STARTTLS  login alice@example.net  password-cleartext\n"
    )
    document = automx("show", "bob@x.oreilly.example", "--format", "autoconfig", env=env)
    assert "<hostname>imap.oreilly.example</hostname>" in document
    assert "<username>bob</username>" in document


def test_printed_sql_continues_the_ids_of_a_sqlite_database(sqlite3: list[str]) -> None:
    run(sqlite3, provider_sql().stdout)
    run(sqlite3, provider_sql(**OREILLY).stdout)
    assert run(sqlite3, OREILLY_QUERY) == OREILLY_ROWS


def test_printed_sql_continues_the_ids_of_a_postgresql_database(
    migrated_postgresql: str, postgresql_instance: Instance
) -> None:
    name = re.findall(r"/(\w+)\?", migrated_postgresql)[0]
    for variables in ({}, OREILLY):
        postgresql_instance.sql(provider_sql("postgresql", **variables).stdout, name)
    assert postgresql_instance.sql(OREILLY_QUERY, name) == OREILLY_ROWS
    # A row that the database numbers itself does not collide.
    postgresql_instance.sql("INSERT INTO provider (name, short_name) VALUES ('a', 'b')", name)


def test_printed_sql_continues_the_ids_of_a_mariadb_database(
    migrated_mariadb: str, mariadb_instance: Instance
) -> None:
    name = re.findall(r"/(\w+)\?", migrated_mariadb)[0]
    for variables in ({}, OREILLY):
        mariadb_instance.sql(provider_sql("mysql", **variables).stdout, name)
    rows = mariadb_instance.sql(OREILLY_QUERY, name).replace("\\\\", "\\")  # as it prints them
    assert rows.replace("\t", "|") == OREILLY_ROWS


@pytest.mark.parametrize(
    ("damage", "table", "new_id"),
    [
        ("INSERT INTO server_domain VALUES (50, 1)", "server", 51),
        ("INSERT INTO server_domain VALUES (1, 60)", "domain", 61),
        ("INSERT INTO davserver_domain VALUES (1, 70)", "domain", 71),
        ("INSERT INTO davserver_domain VALUES (80, 1)", "davserver", 81),
        ("INSERT INTO domain VALUES (1, 'old.test', 90, NULL)", "provider", 91),
        ("INSERT INTO provider_detail (provider_id) VALUES (100)", "provider", 101),
        ("INSERT INTO documentation VALUES (1, 110, '', '', '')", "provider", 111),
    ],
)
def test_printed_sql_never_uses_an_id_that_rows_refer_to(
    sqlite3: list[str], damage: str, table: str, new_id: int
) -> None:
    run(sqlite3, f"{damage};")
    variables = {"DOMAINS": "new.test", "SMTP_HOSTS": "", "CALDAV_URLS": "https://new.test/"}
    run(sqlite3, provider_sql(**variables).stdout)
    assert run(sqlite3, f"SELECT MAX(id) FROM {table};") == f"{new_id}\n"
    linked = "SELECT server_id, name FROM server_domain JOIN domain ON id = domain_id"
    server_id = run(sqlite3, "SELECT MAX(id) FROM server;").strip()
    assert run(sqlite3, f"{linked} WHERE name = 'new.test';") == f"{server_id}|new.test\n"


def test_printed_sql_adds_everything_or_nothing(sqlite3: list[str]) -> None:
    run(sqlite3, provider_sql().stdout)
    before = run(sqlite3, ".dump")
    sql = provider_sql(DOMAINS="new.example example.com").stdout  # one is there already
    result = subprocess.run(sqlite3, input=sql, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "UNIQUE constraint failed: domain.name" in result.stderr
    assert run(sqlite3, ".dump") == before


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"IMAP_HOSTS": "imap.example.com:imaps"}, "imap.example.com:imaps: the port must be"),
        ({"SMTP_HOSTS": "smtp.example.com:"}, "smtp.example.com:: the port must be a number"),
        ({"CALDAV_URLS": "dav.example.com"}, "dav.example.com: the URL must begin with https://"),
    ],
)
def test_wrong_value_prints_no_sql(variables: dict[str, str], complaint: str) -> None:
    result = provider_sql(**variables)
    assert result.returncode == 1
    assert result.stdout == ""
    assert complaint in result.stderr


def test_unknown_dialect_prints_no_sql() -> None:
    result = provider_sql("oracle")
    assert (result.returncode, result.stdout) == (2, "")
    assert "[sqlite|postgresql|mysql]" in result.stderr


def setup_venv(source: Path, folder: Path) -> str:
    """Run setup-venv.sh without network and return what it prints."""
    result = subprocess.run(
        ["sh", str(CONTRIB / "setup-venv.sh"), str(source), str(folder)],
        env={
            "PATH": os.environ["PATH"],
            "PYTHON": sys.executable,
            "PIP_ARGS": "--no-index --no-deps --no-build-isolation",
            "EXTRAS": "",
            # What builds a wheel; and later, to run it, the libraries.
            "PYTHONPATH": os.pathsep.join(site.getsitepackages()),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_virtual_environment_is_set_up_from_the_source_and_again(tmp_path: Path) -> None:
    folder = tmp_path / "srv" / "automx"
    first = setup_venv(REPOSITORY, folder)
    (unit,) = re.findall(r"(?m)^ +(sed .*) > /etc/systemd/system/automx\.service$", first)
    assert f"ExecStart={folder}/bin/automx serve" in run(["sh", "-c", unit], "")
    assert f"Creating the virtual environment {folder}\n" in first
    assert f"automx is installed: {folder}/bin/automx\n" in first
    package = next(folder.glob("lib/python3.*/site-packages/automx/server.py"))
    package.unlink()

    again = setup_venv(REPOSITORY, folder)
    assert package.exists()  # the same version is installed anew
    last = again.partition(f"automx is up to date: {folder}/bin/automx\n")[2]
    assert "systemctl restart automx\n" in last
    assert "Creating" not in again
    assert "/etc/automx" not in again  # settings that are there must not be replaced

    env = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{tmp_path}/a.sqlite",
        "PYTHONPATH": os.pathsep.join(site.getsitepackages()),
    }
    result = subprocess.run(
        [folder / "bin/automx", "db", "upgrade"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith(f"The database is up to date ({head()}).\n")


@pytest.mark.parametrize("part", ["", "automx", "automx/bin", "automx/bin/python"])
def test_the_setup_runs_no_program_that_another_user_could_put_there(
    tmp_path: Path, part: str
) -> None:
    if os.geteuid() != 0:
        pytest.fail("needs root: nobody else can give files to others")
    python = tmp_path / "srv" / "automx" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/run\n")
    python.chmod(0o755)
    os.chown(tmp_path / "srv" / part, 12345, 12345)
    result = subprocess.run(
        ["sh", str(CONTRIB / "setup-venv.sh"), str(REPOSITORY), str(tmp_path / "srv" / "automx")],
        env={"PATH": os.environ["PATH"], "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert f"{(tmp_path / 'srv' / part)} can be changed by another user" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("source", "complaint"),
    [("docs", "is not the source of automx"), ("automix", "no package"), ("--wrong", "a folder")],
)
def test_setup_of_something_else_is_refused(tmp_path: Path, source: str, complaint: str) -> None:
    result = subprocess.run(
        ["sh", str(CONTRIB / "setup-venv.sh"), source, str(tmp_path / "automx")],
        env={"PATH": os.environ["PATH"], "PYTHON": sys.executable},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert complaint in result.stdout + result.stderr
    assert not (tmp_path / "automx").exists()


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("automx", "automx[mysql]"),
        ("automx==1.0.0", "automx[mysql]==1.0.0"),
        ("https://example.com/automx.tar.gz", "automx[mysql] @ https://example.com/automx.tar.gz"),
        ("git+https://example.com/automx", "automx[mysql] @ git+https://example.com/automx"),
    ],
)
def test_packages_and_urls_are_asked_for_with_their_extras(
    tmp_path: Path, source: str, wanted: str
) -> None:
    folder = tmp_path / "automx" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").write_text('#!/bin/sh\nfor last; do :; done\necho "pip: $last"\n')
    (folder / "python").chmod(0o755)
    result = run(
        ["env", f"PYTHON={sys.executable}", "EXTRAS=mysql", "sh", str(CONTRIB / "setup-venv.sh"),
         source, str(tmp_path / "automx")],
        "",
    )  # fmt: skip
    assert f"pip: {wanted}\n" in result


# cron gives commands a PATH without the folders of the administrator.
CRON = {"PATH": "/usr/bin:/bin"}


def test_the_script_of_certbot_works_from_cron(tmp_path: Path) -> None:
    program = tmp_path / "automx"  # the command of the default begins with "runuser", too
    program.write_text("#!/bin/sh\nrunuser --version >&2 && echo -d a.example\n")
    program.chmod(0o755)
    env = CRON | {"AUTOMX": str(program), "CERTBOT": "echo"}
    result = subprocess.run(
        [CONTRIB / "certbot.sh"], env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(" -d a.example\n")


def test_the_command_of_the_installation_works_from_cron(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "install.md").read_text()
    (script,) = re.findall(r"(?ms)^cat >/usr/local/bin/automx <<'END'\n(.*?)^END$", text)
    program, command = tmp_path / "program", tmp_path / "automx"
    program.write_text('#!/bin/sh\necho "as $AUTOMX_USER:$(printf " <%s>" "$@")"\n')
    command.write_text(script.replace(INSTALLED, str(program)))
    for file in (program, command):
        file.chmod(0o755)
    result = subprocess.run(
        [command, "sync", "a b"], env=CRON, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "as automx: <sync> <a b>\n"


def test_all_units_are_uninstalled() -> None:
    text = (REPOSITORY / "docs" / "install.md").read_text()
    part = text[text.index("\n## Uninstall\n") :]
    assert "in /etc/systemd/system/automx-*.timer" in part
    assert all(name.startswith("automx-") for name in TIMERS)
    stems = {name.removesuffix(".timer") for name in TIMERS}
    assert {stem for stem in stems if f"/etc/systemd/system/{stem}.*" not in part} == set()
