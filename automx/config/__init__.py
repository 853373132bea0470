"""Settings: each is declared once here, with its kind, its default and its explanation.

A group of settings is a frozen dataclass that its owner takes. The docstring of the group explains
its keys: ``make reference`` writes ``contrib/automx.conf`` and docs/configuration.md from it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from ipaddress import ip_address
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from automx.config import files, mailadm, values, zones
from automx.config.keys import keys_of, names_of, read_texts, setting
from automx.config.monitoring import LogSettings, MetricsSettings
from automx.config.page import PageSettings
from automx.config.sources import SOURCE_KEYS, SourceSettings, read_sources
from automx.duration import parse_duration
from automx.errors import SettingsError

__all__ = [
    "BACKENDS",
    "KEYS",
    "LOG_LEVELS",
    "SOURCE_KEYS",
    "AccountSettings",
    "DirectorySettings",
    "Key",
    "LimitSettings",
    "PageSettings",
    "Settings",
    "SigningSettings",
    "SourceSettings",
    "ZoneSettings",
    "load",
    "make",
]

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

BACKENDS = ("none", "mailcow", "command")

# automx2's variable, and the value that its documentation asks for.
CLEARTEXT_VARIABLE = "PERMIT_CLEARTEXT_PASSWORDS"
CLEARTEXT_CONSENT = "I_understand_the_risks"


# Python's logging, and so automx2, has a second word for two of them.
_log_level = values.choice(
    {level.lower(): level for level in LOG_LEVELS} | {"warn": "WARNING", "fatal": "CRITICAL"},
    f"one of {', '.join(LOG_LEVELS)}",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectorySettings:
    """Directories (LDAP): for domains that name a row of the table `ldapserver`.

    ldap_starttls: Encrypt connections that are not LDAPS with StartTLS: `yes` (but not to this
    machine itself), `no`, or `try` (go on in clear text if the directory refuses).

    ldap_ca_file: The file of certificate authorities (PEM) that directories are checked with,
    instead of the authorities of the system.

    ldap_verify: Check the certificates of directories: `yes` or `no`. Without the check, anyone on
    the way can read the passwords; automx warns at every start.

    ldap_timeout: How long a look-up may take in all, in seconds; then the client is asked to try
    again later.

    ldap_cache_seconds: How long, in seconds, each worker remembers the answers of directories. `0`
    keeps nothing.

    ldap_cache_size: For how many addresses each worker remembers the answers of directories.

    ldap_bind_password_file: Files with passwords that replace the column `bind_password`: the id of
    the row and a path, such as `3:/etc/automx/ldap.3`; several are separated by blanks.

    ldap_client_certificate_file: Files (PEM) with a certificate, and its key, that automx shows to
    the hosts of a directory: the id of the row and a path, such as `3:/etc/automx/ldap.3.pem`;
    several are separated by blanks.

    ldap_client_key_file: Files (PEM) with the keys of these certificates, where they do not stand
    in the same files; written alike.
    """

    starttls: str = setting("ldap_starttls", values.starttls, "yes")
    ca_file: str = setting("ldap_ca_file", values.readable_file)
    verify: bool = setting("ldap_verify", values.boolean, "yes")
    timeout: float = setting("ldap_timeout", values.positive_seconds, "3")
    cache_seconds: float = setting("ldap_cache_seconds", values.seconds, "60")
    cache_size: int = setting("ldap_cache_size", values.count, "10000")
    bind_passwords: Mapping[int, str] = setting(
        "ldap_bind_password_file", values.bind_passwords, show=values.without_passwords
    )
    client_certificates: Mapping[int, str] = setting(
        "ldap_client_certificate_file", values.files_of_rows, show=values.row_files
    )
    client_keys: Mapping[int, str] = setting(
        "ldap_client_key_file", values.files_of_rows, show=values.row_files
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountSettings:
    """Mailboxes of [Delta Chat accounts](deltachat.md).

    account_backend: The program that makes the mailboxes: `mailcow`, `command` (a program of
    yours), or `none` (the mail server makes a mailbox at the first login). A token can name another
    one.

    account_timeout: How long a call of the backend may take, in seconds, at most 60.

    account_command: The program of the backend `command`: its full path and its arguments; quotes
    are as in a shell. Put no secrets here: other users of the machine can see the arguments.

    mailcow_endpoint: The URL of mailcow's API, such as `https://mailcow.example.org/api/v1`.

    mailcow_token: A key of mailcow's API that may read and write.

    mailcow_ca_file: The file of certificate authorities (PEM) that mailcow is checked with, instead
    of the usual ones.

    account_warn_before: How long before the expiry of an account `automx prune` runs
    `account_warn_command`, once for each account. A duration is a number and one of s, m, h, d, w,
    y. `0s`: never.

    account_warn_command: The program that warns the person: its full path and its arguments.

    account_created_command: The program that is told of each new account: its full path and its
    arguments. The answer to the phone waits for it.

    account_grace: How long `automx prune` keeps an expired mailbox disabled before it deletes it.
    `0s`: it deletes the mailbox at once.
    """

    backend: str = setting("account_backend", values.one_of(BACKENDS), "none")
    timeout: float = setting("account_timeout", values.call_seconds, "20")
    command: tuple[str, ...] = setting("account_command", values.command)
    mailcow_endpoint: str = setting("mailcow_endpoint", values.api_url)
    mailcow_token: str = setting("mailcow_token", values.token, secret=True)
    mailcow_ca_file: str = setting("mailcow_ca_file", values.ca_file)
    # Ruff does not see that these two are fields, too.
    warn_before: timedelta = setting("account_warn_before", parse_duration, "0s")  # noqa: RUF009
    warn_command: tuple[str, ...] = setting("account_warn_command", values.command)
    created_command: tuple[str, ...] = setting("account_created_command", values.command)
    grace: timedelta = setting("account_grace", parse_duration, "0s")  # noqa: RUF009


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitSettings:
    """Limits on requests for accounts.

    account_rate_limit: How many accounts one client address, and all clients of one token, may ask
    for: limits in the notation of the library limits, separated by `;`. Empty: no limit.

    rate_limit_storage: Where requests are counted: `memory://` (each worker counts alone) or a
    Redis that all workers share, such as `redis://localhost:6379`. Redis needs
    a Python module: `EXTRAS=postgresql,mysql,redis contrib/setup-venv.sh`, or
    `pip install '.[redis]'` in the source of automx.
    """

    rate: str = setting("account_rate_limit", values.rate_limit, "30 per minute; 300 per day")
    storage: str = setting(
        "rate_limit_storage", values.storage, "memory://", secret=True, show=values.without_password
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningSettings:
    """Apple profiles that are [signed](configuration.md#signed-apple-profiles).

    signing_certificate: The file of the certificate (PEM) that signs Apple profiles, so that
    devices show them as verified. It may hold the intermediate certificates, and the key, too.

    signing_key: The file of the key of the certificate (PEM).

    signing_key_passphrase: The passphrase of the key, if the key is encrypted.

    signing_chain: The file of the intermediate certificates (PEM), if the file of the certificate
    does not hold them.
    """

    certificate: str = setting("signing_certificate", values.readable_file)
    key: str = setting("signing_key", values.readable_file)
    passphrase: str = setting("signing_key_passphrase", str, secret=True)
    chain: str = setting("signing_chain", values.readable_file)


@dataclass(frozen=True, kw_only=True, slots=True)
class ZoneSettings:
    """Zones that [`automx dns-apply`](dns.md#written-by-automx) writes.

    A section `[zone.example.com]` holds the settings of the zone example.com and of the names below
    it, without `zone_`: `server`, `key` and so on; what it leaves out is as in `[automx]`.

    zone_server: The primary name server of all zones that have no section of their own: an IP
    address or a host name, perhaps with a port, such as `192.0.2.1:53`. Empty: none of them is
    written.

    zone_key: The name of the TSIG key that signs the updates.

    zone_algorithm: The algorithm of the key: `hmac-sha224`, `hmac-sha256`, `hmac-sha384` or
    `hmac-sha512`.

    zone_secret: The secret of the key, in base64.

    zone_command: A program that writes the records in place of an update by DNS, for the API of a
    hoster: its full path and its arguments; see [the program](dns.md#a-program-for-a-hosters-api).
    The records are read from `zone_server`.

    zone_timeout: How long the name server, or the program, may take for an answer, in seconds, at
    most 60.

    zone_owner: The name by which this installation marks its records, such as `automx`, if several
    of them write the same zones.

    zone_ttl: The TTL of records, in seconds.

    zone_delay: How long it takes at most until all name servers of a zone have a change. A duration
    is a number and one of s, m, h, d, w, y.
    """

    server: str = setting("zone_server", values.name_server)
    key: str = setting("zone_key", values.key_name)
    algorithm: str = setting("zone_algorithm", values.one_of(zones.ALGORITHMS), "hmac-sha256")
    secret: str = setting("zone_secret", values.tsig_secret, secret=True)
    command: tuple[str, ...] = setting("zone_command", values.command)
    timeout: float = setting("zone_timeout", values.call_seconds, "10")
    owner: str = setting("zone_owner", values.owner, "automx")
    ttl: int = setting("zone_ttl", values.ttl, "3600")
    # Ruff does not see that it is a field, too.
    delay: timedelta = setting("zone_delay", parse_duration, "10m")  # noqa: RUF009


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings.

    db_uri: The database: `sqlite:////var/lib/automx/automx.sqlite`,
    `postgresql://automx:PASSWORD@localhost/automx` or `mysql://automx:PASSWORD@localhost/automx`;
    see [databases](database.md#three-engines). The default is a SQLite file: `automx.sqlite` in
    `$STATE_DIRECTORY` (set by systemd), else in `$XDG_DATA_HOME/automx`, else in
    `~/.local/share/automx`.

    db_read_uri: A read replica of the database, from which look-ups of domains are read; all else
    is read from and written to `db_uri`. While the replica does not answer, look-ups are read
    there, too. See [scaling](scaling.md#a-read-replica).

    db_timeout: How long a request may wait for the database, in seconds, at most 60; then the
    client is asked to try again later. Commands have no limit. See
    [a database that does not answer](database.md#a-database-that-does-not-answer).

    db_echo: Write each SQL statement to the log, with its values: `yes` or `no`.

    loglevel: How much is logged: `DEBUG`, `INFO` (one line for each request), `WARNING`, `ERROR` or
    `CRITICAL`.

    proxy_count: How many proxies stand between the clients and automx: the client address, the
    scheme, the host name and the path prefix are taken from the `X-Forwarded-*` headers of that
    many proxies. `0` believes none. See [proxies](configuration.md#proxies).

    domain_cache_seconds: How long each worker keeps the rows of a domain in memory, in seconds. A
    change by SQL is visible after at most this time; a change by automx itself after a second,
    whatever this time is. `0` asks the database for each request.

    stale_seconds: How long, in seconds, each worker may go on with the rows of a domain from its
    memory while the database does not answer, counted from the moment at which they were due to be
    read again. `0`: not at all.

    publish_seconds: How many seconds [published files](publishing.md) may be behind the database:
    the time from one run of `automx publish` to the next, and that of a run. `automx dns-apply`
    waits as long before it relies on a new document. `0`: PACC documents are not published.

    audit_days: After how many days `automx prune` deletes the entries of the
    [audit](administration.md#who-changed-what), which tell who changed what. `0`: never.

    initdb_token: A request with this token (`Authorization: Bearer TOKEN`) may use `/initdb/`, from
    anywhere. If none is set, programs on this machine may fill an empty database there. See
    [/initdb/](configuration.md#initdb).

    tls_ask_token: A request with this token (`?token=TOKEN`) may ask at `/tls/ask`, from anywhere,
    which names [may have certificates](tls.md#caddy); programs on this machine need none. Letters
    and digits are best, since it stands in a URL.

    permit_cleartext_passwords: Put the password into an Apple profile if it is sent by POST: `yes`
    or `no`. The profile then holds the password in clear text. See
    [passwords](configuration.md#passwords-in-apple-profiles).

    web_endpoint: The public URL of this service that the QR codes of
    [Delta Chat accounts](deltachat.md) lead to, such as `https://mail.example.org/new_email`. It is
    https: Delta Chat asks no other. Its path is answered in addition to `/` and `/new_email`.

    public_host: The public host name of this service, such as `mail.example.org`: DNS records, the
    URLs of Apple profiles in QR codes and answers to Outlook name it. The default is the host of
    `web_endpoint`.

    sync_in_server: Let `automx serve` read the [sources](sources.md), each at its `interval`: `yes`
    or `no`. Of several servers with one database, one at a time does it.
    """

    db_uri: str = setting("db_uri", values.db_uri, secret=True, show=values.without_password)
    db_read_uri: str = setting(
        "db_read_uri", values.replica_uri, secret=True, show=values.without_password
    )
    db_timeout: float = setting("db_timeout", values.call_seconds, "3")
    db_echo: bool = setting("db_echo", values.boolean, "no")
    loglevel: str = setting("loglevel", _log_level, "WARNING")
    proxy_count: int = setting("proxy_count", values.proxy_count, "0")
    domain_cache_seconds: float = setting("domain_cache_seconds", values.seconds, "10")
    stale_seconds: float = setting("stale_seconds", values.seconds, "3600")
    publish_seconds: float = setting("publish_seconds", values.seconds, "600")
    audit_days: int = setting("audit_days", values.days, "365")
    initdb_token: str = setting("initdb_token", values.token, secret=True)
    tls_ask_token: str = setting("tls_ask_token", values.token, secret=True)
    permit_cleartext_passwords: bool = setting("permit_cleartext_passwords", values.boolean, "no")
    # No key of the file: only automx2's environment variable sets it.
    permit_passwords_in_urls: bool = False
    directory: DirectorySettings = field(default_factory=DirectorySettings)
    web_endpoint: str = setting("web_endpoint", values.https_url)
    public_host: str = setting("public_host", values.host_name)
    sync_in_server: bool = setting("sync_in_server", values.boolean, "no")
    page: PageSettings = field(default_factory=PageSettings)
    accounts: AccountSettings = field(default_factory=AccountSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    signing: SigningSettings = field(default_factory=SigningSettings)
    sources: tuple[SourceSettings, ...] = ()
    zone: ZoneSettings = field(default_factory=ZoneSettings)
    # Those of the sections [zone.NAME], by NAME.
    zones: Mapping[str, ZoneSettings] = field(default_factory=dict)
    logs: LogSettings = field(default_factory=LogSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    # Where the value of each key came from.
    given_by: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    # The configuration file, None if there is none.
    file: files.File | None = field(default=None, compare=False, repr=False)

    @property
    def public_url(self) -> str:
        """The URL of the public host, with the port of ``web_endpoint`` if it is the same host.

        It has no final slash; "" if the public host is not known.
        """
        endpoint = urlsplit(self.web_endpoint)
        if self.public_host and endpoint.hostname == self.public_host:
            return f"{endpoint.scheme}://{endpoint.netloc}"
        return f"https://{self.public_host}" if self.public_host else ""

    def zone_of(self, domain: str) -> ZoneSettings | None:
        """Return the settings of the zone that holds a domain; None if automx writes none there."""
        labels = domain.split(".")
        names = (".".join(labels[at:]) for at in range(len(labels)))
        found = next((self.zones[name] for name in names if name in self.zones), self.zone)
        return found if found.server else None

    def values(self) -> dict[str, object]:
        """Return the value of each key."""
        return {name: attrgetter(key.path)(self) for name, key in KEYS.items()}


KEYS = {key.name: key for key in keys_of(Settings)}

_NAMES = names_of(KEYS)


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that files and environment give.

    ``environ`` takes the place of ``os.environ``. Raises SettingsError for a file that cannot be
    read, an unknown key or a bad value; the text names file or variable, key, and what is allowed.
    """
    environ = os.environ if environ is None else environ
    found = files.read(environ, _NAMES)
    values = {"db_uri": default_db_uri(environ)} | read_texts(KEYS, found.texts)
    given_by = dict.fromkeys(KEYS, "default")
    given_by |= {name: where for name, (_, where) in found.texts.items()}
    if bool(values.get("signing_certificate")) != bool(values.get("signing_key")):
        missing = "signing_certificate" if values.get("signing_key") else "signing_key"
        raise SettingsError(f"{missing} is missing: profiles are signed with both")
    made = make(**values)
    if made.db_read_uri and _kind(made.db_read_uri) != _kind(made.db_uri):
        raise SettingsError("db_read_uri and db_uri name databases of two kinds")
    of_zone = {
        name.removeprefix("zone_"): key
        for name, key in KEYS.items()
        if key.path.startswith("zone.")
    }
    values["zones"] = zones.read(found.zones, made.zone, of_zone)
    is_open = made.metrics.listen and not ip_address(made.metrics.address[0]).is_loopback
    if is_open and not made.metrics.token:
        raise SettingsError("metrics_token is missing: strangers may reach metrics_listen")
    for row_id in made.directory.client_keys.keys() - made.directory.client_certificates.keys():
        raise SettingsError(f"ldap_client_certificate_file is missing for the key of {row_id}")
    if values.get("web_endpoint") and not values.get("public_host"):
        given_by["public_host"] = "the host of web_endpoint"
    mailadm.warn(environ, given_by)
    if environ.get(CLEARTEXT_VARIABLE) == CLEARTEXT_CONSENT:
        values["permit_cleartext_passwords"] = values["permit_passwords_in_urls"] = True
        given_by["permit_cleartext_passwords"] = f"environment variable {CLEARTEXT_VARIABLE}"
    mailcow = {"uri": made.accounts.mailcow_endpoint, "token": made.accounts.mailcow_token}
    sources = read_sources(found.sources, mailcow=mailcow)
    return make(**values, sources=sources, given_by=given_by, file=found.file)


def make(**values: object) -> Settings:
    """Return settings from the values of keys; a key that is not given has its default.

    Beside keys, ``permit_passwords_in_urls``, ``sources``, ``given_by`` and ``file`` can be given.
    ``db_uri`` must be.
    """
    endpoint = str(values.get("web_endpoint", ""))
    values["public_host"] = values.get("public_host") or urlsplit(endpoint).hostname or ""
    groups: dict[str, dict[str, Any]] = {"": {}}
    for name, value in values.items():
        group, _, attribute = (KEYS[name].path if name in KEYS else name).rpartition(".")
        groups.setdefault(group, {})[attribute] = value
    own = groups.pop("")
    types: dict[str, Any] = {item.name: item.type for item in fields(Settings)}
    return Settings(**own, **{name: types[name](**group) for name, group in groups.items()})


def _kind(db_uri: str) -> str:
    """Return what kind of database a URI names."""
    return db_uri.partition(":")[0].partition("+")[0].replace("mariadb", "mysql")


def default_db_uri(environ: Mapping[str, str]) -> str:
    """Return the URI of the SQLite file in the data directory of this service or user."""
    if state := environ.get("STATE_DIRECTORY"):  # systemd; the first one if there are several
        folder = Path(state.split(":", maxsplit=1)[0])
    elif data := environ.get("XDG_DATA_HOME"):
        folder = Path(data) / "automx"
    else:
        folder = files.home(environ) / ".local" / "share" / "automx"
    return f"sqlite:///{folder.absolute() / 'automx.sqlite'}"
