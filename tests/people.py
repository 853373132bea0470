"""Databases of mail servers whose people are looked up: real tables, and an account that reads."""

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa

from automx.address import EmailAddress
from automx.config import SourceSettings
from automx.counts import Counts
from automx.directory.database import PeopleDatabase
from automx.directory.lookups import Places
from automx.directory.person import Person
from tests import postfixadmin
from tests.databases import Instance, engine_uri
from tests.processes import REPOSITORY

HIDDEN = "stairs"  # the password of the account


@dataclass
class MailDatabase:
    """A database of a mail server; ``uri`` is that of an account that may only read."""

    engine: str
    uri: str
    instance: Instance | None = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = str(sa.engine.make_url(self.uri).database)

    @property
    def yes_and_no(self) -> tuple[str, str]:
        """How booleans are written."""
        return ("true", "false") if self.engine == "postgresql" else ("1", "0")

    def sql(self, statements: str) -> str:
        """Run SQL as the administrator."""
        if self.instance is not None:
            return self.instance.sql(statements, self.name)
        with sa.create_engine(self.uri).begin() as connection:
            for statement in filter(str.strip, statements.split(";")):
                connection.exec_driver_sql(statement)
        return ""

    def grant(self, *tables: str) -> None:
        """Make the account as the documentation does."""
        reader = f"reader_{self.name}"
        if self.engine == "mariadb":
            grants = [f"GRANT SELECT ON {self.name}.{table} TO {reader}" for table in tables]
            self.sql(";".join([f"CREATE USER {reader} IDENTIFIED BY '{HIDDEN}'", *grants]))
            self.uri = self.uri.replace("root@", f"{reader}:{HIDDEN}@")
        elif self.engine == "postgresql":
            self.sql(f"CREATE ROLE {reader} LOGIN; GRANT SELECT ON {', '.join(tables)} TO {reader}")
            self.uri = self.uri.replace("postgres@", f"{reader}:{HIDDEN}@")

    def grant_as_documented(self) -> None:
        """Make the account by the statements of the page of PostfixAdmin."""
        page = (REPOSITORY / "docs/mail-servers/postfixadmin.md").read_text()
        blocks = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
        number = {"sqlite": None, "mariadb": 0, "postgresql": 1}[self.engine]
        if number is None:
            return
        reader = f"reader_{self.name}"
        statements = blocks[number].replace("postfixadmin.", f"{self.name}.")
        statements = re.sub(r"\bautomx_reader(@localhost)?", reader, statements)
        self.sql(statements.replace("'PASSWORD'", f"'{HIDDEN}'"))
        root = "root@" if self.engine == "mariadb" else "postgres@"
        self.uri = self.uri.replace(root, f"{reader}:{HIDDEN}@")


def new_database(engine: str, request: pytest.FixtureRequest, folder: Any) -> MailDatabase:
    """Return an empty database of an engine."""
    if engine == "sqlite":
        return MailDatabase(engine, f"sqlite:///{folder}/mail.sqlite")
    instance: Instance = request.getfixturevalue(f"{engine}_instance")
    return MailDatabase(engine, instance.new_database(), instance)


# PostfixAdmin's columns that matter, for the engine for which its own program is not run.
_SQLITE_TABLES = """
CREATE TABLE mailbox (username VARCHAR(255) PRIMARY KEY, password VARCHAR(255), name VARCHAR(255),
  maildir VARCHAR(255), local_part VARCHAR(255), domain VARCHAR(255), active INTEGER);
CREATE TABLE alias (address VARCHAR(255) PRIMARY KEY, goto TEXT, domain VARCHAR(255),
  active INTEGER);
CREATE TABLE alias_domain (alias_domain VARCHAR(255), target_domain VARCHAR(255), active INTEGER);
CREATE TABLE domain (domain VARCHAR(255), description VARCHAR(255), active INTEGER);
"""
MAILBOXES = {  # address -> name; those of "off" may not log in
    "alice@example.com": "Alice Example",
    "bob@example.com": "",
    "off@example.com": "Off",
    "jürgen@example.com": "Jürgen",
    "o'brien@example.com": "O'Brien",
    "a_c@example.com": "Under",
    "100%@example.com": "Percent",
}
ALIASES = {
    "alice@example.com": "alice@example.com,archive@elsewhere.example",
    "bob@example.com": "bob@example.com",
    "info@example.com": "alice@example.com",
    "chain@example.com": "info@example.com",
    "both@example.com": "alice@example.com,bob@example.com",
    "away@example.com": "alice@elsewhere.example",
    "@example.com": "bob@example.com",
    "idle@example.com": "alice@example.com",
    "dead@example.com": "off@example.com",
    "loop@example.com": "loop@example.com",
}
_QUOTE = str.maketrans({"'": "''"})


def postfixadmin_tables(database: MailDatabase) -> None:
    """Make PostfixAdmin's tables, by its own program if possible, with people in them."""
    yes, no = database.yes_and_no
    if database.instance is None:
        database.sql(_SQLITE_TABLES)
    else:
        place, user = database.instance.socket, "root"
        if database.engine == "postgresql":
            place, user = place.parent, "postgres"
        postfixadmin.make_tables(database.engine, database.name, place, user)
    statements = []
    for domain in ("example.com", "alias.example"):
        columns = "domain, description, active"
        values = f"'{domain}', '', {yes}"
        if database.instance is not None:
            columns += ", aliases, mailboxes, maxquota, quota, transport, backupmx"
            values += f", 0, 0, 0, 0, 'virtual', {no}"
        statements.append(f"INSERT INTO domain ({columns}) VALUES ({values})")
    for address, name in MAILBOXES.items():
        local_part, _, domain = address.partition("@")
        texts = (address, "", name, "", local_part, domain)
        values = ", ".join(f"'{text.translate(_QUOTE)}'" for text in texts)
        active = no if local_part == "off" else yes
        statements.append(
            "INSERT INTO mailbox (username, password, name, maildir, local_part, domain, active)"
            f" VALUES ({values}, {active})"
        )
    for address, goto in ALIASES.items():
        active = no if address.startswith("idle") else yes
        statements.append(
            "INSERT INTO alias (address, goto, domain, active) VALUES"
            f" ('{address}', '{goto}', 'example.com', {active})"
        )
    statements.append(
        "INSERT INTO alias_domain (alias_domain, target_domain, active) VALUES"
        f" ('alias.example', 'example.com', {yes})"
    )
    database.sql(";".join(statements) + ";")
    database.grant_as_documented()


def source(uri: str, **settings: Any) -> SourceSettings:
    """Return a source with a database."""
    values = {"name": "mail", "type": "sql", "domains": ("*",), "people_timeout": 60.0, **settings}
    return SourceSettings(uri=engine_uri(uri), **values)


def find(people: PeopleDatabase, address: str) -> Person | None:
    """Look up the address that a person has typed."""
    return people.find(EmailAddress.parse(address))


def people_of(uri: str, **settings: Any) -> PeopleDatabase:
    """Return the people of a source; the caller closes it."""
    return PeopleDatabase(source(uri, **settings), Places(), Counts())
