"""automx behind real HAProxy with the configuration of its page; ports and paths are put in."""

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from automx.formats import pacc
from tests.commandline import automx
from tests.processes import REPOSITORY, free_port, listens, program, running, serving, wait_until
from tests.test_docs import blocks
from tests.test_proxies import NAMES, SEED, SPOOFS, Front, code_url, put
from tests.tls import Authority

PAGE = REPOSITORY / "docs" / "proxies" / "haproxy.md"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A server behind HAProxy; the second machine of the page does not answer."""
    folder = tmp_path_factory.mktemp("haproxy")
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{folder}/automx.sqlite"}
    automx("db", "upgrade", env=env)
    automx("seed", "-", env=env, stdin=json.dumps(SEED))
    authority = Authority(folder)
    issued = authority.issue(*NAMES, "example.com")
    certificate = folder / "automx.pem"
    certificate.write_text(issued.certificate.read_text() + issued.key.read_text())
    env |= {"AUTOMX_PROXY_COUNT": "1", "AUTOMX_LOGLEVEL": "INFO"}
    [text] = [block.text for block in blocks(PAGE) if block.info == "text haproxy"]
    port, plain, unused = free_port(), free_port(), free_port()
    with serving(env, folder / "automx.log", "--workers", "1") as server:
        configuration = put(
            text,
            ("bind :80\n", f"bind 127.0.0.1:{plain}\n"),
            ("bind :443 ", f"bind 127.0.0.1:{port} "),
            ("/etc/haproxy/automx.pem", str(certificate)),
            # A busy machine must not look like one that is gone.
            ("192.0.2.11:4243 check inter 2s", f"127.0.0.1:{server.port} check inter 60s"),
            ("192.0.2.12:4243 check inter 2s", f"127.0.0.1:{unused} check inter 100ms"),
            ("127.0.0.1:8888", f"127.0.0.1:{unused}"),
        )
        file = folder / "haproxy.cfg"
        file.write_text(configuration)
        command = [program("haproxy", "haproxy"), "-db", "-f", str(file)]
        with running(command, folder / "log", ready=lambda: listens(port)) as started:
            wait_until(lambda: "automx/two is DOWN" in started.output, "the end of a machine")
            tls = ssl.create_default_context(cafile=authority.root)
            yield Front(port, server, tls, plain, [Path(started.log)])


def test_the_configuration_of_the_page_brings_no_warning(front: Front) -> None:
    [log] = front.logs
    lines = log.read_text().splitlines()
    assert [line for line in lines if "config" in line or "ALERT" in line] == []


@pytest.mark.parametrize("spoof", [None, *SPOOFS])
def test_client_scheme_and_host_reach_automx_and_cannot_be_spoofed(
    front: Front, spoof: str | None
) -> None:
    sent = SPOOFS[spoof] if spoof else ()
    assert code_url(front, spoof=sent) == f"https://{NAMES[0]}:{front.port}/"


def test_plain_http_moves_to_https(front: Front) -> None:
    answer = Front(front.plain_port, front.automx).ask("/mail/config-v1.1.xml?emailaddress=a@b")
    assert answer.status == 302
    assert answer.headers["Location"].startswith(f"https://{NAMES[0]}")
    assert answer.headers["Location"].endswith("/mail/config-v1.1.xml?emailaddress=a@b")


def test_the_challenge_of_an_authority_is_for_certbot(front: Front) -> None:
    """It does not run now, so that HAProxy itself answers."""
    answer = Front(front.plain_port, front.automx).ask("/.well-known/acme-challenge/abc")
    assert answer.status == 503


def test_pacc_comes_byte_by_byte(front: Front) -> None:
    answer = front.ask(pacc.PATH, host=NAMES[2], headers=[("Accept-Encoding", "gzip")])
    assert (answer.status, answer.headers["Content-Encoding"]) == (200, None)
    assert answer.body == front.ask(pacc.PATH, host=NAMES[2]).body


def test_outlook_and_delta_chat_are_answered(front: Front) -> None:
    body = b"""<Autodiscover
 xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">
<Request><EMailAddress>alice@example.com</EMailAddress></Request></Autodiscover>"""
    answer = front.ask("/Autodiscover/Autodiscover.xml", "POST", host=NAMES[1], body=body)
    assert (answer.status, b"alice@example.com" in answer.body) == (200, True)
    assert front.ask("/autodiscover/autodiscover.xml", host="example.com").status == 200
