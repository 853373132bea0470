"""The manual has a page for each program that automx knows, and each page does what it promises."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import pytest
from flask.testing import FlaskClient

from automx import families, webserver
from automx.config.page import APPS
from automx.config.sources import PEOPLE_PRESETS, PRESETS, TYPES
from automx.migrations import DIALECTS
from automx.views import apps
from tests import test_docs
from tests.clientrules import CLIENTS, configurations
from tests.commandline import automx
from tests.processes import REPOSITORY

DOCS = REPOSITORY / "docs"
# The folder of a group of pages -> the page of what is the same for all of them.
GROUPS = {
    "mail-servers": "sources.md",
    "mail-clients": "clients.md",
    "directories": "ldap.md",
    "databases": "database.md",
    "proxies": "web-server.md",
}
PAGES = [page for folder in GROUPS for page in sorted((DOCS / folder).glob("*.md"))]
LONGEST = 80  # lines

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))


def names(folder: str) -> set[str]:
    return {page.stem for page in PAGES if page.parent.name == folder}


def texts(folder: str, info: str) -> str:
    """Return all blocks of the pages of a group that are marked so."""
    found = (block for page in (DOCS / folder).glob("*.md") for block in test_docs.blocks(page))
    return "\n".join(block.text for block in found if block.info == info)


def headings(folder: str) -> list[str]:
    """Return the headings of the pages of a group."""
    prose = "\n".join(test_docs.prose(page) for page in PAGES if page.parent.name == folder)
    return re.findall(r"(?m)^#+ (.*)$", prose)


# What holds for each page.


@pages
def test_each_page_is_short_and_begins_with_what_to_type(page: Path) -> None:
    text = page.read_text()
    assert text.count("\n") <= LONGEST
    beginning = text.partition("\n## ")[0]
    assert re.search(r"^```(sh|sql|ini|text haproxy)", beginning, re.MULTILINE)


@pages
def test_each_page_says_what_to_do_when_it_does_not_work(page: Path) -> None:
    table = test_docs.section(page, "When it does not work")
    assert len(test_docs.first_column(table)) >= 3
    assert f"](../{GROUPS[page.parent.name]}" in page.read_text()


@pages
def test_each_page_is_found_from_the_readme_the_contents_and_the_page_of_its_group(
    page: Path,
) -> None:
    group = page.parent.name
    assert f"](docs/{group}/{page.name})" in (REPOSITORY / "README.md").read_text()
    assert f"\n{group}/{page.stem}\n" in (DOCS / "index.md").read_text()
    assert f"]({group}/{page.name}" in (DOCS / GROUPS[group]).read_text()


def test_the_contents_name_no_page_that_does_not_exist() -> None:
    index = (DOCS / "index.md").read_text()
    named = re.findall(r"^([a-z-]+/[a-z-]+)$", index, re.MULTILINE)
    assert sorted(named) == sorted(f"{page.parent.name}/{page.stem}" for page in PAGES)


# A page for each program that the code knows.


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_of_domains_has_a_page_with_its_section(preset: str) -> None:
    assert f"\npreset = {preset}\n" in texts("mail-servers", "ini")


@pytest.mark.parametrize("preset", PEOPLE_PRESETS)
def test_each_preset_of_people_has_a_page_with_its_section(preset: str) -> None:
    sections = re.split(r"(?m)^(?=\[)", texts("mail-servers", "ini"))
    own = (f"\npeople = {preset}\n", f"\npreset = {preset}\n")
    assert [
        section
        for section in sections
        if own[0] in section or (own[1] in section and "\npeople = yes\n" in section)
    ]


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_of_source_is_on_a_page(kind: str) -> None:
    of_presets = [preset for preset, type_ in PRESETS.items() if type_ == kind]
    expected = [f"\ntype = {kind}\n", *(f"\npreset = {preset}\n" for preset in of_presets)]
    sections = texts("mail-servers", "ini")
    assert [line for line in expected if line in sections]


def test_each_web_server_has_a_page_that_prints_its_configuration() -> None:
    assert names("proxies") == {*webserver.KINDS, "haproxy"}
    commands = texts("proxies", "sh")
    for kind, known in webserver.KINDS.items():
        assert f"automx web-server {kind} example.com --host automx.example.org >" in commands
        assert known.target in commands


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_database_has_a_page_with_its_uri(dialect: str) -> None:
    assert f"\ndb_uri = {dialect}:" in texts("databases", "ini")


@pytest.mark.parametrize("name", APPS)
def test_each_mail_program_of_the_page_for_people_has_a_heading(name: str) -> None:
    config = next(iter(configurations().values()))
    [(_, [app])] = apps.groups((name,), config, "", has_accounts=True)
    assert [heading for heading in headings("mail-clients") if app.title in heading]


def test_each_family_of_mail_clients_has_a_page() -> None:
    known = set(families.FAMILIES)
    known -= {families.BROWSER, families.MONITORING, families.SCANNER, families.OTHER}
    assert {family.replace("_", "-") for family in known} | {"others"} == names("mail-clients")


@pytest.mark.parametrize("client", [client.name for client in CLIENTS])
def test_each_client_whose_rules_are_known_has_a_heading(client: str) -> None:
    for name in client.removesuffix(", Autodiscover").split(", "):
        assert [heading for heading in headings("mail-clients") if name in heading]


# What the pages tell to type.


class Request(NamedTuple):
    """What curl sends."""

    url: str
    content_type: str
    body: str


def requests() -> Iterator[Request]:
    """Yield the requests of all pages of mail clients."""
    for line, _, body in re.findall(
        r"^(curl .*?)( <<'END'\n(.*?)^END)?$", texts("mail-clients", "sh"), re.DOTALL | re.MULTILINE
    ):
        *options, url = shlex.split(line)
        header = options[options.index("-H") + 1] if "-H" in options else ""
        yield Request(url, header.partition(": ")[2], body)


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("request_", [*requests()], ids=lambda request: request.url)
def test_curl_shows_what_a_mail_client_gets(client: FlaskClient, request_: Request) -> None:
    host, _, path = request_.url.removeprefix("https://").partition("/")
    answer = client.open(
        f"/{path}",
        method="POST" if request_.body else "GET",
        base_url=f"https://{host}",
        data=request_.body,
        content_type=request_.content_type or None,
    )
    assert answer.status_code == 200
    assert "imap.example.com" in answer.text


@pytest.mark.parametrize("kind", [kind for kind in webserver.KINDS if kind != "caddy"])
def test_the_certificate_is_got_as_quickstart_says(kind: str) -> None:
    labels = ("autoconfig", "autodiscover", "ua-auto-config")
    hosts = ["automx.example.org", *(f"{label}.example.com" for label in labels)]
    site = webserver.Site(hosts[0], ["example.com"], hosts)
    page = (DOCS / "proxies" / f"{kind}.md").read_text()
    assert webserver.certbot(kind, site) in re.sub(r" *\\\n *", " ", page)


# The domains of the installation.
INSTALLED = {
    "version": 2,
    "provider": "Example Inc.",
    "domains": [{"name": "example.com"}, {"name": "example.net"}],
    "servers": [
        {"type": "imap", "name": "imap.example.com", "port": 993},
        {"type": "smtp", "name": "smtp.example.com", "port": 465},
    ],
}
# What pages type beside commands of automx: run as it is, or not at all.
RUN = {"mv", "rm"}
NOT_RUN = {"contrib/setup-venv.sh", "curl", "export", "git", "systemctl"}


class Server:
    """A server on which the commands of a page are typed, one after the other."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        self.env = {"AUTOMX_CONF": "/dev/null"}
        self.env |= {"AUTOMX_DB_URI": f"sqlite:///{folder}/automx.sqlite"}
        monkeypatch.chdir(folder)

    def run(self, text: str) -> str:
        """Run the lines of a block and return what the commands of automx print."""
        text = text.replace("/var/lib/automx", f"{self._folder}")
        text = text.replace("/usr/local/src/automx", f"{self._folder}")
        printed = ""
        for line in text.replace("\\\n", " ").splitlines():
            [words] = [words for words in test_docs.simple_commands(line) if words]
            output = self._run(words)
            printed += "" if line.endswith(">/dev/null") else output
        return printed

    def _run(self, words: list[str]) -> str:
        own = dict(word.split("=", 1) for word in takewhile(is_assignment, words))
        name, *arguments = words[len(own) :]
        if name == "cd":
            self._monkeypatch.chdir(arguments[0])
        elif name in RUN:
            subprocess.run(words, check=True)
        elif name == "automx" and arguments[0] != "check":
            return automx(*arguments, env=self.env | own)
        else:
            assert name == "automx" or name in NOT_RUN, words
        return ""


def is_assignment(word: str) -> bool:
    return re.match(r"[A-Z_]+=", word) is not None


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path, monkeypatch)


def test_the_everyday_tasks_are_done_one_after_the_other(server: Server) -> None:
    automx("db", "upgrade", env=server.env)
    automx("seed", "-", env=server.env, stdin=json.dumps(INSTALLED))
    for commands, shown in test_docs.walk_through(DOCS / "tasks.md", "sh"):
        printed = server.run(commands)
        assert not shown or printed == shown, commands
    # The backup was made after the last change of rows.
    assert automx("domain", "list", "--names", env=server.env) == "example.com\nexample.net\n"
