"""The tables: automx2's seven, with exactly its columns in its order, and our own.

People insert rows by position, and databases of automx2 are adopted as they are; so the seven
never change, and whatever is new goes into tables of its own. The migrations alone create them;
what is here only reads and writes.
"""

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from automx.columntypes import Day, UtcDateTime

metadata = MetaData()


def _links(table: str) -> Table:
    """Return the table that says which rows of a table serve which domains."""
    return Table(
        f"{table}_domain",
        metadata,
        Column(f"{table}_id", ForeignKey(f"{table}.id"), primary_key=True),
        Column("domain_id", ForeignKey("domain.id"), primary_key=True),
    )


server_domain, davserver_domain = _links("server"), _links("davserver")


def _origins(table: str) -> Table:
    """Return the table that says which file, source or key the rows of a table come from."""
    key = ForeignKey(f"{table}.id", ondelete="CASCADE")
    return Table(
        f"{table}_origin",
        metadata,
        Column(f"{table}_id", key, primary_key=True, autoincrement=False),
        Column("origin", String(64), index=True, nullable=False),
    )


# A row without origin was made by hand, or by another program.
ORIGINS = {
    table: _origins(table) for table in ("provider", "server", "davserver", "ldapserver", "domain")
}

# The operator of mail servers; ``name`` is what people read.
Provider = Table(
    "provider",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("short_name", String(32), nullable=False),
)

# What people may want to know of a provider; clientconfig.ProviderDetails explains it.
ProviderDetail = Table(
    "provider_detail",
    metadata,
    Column(
        "provider_id",
        ForeignKey("provider.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("webmail_url", String(255)),
    Column("help_url", String(255)),
    Column("support_address", String(320)),
    Column("color", String(7)),
    Column("logo_type", String(32)),
    Column("logo_width", Integer),
    Column("logo_height", Integer),
    Column("logo", LargeBinary),
    Column("oauth2_issuer", String(255)),
    Column("oauth2_auth_url", String(255)),
    Column("oauth2_token_url", String(255)),
    Column("oauth2_scope", String(255)),
    Column("oauth2_client_id", String(255)),
)

# A page that explains the settings to people; its provider has a row of details as well.
Documentation = Table(
    "documentation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "provider_id",
        ForeignKey("provider_detail.provider_id", ondelete="CASCADE"),
        index=True,
        nullable=False,
    ),
    Column("url", String(255), nullable=False),
    Column("lang", String(35), nullable=False),
    Column("text", String(255), nullable=False),
)

# A mail server; the one with the lower ``prio`` is preferred.
Server = Table(
    "server",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("prio", Integer, server_default="10", nullable=False),
    Column("name", String(128), nullable=False),
    Column("port", Integer, nullable=False),
    Column("type", String(32), nullable=False),
    Column("socket_type", String(32), nullable=False),
    Column("user_name", String(64), nullable=False),
    Column("authentication", String(32), nullable=False),
)

# A mail domain, in lower or upper case, as A-label or U-label, or a wildcard (``*``).
Domain = Table(
    "domain",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), unique=True, nullable=False),
    Column("provider_id", ForeignKey("provider.id"), nullable=False),
    Column("ldapserver_id", ForeignKey("ldapserver.id")),
)

# A domain that is switched off: it is answered as if there were no such row.
DisabledDomain = Table(
    "disabled_domain",
    metadata,
    Column(
        "domain_id",
        ForeignKey("domain.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("since", UtcDateTime, nullable=False),
)

# What ``sync`` must know of a domain of a source that is gone there or that it has switched off.
# ``disabled_at`` is ``disabled_domain.since`` if ``sync`` has switched it off: another moment there
# is that of an administrator.
SyncedDomain = Table(
    "synced_domain",
    metadata,
    Column(
        "domain_id",
        ForeignKey("domain.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("gone_at", UtcDateTime),
    Column("disabled_at", UtcDateTime),
)

# A directory that knows the login names of a domain's people.
LdapServer = Table(
    "ldapserver",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("port", Integer, nullable=False),
    Column("use_ssl", Boolean, nullable=False),
    Column("search_base", String(128), nullable=False),
    Column("search_filter", String(128), nullable=False),
    Column("attr_uid", String(32), nullable=False),
    Column("attr_cn", String(32)),
    Column("bind_password", String(128)),
    Column("bind_user", String(128)),
)

# What a row of ``ldapserver`` says beyond automx2's columns, or at greater length; a value here
# takes the place of the column of the same name.
LdapServerDetail = Table(
    "ldapserver_detail",
    metadata,
    Column(
        "ldapserver_id",
        ForeignKey("ldapserver.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("search_base", String(1024)),
    Column("search_filter", String(512)),
    Column("login_name", String(128)),
)

# A service reached by URL: calendar, address book, file share; ``port`` 0 is the scheme's.
DavServer = Table(
    "davserver",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("url", String(128), nullable=False),
    Column("port", Integer, nullable=False),
    Column("type", String(32), nullable=False),
    Column("use_ssl", Boolean, nullable=False),
    Column("domain_required", Boolean, nullable=False),
    Column("user_name", String(64)),
)

# What an administrator gives away as QR code: the right to make some accounts. ``token`` is the
# secret, as mailadm calls it; it is found by its SHA-256, so that the time that the search takes
# tells nothing of it. ``expiry`` is the lifetime of the accounts, as mailadm writes it (``1d``,
# ``never``). ``maxuse`` 0 has no limit. ``backend`` "" is that of the settings. ``domain`` is a
# name, not a row's number: tokens outlive a domain that is seeded anew.
Token = Table(
    "token",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), unique=True, nullable=False),
    Column("token", String(255), nullable=False),
    Column("token_digest", String(64), unique=True, nullable=False),
    Column("domain", String(255), nullable=False),
    Column("prefix", String(64), nullable=False),
    Column("address", String(320)),
    Column("expiry", String(16), nullable=False),
    Column("maxuse", Integer, nullable=False),
    Column("usecount", Integer, nullable=False),
    Column("valid_until", UtcDateTime),
    Column("is_revoked", Boolean, nullable=False),
    Column("backend", String(32), nullable=False),
    Column("spare_active", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

# A mailbox that was made by a token, or is being made or deleted; never its password. ``mark`` is
# what the backend keeps with the mailbox, so that one of the same name that somebody else made is
# not taken for ours. ``changed_at`` is when ``state`` got its value.
Account = Table(
    "account",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("address", String(320), unique=True, nullable=False),
    Column("token_id", ForeignKey("token.id"), index=True, nullable=False),
    Column("mark", String(32), nullable=False),
    Column("backend", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, index=True),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("warned_at", UtcDateTime),
)

# Whether the server of a backend accepts a key, as backends.keys explains it; ``digest`` is a
# SHA-256, so that the table holds no secret.
BackendKey = Table(
    "backend_key",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

# Rows that were changed through automx, so that all workers forget what they remember of them;
# ``changelog`` explains it. ``number`` counts the rows that were ever written here; the only row
# of ``change_count`` has the highest one.
ChangeCount = Table(
    "change_count",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, nullable=False),
)
ChangeLog = Table(
    "change_log",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("table_name", String(32), nullable=False),
    Column("row_key", String(255), nullable=False),
)

# Who changed what; ``audit`` explains it. ``details`` is JSON without secrets, at most
# 65,535 bytes: what a TEXT of MariaDB holds.
Audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, index=True, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", String(255), index=True, nullable=False),
    Column("details", Text, nullable=False),
)

# A key of the API; ``apikeys`` explains it. Digests are the SHA-256 of keys; ``old_digest`` is that
# of the key before the last rotation, which is valid as well. ``provider_id`` and ``domains``
# (A-labels with blanks between) are the scope, ``networks`` (CIDR, likewise) where it may be used
# from; empty ones limit nothing. The provider is no foreign key: a scope must not widen with a
# deleted row.
ApiKey = Table(
    "api_key",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(60), unique=True, nullable=False),
    Column("digest", String(64), unique=True, nullable=False),
    Column("old_digest", String(64), unique=True),
    Column("role", String(16), nullable=False),
    Column("provider_id", Integer),
    Column("domains", Text, nullable=False),
    Column("networks", Text, nullable=False),
    Column("valid_until", UtcDateTime),
    Column("is_revoked", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("used_on", Day),
)

# A request of the API with an Idempotency-Key, for a day; ``digest`` is the SHA-256 of both keys.
# ``address`` is that of the account that it has made, NULL as long as it is being made.
ApiRequest = Table(
    "api_request",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("address", String(320)),
    Column("made_at", UtcDateTime, nullable=False),
)

# The last synchronization of a source; ``sync`` explains it. ``number`` counts them.
SourceSync = Table(
    "source_sync",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("began_at", UtcDateTime, nullable=False),
    Column("succeeded_at", UtcDateTime),
    Column("outcome", String(16), nullable=False),
    Column("message", String(255), nullable=False),
    Column("found", Integer, nullable=False),
    Column("added", Integer, nullable=False),
    Column("changed", Integer, nullable=False),
    Column("removed", Integer, nullable=False),
    Column("problems", Integer, nullable=False),
)

# The right of one process to do a work until a moment, or when it ended; ``leases`` explains it.
Lease = Table(
    "lease",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", UtcDateTime, nullable=False),
)

# A domain whose records automx writes into its zone; ``zones.rollover`` explains it. ``name`` is
# the A-label. ``document`` is the PACC document that is served, empty if there is none; the zone
# may hold its digest, and that of the next or of the old one. ``ttl`` is how many seconds resolvers
# may remember them. ``version`` counts the changes of the row.
ManagedDomain = Table(
    "managed_domain",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("document", LargeBinary, nullable=False),
    Column("next_document", LargeBinary),
    Column("old_document", LargeBinary),
    Column("step", String(16), nullable=False),
    Column("ttl", Integer, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("due_at", UtcDateTime),
    Column("version", Integer, nullable=False),
)

# Tables whose rows say what was done; they configure nothing, and stay when all else is deleted.
RECORDS = {
    "change_count",
    "change_log",
    "audit",
    "api_request",
    "source_sync",
    "lease",
    "managed_domain",
}
