"""Every command of the documentation works when it is copied: on a bare Debian, in any folder."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.bareroot import CRONS_PATH, FOREIGN, BareRoot, Result, Step, bare_root
from tests.processes import REPOSITORY
from tests.test_docs import PAGES, blocks

INSTALLATION = REPOSITORY / "docs" / "install.md"

# Words behind the fence of blocks that another test runs, and where it stands.
ELSEWHERE = {
    "accounts": "tests/test_api_docs.py",
    "api": "tests/test_api_docs.py",
    "dovecot": "tests/test_account_command_docs.py",
    "own": "tests/test_contrib_accounts.py",
    "powerdns": "tests/zoneservers.py",
    "walk-through": "tests/test_docs.py",
}

# Blocks that are not run: the page, how they begin, and why. "" stands for all of a page.
NOT_RUN = {
    ("CONTRIBUTING.md", ""): "the development; make setup and make test are what is running now",
    ("README.md", "git clone"): "make run, which gets libraries from the network",
    ("README.md", "export AUTOMX_CONF"): "asks a person; tests/test_quickstart.py answers",
    ("README.md", "make test"): "is what is running now",
    ("docs/deltachat-push.md", ""): "a phone, getmail and user units; tests/test_deltachat_push.py",
    ("docs/deltachat.md", "make setup"): "a checkout, which gets libraries from the network",
    ("docs/deltachat.md", "docker stop"): "a machine with mailadm; tests/test_mailadm.py",
    ("docs/deltachat.md", "automx import-mailadm"): "mailadm's database; tests/test_mailadm.py",
    ("docs/packages.md", ""): "make test-packages builds, installs and runs them",
}

# What a page takes for granted beside the installation, and files that its reader has. A block that
# needs more has an entry of its own.
SAMPLE = (
    '{"version": 2, "origin": "mine", "provider": "New", "domains": [{"name": "new.example"}],'
    ' "servers": [{"type": "imap", "name": "imap.new.example"},'
    ' {"type": "smtp", "name": "smtp.new.example"}]}'
)
DIRECTORY = (
    "echo secret | automx directory add --name ldap.example.com --port 636 --use-ssl"
    " --search-base dc=example --search-filter '(mail={0})' --attr-uid uid --bind-user cn=automx"
    " --bind-password-stdin"
)
WEB_ENDPOINT = """\
    sed -i 's|^#web_endpoint =.*|web_endpoint = https://mail.example.com/new_email|' \\
        /etc/automx/automx.conf
    """
GIVEN = {
    ("docs/account-command.md", ""): "mkdir -p /var/vmail/.trash",
    ("docs/apply.md", ""): f"echo '{SAMPLE}' >mail.yaml",
    ("docs/database.md", ""): """\
        mkdir /var/lib/automx2
        cp /var/lib/automx/automx.sqlite /var/lib/automx2/db.sqlite
        """,
    (
        "docs/database.md",
        "cd /usr/local/src/automx\ncontrib/provider-sql.sh postgresql",
    ): "apt-get install postgresql-client mariadb-server",
    ("docs/database.md", "automx restore automx.backup.gz"): "rm /var/lib/automx/automx.sqlite",
    ("docs/deltachat.md", ""): f"""\
        {WEB_ENDPOINT}
        echo secret-password >alice.password
        """,
    ("docs/mail-clients/delta-chat.md", ""): WEB_ENDPOINT,
    **{
        (f"docs/directories/{page}.md", "automx do"): f"""\
            automx domain add {domain} --server imap.example.com --server smtp.example.com || true
            {DIRECTORY}
            """
        for page, domain in (
            ("active-directory", "example.net"),
            ("freeipa", "example.org"),
            ("openldap", "example.com"),
        )
    },
    **{
        (f"docs/directories/{page}.md", "automx directory set"): DIRECTORY
        for page in ("active-directory", "freeipa", "openldap")
    },
    ("docs/dns.md", ""): "apt-get install pdns-server; mkdir -p /etc/powerdns",
    ("docs/proxies/haproxy.md", ""): "apt-get install haproxy certbot",
    ("docs/import.md", ""): """\
        mkdir customers
        automx show alice@example.com --format autoconfig >customers/one.xml
        """,
    ("docs/tls.md", "automx domain add"): "automx domain del example.com",
    ("docs/seed.md", ""): f"""\
        cp /usr/local/src/automx/contrib/seeds/provider.json provider.json
        automx purge --yes
        echo '{SAMPLE}' >provider.yaml
        """,
}

# Commands that ask a person. What is copied behind them would be taken as the answer.
ASKS = {
    r"automx quickstart [\w.]+",
    r"automx apply mail.yaml",
    r"automx dns-apply example.com",
    r"automx check --repair",
    r"automx import-autoconfig --skip-existing .*",
    r"automx server set imap.example.com --user-name .*",
    r"automx account del .*",
    r"automx directory add .* --bind-password-stdin",
    r"automx dclogin [\w.@]+",
    r"certbot register",
}
# Others that may end with another status than 0 here, and why.
MAY_FAIL = {
    r"automx check\b.*": "the mail servers of the examples do not exist",
    r"automx quickstart .*": "there is no DNS",
    r"automx account password .*": "only the mail server itself sets passwords here",
    r"automx names .*--resolving\b.*": "there is no DNS",
    r"automx-certbot": "there is no DNS",
    r"grep 'automx-2 '": "there are fewer than 34 domains",
    r"automx import-autoconfig .*https://.*": "there is no network",
    r"automx dns-apply .*": "there is no name server",
    r"automx ldap test .*": "there is no directory",
    r"automx sync\b.*": "there is no source",
    r"automx restore move.backup": "there is no PostgreSQL",
}


class Snippet(NamedTuple):
    """A block of commands on a page."""

    page: str
    info: str
    text: str

    def has(self, key: tuple[str, str]) -> bool:
        """Return whether a key of a table stands for this block."""
        return key[0] == self.page and self.text.startswith(key[1])


def snippets(page: Path) -> Iterator[Snippet]:
    """Yield the shell blocks of a page that no other test runs."""
    for info, text in blocks(page):
        language, _, word = info.partition(" ")
        if language == "sh" and word not in ELSEWHERE:
            yield Snippet(str(page.relative_to(REPOSITORY)), info, textwrap.dedent(text))


def is_run(snippet: Snippet) -> bool:
    return not any(snippet.has(key) for key in NOT_RUN)


RUN = [page for page in PAGES if page != INSTALLATION and any(map(is_run, snippets(page)))]


def faults(results: list[Result]) -> list[str]:
    """Return what went wrong in steps, apart from what cannot succeed here."""
    found = []
    for status, output, failed in results:
        hidden = [f"{status}: {output}"] if status and not failed else []  # such as a syntax error
        for line in [*failed, *hidden]:
            code, _, command = line.partition(": ")
            may_fail = any(re.fullmatch(pattern, command) for pattern in (*ASKS, *MAY_FAIL))
            if not may_fail or int(code) >= 126:  # not found, or not executable
                found.append(f"{line}\n{output}")
        if "Traceback" in output:
            found.append(output)
    return found


class Shown(NamedTuple):
    """Commands of the installation, and what the page shows that they print."""

    text: str
    output: str


def installation() -> list[Shown]:
    """Return the blocks of commands of the installation, in their order."""
    page = INSTALLATION.read_text().partition("\n## Update\n")[0]
    found: list[Shown] = []
    for info, text in re.findall(r"(?ms)^```(sh|text)\n(.*?)^```$", page):
        if info == "sh":
            found.append(Shown(text, ""))
        elif text.startswith(("Upgraded to", "Added 1 provider")):
            found[-1] = found[-1]._replace(output=text)
    return found


def uninstallation() -> list[str]:
    """Return the two blocks of commands that end it: with systemd, with OpenRC."""
    page = INSTALLATION.read_text().partition("\n## Uninstall\n")[2]
    with_systemd, with_openrc = re.findall(r"(?ms)^```sh\n(.*?)^```$", page)
    return [with_systemd, with_openrc]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareRoot]:
    """A bare Debian."""
    with bare_root(tmp_path_factory.mktemp("bare")) as root:
        yield root


# Root's imports would be compiled again each time.
PREPARE = """\
python3 -m compileall -q /opt/automx/automx
useradd alice
chown -R alice: /home/alice
mkdir -p /etc/init.d
"""


@pytest.fixture(scope="module")
def installed(bare: BareRoot) -> BareRoot:
    """The same, after the installation was followed by root in its own folder."""
    shown = installation()
    steps = [Step(PREPARE), *(Step(text, folder="/root") for text, _ in shown)]
    results = bare.run("installed", steps)
    assert faults(results) == []
    printed = [result.output for result, (_, text) in zip(results[1:], shown, strict=True) if text]
    assert printed == [text for _, text in shown if text]
    return bare.above("installed")


def test_the_lists_name_blocks_that_exist() -> None:
    every = [snippet for page in PAGES for snippet in snippets(page)]
    stale = [key for key in (*NOT_RUN, *GIVEN) if not any(each.has(key) for each in every)]
    assert stale == []


@pytest.mark.parametrize("word", ELSEWHERE)
def test_blocks_with_a_word_are_run_by_another_test(word: str) -> None:
    assert re.search(rf"\b{word}\b", (REPOSITORY / ELSEWHERE[word]).read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_nothing_is_copied_behind_a_question(page: Path) -> None:
    for snippet in snippets(page):
        *before, _ = re.sub(r" *#.*", "", snippet.text).replace("\\\n", "").strip().splitlines()
        asking = [line for line in before for one in ASKS if re.fullmatch(one, line)]
        assert asking == [], snippet


def test_blocks_of_commands_are_marked_as_such() -> None:
    """A block without a language, or with another name of the shell, would not be run."""
    odd = [
        (page.name, info, text)
        for page in PAGES
        for info, text in blocks(page)
        if info.partition(" ")[0] in {"", "bash", "shell", "console", "shell-session"}
    ]
    assert odd == []


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_work_when_they_are_copied(installed: BareRoot, page: Path) -> None:
    """Each block alone, in a folder that is neither root's nor open to the user automx."""
    name = str(page.relative_to(REPOSITORY))
    steps = [Step(textwrap.dedent(GIVEN.get((name, ""), "")))]
    for snippet in filter(is_run, snippets(page)):
        steps += [Step(given) for key, given in GIVEN.items() if key[1] and snippet.has(key)]
        steps.append(Step(snippet.text))
    assert faults(installed.run(page.stem, steps)) == []


def test_automx_is_uninstalled_as_the_page_says(installed: BareRoot) -> None:
    steps = [Step(text) for text in uninstallation()]
    find = "find /etc /usr /var -name '*automx*' | sort; ls -d /srv/automx /usr/local/src/automx"
    *results, left = installed.run("uninstalled", [*steps, Step(find)])
    assert faults(results) == []
    assert re.findall(r"(?m)^/.*", left.output) == [
        "/var/lib/automx",
        "/var/lib/automx/automx.sqlite",
    ]


def lines_of_cron() -> Iterator[tuple[str, str]]:
    """Yield each line for cron in the documentation: the user, and the command."""
    for page in PAGES:
        for _, text in blocks(page):
            for line in re.findall(r"(?m)^(?:[\d*/,-]+\s+){2}(?:\S+\s+){3}(.+)$", text):
                user, _, command = line.partition("  ") if "  " in line else ("", "", line)
                is_roots = "automx-certbot" in command
                yield user or ("root" if is_roots else "automx"), command.replace(r"\%", "%")


def test_lines_of_cron_work(installed: BareRoot) -> None:
    lines = [(user, command.strip()) for user, command in lines_of_cron()]
    assert len(lines) >= 7
    folder = "install -d -o automx -g automx /var/cache/automx-published"
    certbot = "install /opt/automx/contrib/certbot.sh /usr/local/sbin/automx-certbot"
    steps = [Step(command, "/", CRONS_PATH, user, "sh") for user, command in lines]
    _, *results = installed.run(
        "cron", [Step(f"{folder}; {certbot}; apt-get install certbot"), *steps]
    )
    for (_, command), (status, output, _) in zip(lines, results, strict=True):
        words = command.replace("/srv/automx/bin/", "").replace("/usr/local/sbin/", "")
        text = re.sub(r"^(\w+=('[^']*'|\S*) )+| >/dev/null$", "", words)
        may_fail = any(re.fullmatch(pattern, text) for pattern in MAY_FAIL)
        assert status == 0 or (may_fail and status < 126), (command, output)
        assert "Traceback" not in output


def test_the_command_of_root_works_with_the_path_of_cron(installed: BareRoot) -> None:
    command = "/usr/local/bin/automx domain list --names"
    [result] = installed.run("path", [Step(command, "/", CRONS_PATH, "root", "sh")])
    assert result == (0, "example.com\nexample.net\n", [])


# Files that commands name belong to root, and all else to the user automx.

USE_FILES = """\
umask 077
echo '{sample}' >'my rows.yaml'
automx apply 'my rows.yaml' --yes
automx backup 'my backup.gz'
automx export 'my export.json'
automx export >'my other export.json'
cmp 'my export.json' 'my other export.json'
automx apply - --yes <'my rows.yaml'
automx apply <(cat 'my rows.yaml') --yes
ln -s "$PWD/my export.json" 'my link'
automx export 'my link'
stat -c '%a %U:%G %F' my*
stat -c '%a %U:%G' /var/lib/automx/automx.sqlite
automx audit list --since 1d --json | python3 -c '
import json, sys
print({{entry["actor"] for entry in json.load(sys.stdin)}})'
"""
FILES = """\
600 root:root regular file
600 root:root regular file
777 root:root symbolic link
600 root:root regular file
600 root:root regular file
600 automx:automx
{'user:root'}
"""


@pytest.mark.parametrize("folder", ["/root", "/", "/tmp", "/var/lib/automx", FOREIGN])
def test_root_names_files_in_any_folder(installed: BareRoot, folder: str) -> None:
    script = USE_FILES.format(sample=SAMPLE)
    [result] = installed.run(f"files{folder.replace('/', '-')}", [Step(script, folder)])
    assert result.failed == [], result.output
    assert result.output.endswith(FILES), result.output


PLANTED = """\
cd /var/lib/automx
ln -s /etc/important backup.gz
ln -s /etc folder
ln -s /root/secret.json rows.json
ln -s rows.json rows.yaml
"""
LURED = [
    ("automx backup /var/lib/automx/backup.gz", "cannot be written: Permission denied"),
    ("cd /var/lib/automx; automx export backup.gz", "cannot be written: Permission denied"),
    ("automx export /var/lib/automx/folder/other", "cannot be written: Permission denied"),
    ("automx export folder/important", "cannot be written: Permission denied"),
    ("automx seed /var/lib/automx/rows.json", "cannot be read: Permission denied"),
    ("cd /var/lib/automx; automx seed rows.yaml", "cannot be read: Permission denied"),
]


def test_links_of_the_user_lead_root_to_no_file(installed: BareRoot) -> None:
    before = f"echo important >/etc/important; echo '{SAMPLE}' >/root/secret.json"
    after = "cat /etc/important; ls -l /etc/other /root/other 2>&1; automx domain list --names"
    steps = [Step(before), Step(PLANTED, user="automx")]
    steps += [Step(command, "/var/lib/automx") for command, _ in LURED]
    results = installed.run("planted", [*steps, Step(after)])
    for (command, expected), result in zip(LURED, results[2:-1], strict=True):
        assert (result.status, result.output.count("\n")) == (1, 1), (command, result)
        assert result.output.endswith(f"{expected}\n"), (command, result)
    lines = results[-1].output.splitlines()
    assert [lines[0], *lines[3:]] == ["important", "example.com", "example.net"]


SUDO = """\
sudo() {
    export SUDO_COMMAND="/usr/local/bin/$*" SUDO_UID SUDO_GID SUDO_USER=alice
    SUDO_UID=$(id -u alice) SUDO_GID=$(id -g alice)
    "$@"
}
sudo automx backup own.gz && stat -c '%a %U:%G' own.gz
sudo automx export /etc/cron.d/automx
sudo automx apply /root/secret.yaml --yes
sudo automx apply /etc/automx/rows.yaml --yes
sudo automx apply own.yaml --yes
"""


def test_a_person_who_calls_by_sudo_has_no_more_files_than_before(installed: BareRoot) -> None:
    before = (
        f"mkdir -p /etc/cron.d; echo '{SAMPLE}' | tee /root/secret.yaml >/etc/automx/rows.yaml;"
        " chown root:automx /etc/automx/rows.yaml; chmod 640 /etc/automx/rows.yaml;"
        " install -o alice -m 600 /root/secret.yaml own.yaml"
    )
    who = "automx audit list --json | grep -c user:alice"
    _, result, audit = installed.run("sudo", [Step(before), Step(SUDO), Step(who)])
    lines = result.output.splitlines()
    assert lines[0].startswith("Wrote "), lines
    assert lines[1:5] == [
        "600 alice:alice",
        "automx: /etc/cron.d/automx cannot be written: Permission denied",
        "automx: /root/secret.yaml cannot be read: Permission denied",
        "automx: /etc/automx/rows.yaml cannot be read: Permission denied",
    ]
    assert "Permission denied" not in "".join(lines[5:])
    assert int(audit.output) > 0
