"""Sources: the sections ``[source.NAME]``, one for each place where domains are kept."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from automx.config import peoplequery, values
from automx.config.keys import keys_of, names_of, read_texts, setting
from automx.errors import SettingsError

TYPES = ("sql", "ldap", "command", "file", "mailcow")

# Preset -> the type of its source. Their queries stand in automx/sources/presets.py.
PRESETS = {"postfixadmin": "sql", "modoboa": "sql", "iredmail-ldap": "ldap"}

# Presets of queries for people; their text stands in automx/directory/queries.py.
PEOPLE_PRESETS = ("postfixadmin", "mailcow", "modoboa")

# Type -> the keys that it must have, and others that only some types can have.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "sql": ("uri", "query"),
    "ldap": ("uri", "search_base", "search_filter", "attributes"),
    "command": ("command",),
    "file": ("file",),
    "mailcow": ("uri", "token"),
}
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "ldap": ("bind_user", "bind_password"),
    "sql": ("people", "people_query", "domains"),
}
# What a preset knows.
_OF_PRESET = ("query", "search_filter", "attributes")

# A name stands in the names of variables, in the audit, and in the column ``origin``.
NAME = re.compile("[a-z0-9]([a-z0-9_-]{0,38}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSettings:
    """[Sources](sources.md) of domains: a section `[source.NAME]` for each, as many as there are.

    type: What the source is: `sql` (a database), `ldap` (a directory), `command` (a program),
    `file`, or `mailcow` (its API).

    preset: The program whose domains are read: `postfixadmin` (also for iRedMail with SQL and for
    the tables of mailcow), `modoboa`, or `iredmail-ldap`. It says `type` and the query.

    uri: The database, in the form of `db_uri`; the hosts of the directory, such as
    `ldaps://ldap.example.com`; or the URL of mailcow's API, by default `mailcow_endpoint`.

    query: The query (`SELECT`) that finds the domains. Its columns are `domain`, and if they are
    wanted `active`, `provider`, `like` and `alias_of`. Further lines of it are indented.

    search_base: Where in the directory the domains are.

    search_filter: The filter (RFC 4515) that finds the domains.

    attributes: Which attributes say what: `domain=domainName active=accountStatus`; also
    `aliases`, `alias_of`, `provider` and `like`.

    bind_user: The name (DN) by which automx logs in to the directory. Empty: anonymously.

    bind_password: The password of `bind_user`.

    command: A program that prints the domains: its full path and its arguments; quotes are as in a
    shell.

    file: The full path of a file with the domains.

    token: A key of mailcow's API that may only read; by default `mailcow_token`.

    provider: The provider of new domains: its name or id. It may be left out if there is only one.

    servers: The mail servers of new domains: host names or ids, with blanks between. By default,
    those that all domains of the provider share.

    services: The services of new domains: URLs or ids, with blanks between; likewise.

    directory: The directory (LDAP) of new domains: its host or id.

    like: A domain whose provider, servers, services and directory new domains get.

    interval: How often `automx serve` and `automx sync --due` read the source. A duration is a
    number and one of s, m, h, d, w, y.

    timeout: How long reading the source may take, in seconds.

    max_removed: How many domains may be gone or switched off at once; if there are more, nothing is
    changed. A percentage of the enabled domains of the source, but at least 5, or a number.

    keep_days: After how many days a domain that is gone is deleted; it is disabled until then. `0`:
    never.

    people: Look up [login names of people](people.md) in the database: `yes` (by the query for
    people of the `preset`), `no`, or the name of a preset: `postfixadmin`, `mailcow`, `modoboa`.

    people_query: The query (`SELECT`) that finds the login name of a person, in place of that of a
    preset. Its columns are `login`, and if it is wanted `name`; its placeholders are `:address`,
    `:local` and `:domain`, without quotes around them, in lower case. Further lines are indented.

    domains: The domains whose people are looked up: names or wildcards such as `*.example.com`,
    with blanks between. By default, those that the source has found.

    people_timeout: How long a look-up of a person may take in all, in seconds, at most 60; then the
    client is asked to try again later.

    people_cache_seconds: How long, in seconds, each worker remembers what was found of a person.
    `0` keeps nothing.
    """

    name: str = ""
    type: str = setting("type", values.one_of(("", *TYPES)))
    preset: str = setting("preset", values.one_of(("", *PRESETS)))
    uri: str = setting("uri", values.one_line, secret=True, show=values.without_password)
    query: str = setting("query", values.query)
    search_base: str = setting("search_base", values.one_line)
    search_filter: str = setting("search_filter", values.one_line)
    attributes: Mapping[str, str] = setting(
        "attributes", values.pairs, show=lambda pairs: " ".join(map("=".join, pairs.items()))
    )
    bind_user: str = setting("bind_user", values.one_line)
    bind_password: str = setting("bind_password", values.one_line, secret=True)
    command: tuple[str, ...] = setting("command", values.command)
    file: str = setting("file", values.absolute_path)
    token: str = setting("token", values.token, secret=True)
    provider: str = setting("provider", values.one_line)
    servers: tuple[str, ...] = setting("servers", values.words)
    services: tuple[str, ...] = setting("services", values.words)
    directory: str = setting("directory", values.one_line)
    like: str = setting("like", values.one_line)
    # Ruff does not see that these two are fields, too.
    interval: timedelta = setting("interval", values.interval, "5m")  # noqa: RUF009
    timeout: float = setting("timeout", values.positive_seconds, "30")
    max_removed: values.Share = setting("max_removed", values.share, "10%")  # noqa: RUF009
    keep_days: int = setting("keep_days", values.days, "30")
    people: str = setting("people", values.one_of(("", "yes", "no", *PEOPLE_PRESETS)))
    people_query: str = setting("people_query", peoplequery.checked)
    domains: tuple[str, ...] = setting("domains", values.domains)
    people_timeout: float = setting("people_timeout", values.call_seconds, "3")
    people_cache_seconds: float = setting("people_cache_seconds", values.seconds, "60")
    # Where the value of each key came from.
    given_by: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def values(self) -> dict[str, object]:
        """Return the value of each key."""
        return {name: getattr(self, one.path) for name, one in SOURCE_KEYS.items()}

    @property
    def origin(self) -> str:
        """The origin of the rows of this source; no document can have it."""
        return f"source:{self.name}"

    @property
    def finds_domains(self) -> bool:
        """Whether the source says which domains there are; else it knows people only."""
        return self.type != "sql" or bool(self.query or self.preset)

    @property
    def people_preset(self) -> str:
        """The preset whose query finds people; "" if there is none, or an own query."""
        return self.preset if self.people == "yes" else self.people.removeprefix("no")

    @property
    def finds_people(self) -> bool:
        """Whether the login names of people are looked up in this source."""
        return self.people != "no" and bool(self.people_query or self.people_preset)


SOURCE_KEYS = {one.name: one for one in keys_of(SourceSettings)}
SOURCE_NAMES = names_of(SOURCE_KEYS)

_URIS: Mapping[str, Callable[[str], str]] = {"sql": values.db_uri, "mailcow": values.api_url}


def read_sources(
    sections: Mapping[str, Mapping[str, tuple[str, str]]],
    *,
    mailcow: Mapping[str, str],
) -> tuple[SourceSettings, ...]:
    """Return the sources of sections: name -> key -> (text, where it stands).

    ``mailcow`` has ``uri`` and ``token`` of the other settings. Raises SettingsError as
    config.load().
    """
    found = []
    for name, texts in sections.items():
        given = read_texts(SOURCE_KEYS, texts)
        by = dict.fromkeys(SOURCE_KEYS, "default") | {
            key: where for key, (_, where) in texts.items()
        }
        found.append(_checked(SourceSettings(name=name, given_by=by, **given), mailcow))
    return tuple(found)


def _checked(source: SourceSettings, mailcow: Mapping[str, str]) -> SourceSettings:
    """Return a source whose keys fit its type. Raises SettingsError."""
    here = f"[source.{source.name}]"
    of_preset = PRESETS.get(source.preset, "")
    kind = source.type or of_preset
    if not kind:
        raise SettingsError(f"{here}: type or preset is missing: one of {', '.join(TYPES)}")
    if of_preset and kind != of_preset:
        raise SettingsError(f"{here}: the preset {source.preset} is of the type {of_preset}")
    of_mailcow: dict[str, Any] = {
        name: value
        for name, value in mailcow.items()
        if kind == "mailcow" and value and not getattr(source, name)
    }
    source = replace(source, type=kind, **of_mailcow)
    known = (*_NEEDED[kind], *_ALLOWED.get(kind, ()))
    for name in {name for names in (*_NEEDED.values(), *_ALLOWED.values()) for name in names}:
        if getattr(source, name) and name not in known:
            raise SettingsError(f"{here}: {name} has no meaning for the type {kind}")
    knows_people = kind == "sql" and bool(source.people or source.people_query)
    for name in _NEEDED[kind]:
        is_known = (of_preset and name in _OF_PRESET) or (knows_people and name == "query")
        if not getattr(source, name) and not is_known:
            or_preset = f" ({', '.join(_presets_of(kind))})" if name in _OF_PRESET else ""
            missing = f"preset{or_preset} or {name}" if or_preset else name
            raise SettingsError(f"{here}: {missing} is missing: the type {kind} needs it")
    if kind == "ldap" and source.attributes and "domain" not in source.attributes:
        raise SettingsError(f"{here}: attributes must name that of domain, such as domain=cn")
    if knows_people:
        _check_people(source, here)
    if read := _URIS.get(kind):
        try:
            source = replace(source, uri=read(values.without_comment(source.uri)))
        except ValueError as error:
            raise SettingsError(f"{here}: uri must be {error}") from None
    return source


def _presets_of(kind: str) -> list[str]:
    return [preset for preset, type_ in PRESETS.items() if type_ == kind]


def _check_people(source: SourceSettings, here: str) -> None:
    """Raise SettingsError for settings of people that do not fit each other."""
    if source.people_query and source.people not in {"", "no"}:
        raise SettingsError(f"{here}: people and people_query exclude each other")
    if source.people == "yes" and source.preset not in PEOPLE_PRESETS:
        known = ", ".join(PEOPLE_PRESETS)
        raise SettingsError(f"{here}: people must name a preset: one of {known}; or people_query")
    if not source.domains and not source.finds_domains:
        raise SettingsError(
            f"{here}: query or domains is missing: for which domains people are looked up"
        )
