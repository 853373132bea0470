"""Targets: files and texts of administrators: settings, URIs, mailadm's database, imports."""

import contextlib
import logging
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from unittest.mock import patch

from automx import autoconfigfile, config, csvfile, members, rows
from automx.accounts import mailadm, mailadmfile
from automx.cli.terminal import printable, printable_json
from automx.config import values
from automx.config.files import ETC
from automx.database import Session, create_engine, uris
from automx.errors import AutomxError, BadRequestError, DatabaseError, SeedError, SettingsError
from automx.inmemory import is_in_memory
from automx.migrations import upgrade
from automx.sources import found, texts
from automx.sources.found import SourceError
from tests.fuzz.promises import keep, one_line, refusing, target, text_of

_NOW = datetime(2026, 6, 1, tzinfo=UTC)


@cache
def _folder() -> Path:
    """Return a folder that is removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="automx-fuzz-")
    _KEPT.append(folder)
    return Path(folder.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@target
def settings_file(data: bytes) -> None:
    """Read a configuration file; the first byte "2" makes it one of automx2."""
    variable = "AUTOMX2_CONF" if data[:1] == b"2" else "AUTOMX_CONF"
    path = _folder() / "automx.conf"
    path.write_bytes(data.removeprefix(b"2"))
    with refusing(SettingsError):
        settings = config.load({variable: str(path), "HOME": str(ETC / "nowhere")})
        for name, key in config.KEYS.items():
            keep(isinstance(key.show(_value_of(settings, key.path)), str), f"{name} can be shown")
        for source in settings.sources:
            for name, value in source.values().items():
                shown = config.SOURCE_KEYS[name].show(value)
                keep(isinstance(shown, str), f"{name} of a source can be shown")


def _value_of(found: object, path: str) -> object:
    for name in path.split("."):
        found = getattr(found, name)
    return found


@target
def setting(data: bytes) -> None:
    """Read the text of a setting from the environment: "key=text"."""
    name, _, text = text_of(data).partition("=")
    if name not in config.KEYS:
        name = "web_endpoint"
    environ = {"AUTOMX_CONF": "/dev/null", "HOME": "/", f"AUTOMX_{name.upper()}": text}
    with refusing(SettingsError):
        value = _value_of(config.load(environ), config.KEYS[name].path)
        shown = config.KEYS[name].show(value)
        if config.KEYS[name].secret and len(text.strip()) > 12 and "://" not in text:
            keep(text.strip() not in shown, "a secret is not shown")
        if name == "db_uri":
            _check_uri(str(value))


def _check_uri(uri: str) -> None:
    """Check that a URI of the settings is one for SQLAlchemy, or refused in one line."""
    with refusing(SettingsError, DatabaseError):
        with uris.driver_errors(uri):
            in_memory = is_in_memory(uri)
        keep(uris.file_of(uri) is None or not in_memory, "a database in memory has no file")
        uris.file_to_make(uri)
        again = uris.existing_file_uri(uri)
        keep(uris.url_of(again).get_backend_name() == uris.url_of(uri).get_backend_name(), "kind")


@target
def hidden_password(data: bytes) -> None:
    """Show a URI: the password, which stands in the place of PASSWORD, must be hidden."""
    uri = text_of(data)
    for before, after in (("://user:", "@"), ("?password=", "&"), ("?sslpassword=", "")):
        whole = f"postgresql{before}hush-{uri.replace('@', '').replace('&', '')}{after}"
        if not set("@?&;/#") & set(uri):
            keep("hush-" not in values.without_password(whole), f"hidden: {whole}")
    values.without_password(uri)


@target
def mailadm_file(data: bytes) -> None:
    """Read a file that may be a database of mailadm."""
    path = _folder() / "mailadm.db"
    for name in ("mailadm.db-wal", "mailadm.db-journal", "mailadm.db-shm"):
        path.with_name(name).unlink(missing_ok=True)
    path.write_bytes(data)
    with refusing(BadRequestError):
        _check_import(mailadmfile.read(path))


@target
def mailadm_rows(data: bytes) -> None:
    """Import rows of mailadm: "t", "u" or "c" and the values of the columns, separated by "|"."""
    tokens, users, found = [], [], {"mail_domain": "example.com"}
    for line in text_of(data).split("\n"):
        kind, *columns = line.split("|")
        texts = [mailadmfile._text(column) for column in (*columns, *[""] * 6)]
        number = mailadmfile._number
        if kind == "t":
            tokens.append(
                mailadmfile.OldToken(
                    *(texts[0], texts[1], texts[2], texts[3]),
                    maxuse=number(texts[4]),
                    usecount=number(texts[5]) or 0,
                )
            )
        elif kind == "u":
            user = texts[0], number(texts[1]), number(texts[2]), texts[3]
            users.append(mailadmfile.OldUser(*user))
        elif kind == "c":
            found[texts[0]] = texts[1].strip()
    _check_import(mailadmfile.Mailadm(found, tokens, users, has_passwords=False))


@cache
def _session() -> Session:
    """Return a session on a database that has one domain."""
    uri = f"sqlite:///{_folder() / 'automx.sqlite'}"
    upgrade(uri)
    path = _folder() / "automx.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "INSERT INTO provider VALUES (1, 'Example', 'Example');"
            "INSERT INTO domain VALUES (1, 'example.com', 1, NULL);"
        )
    return Session(create_engine(uri))


def _check_import(found: mailadmfile.Mailadm) -> None:
    session = _session()
    session.rollback()
    with refusing(AutomxError):
        report = mailadm.take_over(session, found, now=_NOW)
        settings = mailadm.settings(found, report)
        keep(report.tokens.added + report.tokens.present <= len(found.tokens), "tokens")
        document = report.document(settings, dry_run=True)
        keep(len(document) > 5, "a report can be shown")
        again = mailadm.take_over(session, found, now=_NOW)
        keep(again.tokens.added == again.accounts.added == 0, "a second import adds nothing")
    session.rollback()


@target
def autoconfig_file(data: bytes) -> None:
    """Read an Autoconfig file: what is kept are members that rows can hold."""
    with refusing(SeedError):
        found = autoconfigfile.read(data, "the file")
        members.read("provider", {"name": "Example", **found.provider})
        for domain in found.domains:
            keep(members.DOMAIN["name"].read(domain) == domain, "a name has its normal form")
        for kind, record, items in (
            ("server", rows.mail_server, found.servers),
            ("service", rows.service, found.services),
        ):
            for item in items:
                given = {member: value for member, value in item.items() if value is not None}
                keep(members.read(kind, given) == item, "an item has its normal form")
                record(item)
        for line in found.lost:
            one_line(line)


@target
def csv_file(data: bytes) -> None:
    """Read a table in CSV: each row has the columns of the head."""
    columns = ("name", "provider", "servers")
    with refusing(SeedError):
        last, heads = 1, set()
        for number, record in csvfile.read(data, "the file", columns, "name"):
            keep(number > last, "lines are counted")
            last = number
            heads.add(tuple(record))
            keep(all(cell == cell.strip() for cell in record.values()), "no blanks around cells")
        keep(len(heads) <= 1, "all rows have the same columns")


@target
def terminal(data: bytes) -> None:
    """Show a text at the terminal, where it may not move the cursor."""
    text = text_of(data)
    keep(printable(text).isprintable(), "a line is printable")
    keep(printable_json(text).replace("\n", "").isprintable(), "and so is JSON")
    for line in _logged(text):
        one_line(line)


def _logged(text: str) -> Iterator[str]:
    """Yield the line of the log that holds a text."""
    from automx.log import MAX_LINE, TextFormatter

    record = logging.LogRecord("automx", logging.ERROR, "", 0, "%s", (text,), None)
    with patch.object(TextFormatter, "formatTime", lambda *_: "now"):
        line = TextFormatter().format(record)
    keep(len(line) < 7 * MAX_LINE, "a line has a limit")
    yield line


@target
def source_text(data: bytes) -> None:
    """Read what a file or a program says of domains: JSON, CSV, or a name on each line."""
    with refusing(SourceError):
        domains = found.read(texts.records(data, "a file"))
        for label, domain in domains.by_label.items():
            keep(found.is_label(label), f"{label} is an A-label")
            keep(rows.DOMAIN["name"].read(domain.name) == domain.name, "names are normal")
        for problem in domains.problems:
            one_line(str(problem))
