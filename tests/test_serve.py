"""``automx serve`` as a service: readiness, clean stop, recovery, and other WSGI servers."""

import contextlib
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commandline import attempt
from tests.processes import (
    AUTOMX,
    SERVE,
    Server,
    attempted_start,
    free_port,
    listening_sockets,
    listens,
    running,
    serving,
    wait_until,
)

REQUEST = (
    b'<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/'
    b'requestschema/2006"><Request><EMailAddress>alice@example.com</EMailAddress>'
    b"</Request></Autodiscover>"
)


@pytest.fixture
def environment(database: Path, example: None) -> dict[str, str]:
    """Settings of a server on the example rows."""
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}


@pytest.fixture
def server(environment: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    """A running server, both of whose workers answer."""
    with serving(environment, tmp_path / "serve.log", "--workers", "2") as started:
        wait_until(lambda: listening_sockets(started.port) == 2, "starting two workers")
        yield started


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def half_a_request(server: Server) -> socket.socket:
    """Connect and send a request without the end of its body, so that it stays in flight."""
    connection = socket.create_connection(("127.0.0.1", server.port), 10)
    head = (
        "POST /autodiscover/autodiscover.xml HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: text/xml\r\nContent-Length: {len(REQUEST)}\r\n\r\n"
    )
    connection.sendall(head.encode() + REQUEST[:50])
    return connection


def test_systemd_is_told_when_the_server_answers_and_when_it_stops(
    environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(30)
        port = free_port()
        answered: list[bool] = []

        def ready() -> bool:
            message = notify.recv(100)
            answered.append(listens(port))
            return message == b"READY=1"

        command: list[str | Path] = [AUTOMX, "serve", "--port", str(port), "--workers", "1"]
        env = environment | {"NOTIFY_SOCKET": str(path)}
        with running(command, tmp_path / "serve.log", ready=ready, env=env) as started:
            assert answered == [True]
            assert get(f"http://127.0.0.1:{port}/healthz") == b"ok\n"
            assert started.stop() == 0
        assert notify.recv(100) == b"STOPPING=1"


def test_sigterm_finishes_requests_in_flight_and_takes_no_new_ones(server: Server) -> None:
    with half_a_request(server) as connection:
        # The worker has the request once it has read the head; a second one shows it is awake.
        get(f"{server.url}/healthz")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not listens(server.port), "closing the listening socket")
        connection.sendall(REQUEST[50:])
        connection.settimeout(10)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"<LoginName>alice@example.com</LoginName>" in answer
    assert server.process.wait(10) == 0


def test_a_taken_port_is_told_in_one_line(server: Server, environment: dict[str, str]) -> None:
    result = subprocess.run(
        [AUTOMX, "serve", "--port", str(server.port)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    expected = (
        f"automx: cannot listen on --host 127.0.0.1 --port {server.port}: Address already in use\n"
    )
    assert result.stderr == expected


def test_wrong_settings_are_told_in_one_line_before_anything_listens(
    environment: dict[str, str],
) -> None:
    result = subprocess.run(
        [AUTOMX, "serve", "--port", str(free_port())],
        env={**os.environ, **environment, "AUTOMX_PROXY_COUNT": "many"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == (
        "automx: environment variable AUTOMX_PROXY_COUNT: "
        "proxy_count must be a whole number from 0 to 99\n"
    )


@pytest.mark.parametrize(
    ("variables", "options", "status", "text"),
    [
        (
            {"AUTOMX_DB_URI": "postgresql+psycopg2://automx@localhost/automx"},
            ["--workers", "2"],
            1,
            (
                "automx: db_uri names the driver psycopg2, which cannot be loaded: write "
                "postgresql://, whose driver comes with pip install 'automx[postgresql]', or pip "
                "install psycopg2-binary\n"
            ),
        ),
        (
            {"AUTOMX_DB_URI": "sqlite:///:memory:"},
            ["--workers", "2"],
            2,
            (
                "automx: The database is in memory, and each worker would have its own: use one "
                "worker, or set db_uri to a file.\n"
            ),
        ),
    ],
)
def test_a_database_that_workers_cannot_use_is_told_once_before_they_start(
    environment: dict[str, str],
    variables: dict[str, str],
    options: list[str],
    status: int,
    text: str,
) -> None:
    env = environment | variables
    result = attempt("serve", "--port", str(free_port()), *options, env=env)
    assert (result.returncode, result.stdout) == (status, "")
    usage = "Usage: automx serve [OPTIONS]\nTry 'automx serve --help' for help.\n\n"
    assert result.stderr == (usage if status == 2 else "") + text


LONG = f"/{'a' * 5_000}"
FOLDER, NO_PEM, SCRIPT = "FOLDER", "NO_PEM", "SCRIPT"  # replaced by paths
NO_FILE = "must be the path of a file that can be read"

WRONG = {
    "a port above 65535": ("db_uri", "postgresql://h:99999/d", "has a port that is not from 1 to"),
    "port 0": ("db_uri", "mysql://u:p@h:0/d", "has a port that is not from 1 to 65535"),
    "a bad option of SQLite": ("db_uri", "sqlite:////tmp/x?timeout=abc", "has an option that its"),
    "a bad option of PyMySQL": ("db_uri", "mysql://h/d?connect_timeout=x", "has an option that"),
    "a NUL in a URI": ("db_uri", "sqlite:////tmp/a\0b", "must be a text without NUL"),
    "a NUL in a path": ("account_command", "/bin/a\0b", "must be a text without NUL"),
    "a path too long": ("account_command", LONG, "must be the full path of a program that can"),
    "a command too long": (
        "account_command",
        f"{SCRIPT} {'a' * 140_000}",
        "must be at most 100,000",
    ),
    "a backend without a program": ("account_backend", "command", "account_command is empty"),
    "a backend without a key": ("account_backend", "mailcow", "mailcow_token must be set"),
    "no authorities": (
        "mailcow_ca_file",
        NO_PEM,
        "must be a file of certificate authorities (PEM)",
    ),
    **{
        f"{what} as {key}": (key, path, NO_FILE)
        for key in ("ldap_ca_file", "mailcow_ca_file", "signing_certificate", "signing_key")
        for what, path in (("a folder", FOLDER), ("a long path", LONG))
    },
}


# Only workers load what these need.
WRONG_FOR_WORKERS = {
    "a port above 65535",
    "port 0",
    "a bad option of SQLite",
    "a bad option of PyMySQL",
    "a backend without a program",
    "a backend without a key",
}


@pytest.mark.parametrize("name", sorted(set(WRONG) - WRONG_FOR_WORKERS))
def test_a_setting_that_cannot_be_read_is_told_in_one_line(
    environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    arguments, env, text = with_setting(name, environment, tmp_path)
    result = attempt(*arguments, env=env)
    assert_told_in_one_line(result, text)


@pytest.mark.parametrize("name", sorted(WRONG_FOR_WORKERS))
def test_a_setting_that_no_worker_could_use_is_told_in_one_line(
    environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    arguments, env, text = with_setting(name, environment, tmp_path)
    result = subprocess.run(
        [AUTOMX, *arguments, "--workers", "3"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_told_in_one_line(result, text)


def with_setting(
    name: str, environment: dict[str, str], folder: Path
) -> tuple[list[str], dict[str, str], str]:
    """Return arguments and environment of a server with a wrong setting, and what it says of it."""
    key, value, text = WRONG[name]
    script, no_pem, conf = folder / "script", folder / "pem", folder / "automx.conf"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    no_pem.write_text("no certificate\n")
    for word, path in ((FOLDER, folder), (NO_PEM, no_pem), (SCRIPT, script)):
        value = value.replace(word, str(path))
    conf.write_text(f"[automx]\n{key} = {value}\n")
    env = {**environment, "AUTOMX_CONF": str(conf)}
    if key == "db_uri":
        del env["AUTOMX_DB_URI"]
    return ["serve", "--port", str(free_port())], env, text


def assert_told_in_one_line(result: "subprocess.CompletedProcess[str]", text: str) -> None:
    assert (result.returncode, result.stdout) == (1, "")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("automx: ")


@pytest.mark.parametrize("host", ["", "192.0.2.1", "nowhere.invalid", f"{'a' * 70}.example"])
def test_a_host_that_is_not_ours_is_told_in_one_line(
    environment: dict[str, str], host: str
) -> None:
    result = attempt("serve", "--host", host, "--port", str(free_port()), env=environment)
    assert result.returncode == 1
    assert result.stderr.startswith(f"automx: cannot listen on --host {host} --port ")
    assert result.stderr.count("\n") == 1


def refuse() -> None:
    """Fail as an application may that a worker cannot make."""
    raise OSError("no space left")


def test_a_worker_that_cannot_start_ends_the_server_with_one_line(
    environment: dict[str, str],
) -> None:
    refused = "from automx.cli import server; server.APPLICATION = 'tests.test_serve:refuse'; "
    result = attempted_start(environment, refused + SERVE)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "automx: a worker cannot start: no space left"
    assert "Traceback" not in result.stderr


def test_other_wsgi_servers_serve_the_same_document(
    server: Server, environment: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    gunicorn = AUTOMX.with_name("gunicorn")
    command: list[str | Path] = [gunicorn, "--bind", f"127.0.0.1:{port}", "automx.server:app"]
    path = "/mail/config-v1.1.xml?emailaddress=alice@example.com"
    with running(
        command, tmp_path / "gunicorn.log", ready=lambda: listens(port), env=environment
    ) as started:
        assert get(f"http://127.0.0.1:{port}{path}") == get(f"{server.url}{path}")
        assert started.stop() == 0


def test_other_wsgi_servers_tell_wrong_settings_without_a_traceback(
    environment: dict[str, str],
) -> None:
    result = subprocess.run(
        [AUTOMX.with_name("python"), "-c", "import automx.server"],
        env={**os.environ, **environment, "AUTOMX_LOGLEVEL": "loud"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == (
        "automx: environment variable AUTOMX_LOGLEVEL: "
        "loglevel must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL\n"
    )


def test_an_idle_connection_does_not_hold_up_the_stop(server: Server) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), 10)):
        assert server.stop() == 0
