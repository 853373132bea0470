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
    Server,
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


def test_a_worker_that_dies_is_replaced(server: Server) -> None:
    def workers() -> set[int]:
        tree = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        return {int(pid) for pid in tree.read_text().split()}

    before = workers()
    os.kill(max(before), signal.SIGKILL)
    wait_until(lambda: len(workers() - before) == 1, "starting a new worker")
    for _ in range(20):
        assert get(f"{server.url}/healthz") == b"ok\n"


def test_a_main_process_that_is_killed_leaves_the_port_to_the_next(server: Server) -> None:
    server.process.kill()
    wait_until(lambda: not listens(server.port), "ending the workers")


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
    expected = f"Error: cannot listen on 127.0.0.1, port {server.port}: Address already in use\n"
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
                "Error: The database is in memory, and each worker would have its own: use one "
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
