"""The documentation says what is true: commands, keys, columns, words, links, walk-throughs."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from automx.cli import main
from automx.config import KEYS
from automx.models import metadata
from automx.words import (
    AUTHENTICATION_SYNONYMS,
    AUTHENTICATIONS,
    SERVER_TYPES,
    SERVICE_TYPES,
    SOCKET_TYPE_SYNONYMS,
    SOCKET_TYPES,
)
from docs import commands
from tests.commandline import automx
from tests.databases import Instance
from tests.processes import AUTOMX, REPOSITORY, program

PAGES = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").glob("**/*.md")),
]
DATABASE = REPOSITORY / "docs" / "database.md"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


class Block(NamedTuple):
    """A fenced block: the words behind the fence, such as ``sh walk-through``, and its text."""

    info: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(
        r"^( *)```([^\n`]*)\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL
    )
    return [Block(info.strip(), text) for _, info, text in found]


def prose(page: Path) -> str:
    """Return the text of a page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def section(page: Path, heading: str) -> str:
    """Return the text below a heading, up to the next one."""
    match = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", prose(page), re.MULTILINE | re.DOTALL
    )
    assert match, f"{page.name} has no heading {heading}"
    return match[1]


def first_column(text: str) -> list[str]:
    """Return the first cells of a table's rows, without the head."""
    rows = [line for line in text.splitlines() if line.lstrip().startswith("|")]
    return [row.split("|")[1].strip().strip("`") for row in rows[2:]]


def shell_lines(page: Path) -> Iterator[str]:
    """Yield the commands of fenced and indented blocks, without here-documents."""
    for block in blocks(page):
        if block.info.partition(" ")[0] not in {"sh", "bash", "console"}:
            continue
        text = re.sub(r"(?ms)<<'?(\w+)'?(.*?)\n.*?^ *\1$", r"\2", block.text)
        yield from text.replace("\\\n", " ").splitlines()
    yield from re.findall(r"(?m)^    (automx .*)$", prose(page))


def simple_commands(line: str) -> Iterator[list[str]]:
    """Yield the words of each command in a line of shell, without redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words: list[str] = []
    is_redirected = False
    for token in lexer:
        if set(token) <= set("();<>|&"):
            is_redirected = token[0] in "<>"
            if not is_redirected:
                yield words
                words = []
        elif is_redirected:
            is_redirected = False
        else:
            words.append(token)
    yield words


def automx_commands(line: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of automx in a line of shell."""
    for words in simple_commands(line):
        command = re.sub(r"^runuser -u \w+ -- (env )?", "", shlex.join(words))
        rest = list(dropwhile(lambda word: re.match(r"\w+=", word), shlex.split(command)))
        if rest and (rest[0] == "automx" or rest[0].endswith("bin/automx")):
            yield rest[1:]


def complaint(arguments: list[str]) -> str | None:
    """Return what click finds wrong with arguments of automx, without running the command."""
    command: click.Command = main
    for index, word in enumerate(arguments):
        if not isinstance(command, click.Group) or word in {"-h", "--help", "--version"}:
            arguments = arguments[index:]
            break
        found = command.get_command(click.Context(command), word)
        if found is None:
            return f"No such command {word!r}."
        command = found
    else:
        arguments = []
    if isinstance(command, click.Group):
        return None
    try:
        command.make_context(command.name, arguments)
    except click.exceptions.Exit:  # --help
        return None
    except click.UsageError as error:
        return error.format_message()
    return None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("db upgrade", "ok"),
        ("show a@example.com --format mobileconfig", "ok"),
        ("--version", "ok"),
        ("db up", "No such command 'up'."),
        ("show a@example.com --form text", "No such option"),
        ("db downgrade", "Missing argument 'REVISION'."),
    ],
)
def test_the_checks_below_notice_a_wrong_command(arguments: str, expected: str) -> None:
    found = complaint(arguments.split())
    assert (found or "ok").startswith(expected)


@pages
def test_commands_in_shell_blocks_exist_with_their_options(page: Path) -> None:
    wrong = [
        (line, text)
        for line in shell_lines(page)
        for arguments in automx_commands(line)
        if (text := complaint(arguments)) is not None
    ]
    assert wrong == []


@pages
def test_commands_in_the_text_exist_with_their_options(page: Path) -> None:
    spans = re.findall(r"(?<!`)`(automx [^`]+)`(?!`)", prose(page))
    wrong = [
        (span, text)
        for span in spans
        for arguments in automx_commands(span.replace("…", ""))
        if (text := complaint(arguments)) is not None
        and not text.startswith(("Missing argument", "Missing option"))
        and not re.search(r": '[A-Z]+': ", text)  # a word that stands for a value
    ]
    assert wrong == []


def slug(heading: str) -> str:
    """Return the anchor that Markdown viewers make of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pages
def test_cron_finds_the_programs_of_its_lines(page: Path) -> None:
    """The PATH of cron has neither the virtual environment nor a shell function."""
    for line in re.findall(r"^[\d*/]+ [\d*/]+ \S+ \S+ \S+ .*$", page.read_text(), re.MULTILINE):
        assert "automx" not in re.findall(r"(?<=\s)automx(?= [a-z])", line), line


@pages
def test_links_lead_to_files_and_headings(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists():
            wrong.append(target)
        elif anchor:
            headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
            if anchor not in map(slug, headings):
                wrong.append(target)
    assert wrong == []


@pages
def test_files_of_this_project_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"(?<![\w/.-])(?:contrib|docs|tests|automx|bench)/[\w./-]*\w", page.read_text()
    )
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_continuous_integration_runs_the_command_of_the_readme() -> None:
    last_line = (REPOSITORY / ".ci" / "run").read_text().splitlines()[-1]
    assert last_line == 'cd "$(dirname "$0")/.." && exec make test'
    commands = [block.text for block in blocks(REPOSITORY / "README.md") if block.info == "sh"]
    assert "make test\n" in commands


def test_contributing_names_the_next_revision() -> None:
    page = (REPOSITORY / "CONTRIBUTING.md").read_text()
    newest = max(path.name[:4] for path in (REPOSITORY / "alembic" / "versions").glob("[0-9]*.py"))
    assert re.findall(r"alembic (?:revision --rev-id|downgrade) (\d+)", page) == [
        f"{int(newest) + 1:04}",
        newest,
    ]


def test_the_readme_names_the_urls_that_make_run_prints() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    assert "serve --host 127.0.0.1 --port 4243 --examples" in makefile
    serve = (REPOSITORY / "automx" / "cli" / "server.py").read_text()
    printed = serve.partition('_EXAMPLES = """')[2].partition('"""')[0]
    urls = re.findall(r"{base}[^\s']*", printed)
    assert len(urls) == 4
    readme = (REPOSITORY / "README.md").read_text()
    assert [
        url for url in urls if url.replace("{base}", "http://127.0.0.1:4243") not in readme
    ] == []


def test_the_page_of_commands_is_what_they_tell_by_help() -> None:
    # In a process of its own: click keeps the help option of the first context of a command.
    code = "from docs import commands; print(commands.page(), end='')"
    page = subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, text=True)
    assert page == commands.PAGE.read_text(), "make reference writes it"


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (REPOSITORY / "docs" / "index.md").read_text()
    listed = re.findall(r"^(?:.*<)?((?:\.\./)?[\w/-]+)>?$", index, re.MULTILINE)
    assert sorted(listed) == sorted(
        os.path.relpath(page.with_suffix(""), REPOSITORY / "docs")
        for page in PAGES
        if page.name != "index.md"
    )


def test_configuration_names_every_key_and_its_default() -> None:
    text = section(REPOSITORY / "docs" / "configuration.md", "Every key")
    assert first_column(text) == list(KEYS)


@pytest.mark.parametrize("table", metadata.tables)
def test_database_names_every_column_in_its_order(table: str) -> None:
    columns = metadata.tables[table].columns.keys()
    assert first_column(section(DATABASE, f"`{table}`")) == columns


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("Types", {*SERVER_TYPES, *SERVICE_TYPES}),
        (
            "Socket types",
            {"TLS", *(word or "(empty)" for word in {**SOCKET_TYPES, **SOCKET_TYPE_SYNONYMS})},
        ),
        (
            "Authentication",
            {word or "(empty)" for word in {**AUTHENTICATIONS, **AUTHENTICATION_SYNONYMS}},
        ),
    ],
)
def test_database_names_every_word_that_lookup_reads(heading: str, words: set[str]) -> None:
    named = first_column(section(DATABASE, heading))
    assert sorted(word.lower() for word in named) == sorted(word.lower() for word in words)


def walk_through(page: Path, info: str = "sh walk-through") -> list[tuple[str, str]]:
    """Return the marked blocks of a page, each with the output that is shown behind it."""
    found = blocks(page)
    following = [*found[1:], Block("", "")][: len(found)]
    return [
        (block.text, after.text if after.info == "text" else "")
        for block, after in zip(found, following, strict=True)
        if block.info == info
    ]


def test_each_walk_through_is_followed() -> None:
    marked = {str(page.relative_to(REPOSITORY)) for page in PAGES if walk_through(page)}
    assert marked == {page for page, _, _ in WALK_THROUGHS} | {"docs/apply.md"}


WALK_THROUGHS = [
    ("docs/database.md", 3, ""),
    ("docs/administration.md", 8, "automx db upgrade >before\n"),
    ("docs/import.md", 3, "automx db upgrade >before\n"),
    ("docs/index.md", 1, ""),
    ("docs/mail-servers/mailcow.md", 1, "automx db upgrade >before\n"),
    ("docs/mail-servers/postfix-dovecot.md", 1, "automx db upgrade >before\n"),
    (
        "README.md",
        1,
        (
            "export AUTOMX_CONF=/dev/null AUTOMX_DB_URI=sqlite:///$PWD/var/automx.sqlite\n"
            "{ automx db upgrade; automx seed --sample; } >before\n"
        ),
    ),
]


@pytest.mark.parametrize(("page", "number", "before"), WALK_THROUGHS)
def test_a_walk_through_prints_what_is_shown(
    tmp_path: Path, page: str, number: int, before: str
) -> None:
    program("sqlite3", "sqlite3")
    (tmp_path / "contrib").symlink_to(REPOSITORY / "contrib")
    (tmp_path / "var").mkdir()
    steps = walk_through(REPOSITORY / page)
    assert len(steps) == number
    separator = "=== next step ==="
    script = before + f"echo '{separator}'\n".join(command for command, _ in steps)
    result = subprocess.run(
        ["bash", "-eu", "-o", "pipefail"],
        input=script,
        cwd=tmp_path,
        env={"PATH": f"{AUTOMX.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split(f"{separator}\n") == [output for _, output in steps]


def test_the_walk_through_of_apply_prints_what_is_shown(tmp_path: Path) -> None:
    page = REPOSITORY / "docs" / "apply.md"
    [example, _] = [block.text for block in blocks(page) if block.info == "yaml"]
    (tmp_path / "mail.yaml").write_text(example)
    uri = f"sqlite:///{tmp_path}/automx.sqlite"
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": uri}
    env |= {"PATH": f"{AUTOMX.parent}:{os.environ['PATH']}"}
    automx("db", "upgrade", env=env)
    for command, shown in walk_through(page):
        result = subprocess.run(
            ["bash", "-eu"],
            input=command,
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stderr, result.stdout) == (0, "", shown)


def test_the_walk_through_of_the_installation_seeds_what_is_shown(tmp_path: Path) -> None:
    page = REPOSITORY / "docs" / "install.md"
    found = blocks(page)
    index = next(i for i, block in enumerate(found) if "automx seed -" in block.text)
    document = re.search(r"<<'END'\n(.*?)^END$", found[index].text, re.MULTILINE | re.DOTALL)
    assert document
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{tmp_path}/automx.sqlite"}
    assert automx("db", "upgrade", env=env) == found[index - 1].text
    printed = automx("seed", "-", env=env, stdin=document[1])
    printed += automx("show", "alice@example.com", env=env)
    assert printed == found[index + 1].text


def test_the_records_on_the_page_are_those_of_the_installation(tmp_path: Path) -> None:
    installation = (REPOSITORY / "docs" / "install.md").read_text()
    flags = re.MULTILINE | re.DOTALL
    document = re.search(r"automx seed - <<'END'\n(.*?)^END$", installation, flags)
    assert document
    command, shown = blocks(REPOSITORY / "docs" / "dns.md")[:2]
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{tmp_path}/automx.sqlite"}
    automx("db", "upgrade", env=env)
    automx("seed", "-", env=env, stdin=document[1])
    assert automx(*command.text.split()[1:], env=env) == shown.text


def test_the_installation_shows_how_the_settings_begin(tmp_path: Path) -> None:
    found = blocks(REPOSITORY / "docs" / "install.md")
    [shown] = [block.text for block in found if block.text.startswith("db_uri = ")]
    conf = tmp_path / "automx.conf"
    conf.write_text("[automx]\ndb_uri = sqlite:////var/lib/automx/automx.sqlite\nproxy_count = 1\n")
    printed = automx("config", env={"AUTOMX_CONF": str(conf)})
    assert printed.replace(str(conf), "/etc/automx/automx.conf").startswith(shown)


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_the_statements_that_create_a_database_fit_automx(
    engine: str, request: pytest.FixtureRequest
) -> None:
    instance: Instance = request.getfixturevalue(f"{engine}_instance")
    [statements] = [block.text for block in blocks(DATABASE) if block.info == f"sql {engine}"]
    administrator = "root" if engine == "mariadb" else "postgres"
    instance.sql(statements)
    try:
        uri = instance.uri.format("automx").replace(f"{administrator}@", "automx:PASSWORD@")
        env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": uri}
        automx("db", "upgrade", env=env)
        automx("seed", "--sample", env=env)
        assert automx("show", "alice@example.com", env=env).startswith("alice@example.com, Example")
    finally:
        instance.sql("DROP DATABASE automx;")
