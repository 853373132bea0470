"""The forms that ``--json`` prints, command by command: runs each, and writes ``docs/json.md``.

``.venv/bin/python -m tests.jsonforms`` writes the page anew.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from automx.cli import main
from automx.migrations import head, upgrade
from tests.commandline import attempt
from tests.processes import REPOSITORY
from tests.test_mailadm import mailadm_database
from tests.zoneservers import ZoneServer, zone_server

PAGE = REPOSITORY / "docs" / "json.md"

# Each section: its title, what it says, and the commands whose output it shows, one on each line.
# Only the first of them is shown; the others have the same members.
SECTIONS = {
    "Settings": ("Values are texts as in a file of settings; secrets are masked.", "config"),
    "Schema": ("", "db current"),
    "Steps of the schema": ("", "db upgrade\ndb downgrade {head}"),
    "The first domain": (
        "[The first domain](quickstart.md) tells what is looked at.",
        (
            "quickstart d1.parent.test --yes --mail-host 127.0.0.1 --web-server none"
            " --public-host automx.parent.test --timeout 1 --dns {dns}"
        ),
    ),
    "Seeds": ("", "seed {seed}"),
    "Plans": (
        "Items of `changed` have `before` and `after`, those of `removed` have `before`.",
        "apply {document} --dry-run",
    ),
    "Lists of providers": ("", "provider list\nprovider show 1"),
    "Lists of mail servers": ("", "server list\nserver show 1"),
    "Lists of services": ("", "service list\nservice show 1"),
    "Lists of directories": ("", "directory list\ndirectory show 1"),
    "Lists of domains": (
        "`show` of a domain has what depends on it, too.",
        "domain list\ndomain show example.com",
    ),
    "Changes": (
        "Items of `changed` have `before` and `after`, those of `removed` have `before`.",
        (
            "domain add new.example --provider 1\ndomain set new.example --disabled\n"
            "domain disable new.example\ndomain enable new.example\n"
            "domain link new.example 1\ndomain unlink new.example 1\ndomain del new.example --yes\n"
            "provider add --name New\nprovider set New --short-name N\nprovider del New --yes\n"
            "server add --type imap --name new.example.com\nserver set new.example.com --prio 3\n"
            "server del new.example.com --yes\n"
            "service add --type caldav --url https://new.example.com/\n"
            "service set https://new.example.com/ --port 444 --dry-run\n"
            "service del https://new.example.com/ --yes\n"
            "directory add --name new.example.com --search-base dc=example\n"
            "directory set new.example.com --attr-cn displayName\n"
            "directory del new.example.com --yes\nimport-csv {table} --provider 1"
        ),
    ),
    "Imported files": ("", "import-autoconfig {autoconfig} --domain auto.example --yes"),
    "Synchronizations": ("", "sync --dry-run"),
    "Audit": ("", "audit list"),
    "Settings of a person": ("", "show alice@example.com"),
    "Directory of a person": (
        "`done` is false if a step failed; then the exit status is 1.",
        "ldap test alice@people.example",
    ),
    "Records": ("", "dns example.com"),
    "Written records": ("", "dns-apply {domain} --dry-run"),
    "Host names": ("`certificate` is null without `--all`.", "names --all\nnames example.com"),
    "Published files": ("", "publish {folder}"),
    "The doctor": ("[The doctor](check.md#json) explains the members.", "check"),
    "Tokens": (
        "Secrets are in it.",
        (
            "token add weekly --domain example.com\ntoken show weekly\n"
            "token mod weekly --maxuse 3\ntoken revoke weekly\ntoken mod weekly --unrevoke\n"
            "token list\n"
            "token qr weekly --output {qr}\ntoken del weekly"
        ),
    ),
    "Accounts": ("", "account list\naccount show {address}\naccount set {address} --expires never"),
    "New accounts and passwords": (
        "With `--qr FILE`, `file` is its name.",
        "account add {address} --token daily\naccount password {address}",
    ),
    "Deleted accounts": ("In the order in which they are named.", "account del {address} --yes"),
    "Actions for accounts": ("", "prune --dry-run"),
    "Logins": (
        "With `--qr FILE`, `file` is its name.",
        "dclogin alice@example.com --password-stdin",
    ),
    "Profiles": ("With `--qr FILE`, `file` is its name.", "mobileconfig-qr alice@example.com"),
    "Keys of the API": (
        "`add` and `rotate` have `key` as well, which is shown only then.",
        "apikey list\napikey revoke portal",
    ),
    "New keys of the API": ("", "apikey add shop --role read\napikey rotate shop"),
    "Deleted rows": ("", "purge --yes"),
    "mailadm": ("", "import-mailadm {mailadm} --dry-run"),
}
# Commands that print no data, or a document of another standard.
WITHOUT = {
    "backup": "writes [JSON lines](database.md#backup) of its own into a file",
    "completion": "prints a script for a shell",
    "db schema": "prints SQL",
    "export": "prints a [seed document](seed.md), which is JSON",
    "restore": "prints one line for people",
    "serve": "prints one line for people, and its [log](monitoring.md#the-log)",
    "web-server": "prints the configuration of a [web server](web-server.md)",
}

_ACCOUNT = "tmp.abcde@example.com"
_DOMAIN = "d0.parent.test"
# What changes from run to run.
_MASKS = (
    (r"20\d\d-\d\d-\d\dT[\d:.]+Z", "2026-12-31T12:00:00Z"),
    (r"20\d\d-\d\d-\d\d(?!T)", "2026-12-31"),
    (r"\b1d_[\w-]+|[?&]t=[\w-]+", "…"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:5353"),
    (r"user:\w+", "user:root"),
    (r"v=UAAC1; a=sha256; d=[\w+/=]+", "v=UAAC1; a=sha256; d=…"),
)
_SECRETS = {"key", "token", "password", "dclogin_url", "dcaccount", "digest", "url_token"}


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, bool]]:
    """Yield each command below a group, and whether it has ``--json``."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if (found := command.get_command(context, name)) is not None:
                yield from commands(found, (*path, name))
    else:
        yield " ".join(path), any("--json" in param.opts for param in command.params)


def name_of(line: str) -> str:
    """Return the name of the command that a line of SECTIONS runs."""
    known = {name for name, _ in commands(main)}
    words = line.split()
    return next(name for name in (" ".join(words[:2]), words[0]) if name in known)


def outputs(folder: Path, zones: ZoneServer) -> dict[str, list[Any]]:
    """Run the commands of each section, and return what they print."""
    files, env = prepared(folder, zones)
    ran = {
        title: [_printed(words, env, folder) for words in lines_of(lines, files)]
        for title, (_, lines) in in_order()
    }
    return {title: ran[title] for title in SECTIONS}


def lines_of(lines: str, files: Mapping[str, str]) -> list[list[str]]:
    """Return the words of each command of a section."""
    return [line.format(**files).split() for line in lines.split("\n")]


def in_order() -> list[tuple[str, tuple[str, str]]]:
    """Return the sections so that what is shown is made before."""
    later = ["Accounts", "Deleted accounts", "Keys of the API", "Deleted rows"]
    return sorted(
        SECTIONS.items(), key=lambda item: later.index(item[0]) if item[0] in later else -1
    )


def prepared(folder: Path, zones: ZoneServer) -> tuple[dict[str, str], dict[str, str]]:
    """Make a database with rows of all kinds, and files; return their names, and settings."""
    program, conf = folder / "accounts", folder / "automx.conf"
    program.write_text(_PROGRAM)
    program.chmod(0o700)
    database = f"sqlite:///{folder / 'automx.sqlite'}"
    (folder / "domains.csv").write_text("domain\nshop.example\n")
    conf.write_text(
        f"[automx]\n[source.shop]\ntype = file\nfile = {folder / 'domains.csv'}\nprovider = 1\n"
    )
    env = {"AUTOMX_CONF": str(conf), "AUTOMX_DB_URI": database, **zones.environ}
    env |= {"AUTOMX_PUBLIC_HOST": "automx.example.com", "SUDO_USER": "root"}
    env |= {"AUTOMX_WEB_ENDPOINT": "https://automx.example.com/new_email"}
    env |= {"AUTOMX_ACCOUNT_BACKEND": "command", "AUTOMX_ACCOUNT_COMMAND": str(program)}
    upgrade(database)
    people = {"id": 1, "name": f"ldapi://{folder}/none", "search_base": "dc=example"}
    people_domain = {"name": "people.example", "ldapserver_id": 1}
    seeds = {
        "seed": _seed("Other", []),
        "document": _seed("Applied", [{"name": "applied.example"}]),
        "people": {**_seed("Example", [people_domain, {"name": _DOMAIN}]), "ldapservers": [people]},
    }
    for name, document in seeds.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    (folder / "table.csv").write_text("name\ntable.example\n")
    for line in (
        "seed --sample",
        f"seed {folder / 'people.json'}",
        "token add daily --domain example.com",
        "apikey add portal --role read",
    ):
        result = attempt(*line.split(), env=env)
        assert result.returncode == 0, result.stderr
    mailadm_database(folder / "mailadm.db")
    files = {name: str(folder / f"{name}.json") for name in ("seed", "document")}
    files |= {"table": str(folder / "table.csv"), "mailadm": str(folder / "mailadm.db")}
    files |= {"autoconfig": str(REPOSITORY / "tests" / "data" / "imports" / "static.xml")}
    files |= {"folder": str(folder / "published"), "qr": str(folder / "weekly.png")}
    files |= {"dns": f"127.0.0.1:{zones.port}"}
    return files | {"address": _ACCOUNT, "domain": _DOMAIN, "head": head()}, env


def _seed(provider: str, domains: list[Any]) -> dict[str, Any]:
    servers = [
        {"type": type_, "name": f"{type_}.{provider.lower()}.example"} for type_ in ("imap", "smtp")
    ]
    return {"version": 2, "provider": provider, "domains": domains, "servers": servers}


_PROGRAM = """#!/bin/sh
case "$(cat)" in
*'"action": "check"'*) echo '{"status": "allowed"}' ;;
*'"action": "create"'*) echo '{"status": "created"}' ;;
*'"action": "find"'*) echo '{"status": "found", "active": true, "ours": true}' ;;
*'"action": "password"'*) echo '{"status": "changed"}' ;;
*) echo '{"status": "deleted"}' ;;
esac
"""


def _printed(words: list[str], env: Mapping[str, str], folder: Path) -> Any:
    result = attempt(*words, "--json", env=env, stdin="a password")
    assert result.stdout, (words, result.stderr)
    text = result.stdout.replace(str(folder), "/path").replace(str(REPOSITORY), "/path")
    return json.loads(text)


def example(value: Any, name: str = "") -> Any:
    """Return a printed value as an example: one item of each list, and nothing that changes."""
    match value:
        case dict():
            shown = {key: example(item, key) for key, item in value.items()}
            if name in {"settings", "shop"}:  # a member for each key
                return dict([*shown.items()][:1])
            return shown
        case list():
            return [example(item, name) for item in value[:1]]
        case str() if name in _SECRETS and value not in {"", "daily", "weekly"}:
            return "…"
        case str():
            for pattern, instead in _MASKS:
                value = re.sub(pattern, instead, value)
            return value
        case float():
            return 0.0
    return value


def page(found: Mapping[str, list[Any]]) -> str:
    """Return the page."""
    parts = [_HEAD]
    for name, text in WITHOUT.items():
        parts.append(f"| `automx {name}` | {text} |\n")
    for title, (text, lines) in SECTIONS.items():
        names = dict.fromkeys(f"`automx {name_of(line)}`" for line in lines.split("\n"))
        shown = json.dumps(example(found[title][0]), indent=2, ensure_ascii=False)
        parts.append(f"\n## {title}\n\n{', '.join(names)}\n")
        parts.append(f"\n{text}\n" if text else "")
        parts.append(f"\n```json\n{shown}\n```\n")
    return "".join(parts)


_HEAD = """# JSON of commands

Every command that prints data prints JSON with `--json` (RFC 8259, UTF-8): one document on
standard output. Errors and warnings are lines on standard error, and the exit status says whether
all was done. Members keep their names and kinds in all releases with the same first number; new
members may be added, so programs pass over those that they do not know. Times are ISO 8601 in UTC,
and null means that there is nothing. Texts of reasons are for people and may change.

Of lists, one item is shown here. `.venv/bin/python -m tests.jsonforms` writes this page: it runs
each command.

| Command without `--json` | |
|---|---|
"""


def write() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zone_server("bind", folder / "zones") as zones:
            PAGE.write_text(page(outputs(folder, zones)))


if __name__ == "__main__":
    write()
