"""The tables: automx2's seven, with exactly its columns in its order, and our own.

People insert rows by position, and databases of automx2 are adopted as they are; so the seven
never change, and whatever is new goes into tables of its own. The migrations alone create them;
the classes here only read and write.
"""

from datetime import UTC, datetime

from sqlalchemy import Column, DateTime, Dialect, ForeignKey, String, Table, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Base of all tables."""


def _links(table: str) -> Table:
    """Return the table that says which rows of a table serve which domains."""
    return Table(
        f"{table}_domain",
        Base.metadata,
        Column(f"{table}_id", ForeignKey(f"{table}.id"), primary_key=True),
        Column("domain_id", ForeignKey("domain.id"), primary_key=True),
    )


server_domain, davserver_domain = _links("server"), _links("davserver")


class Provider(Base):
    """Who runs the mail servers; ``name`` is what people read."""

    __tablename__ = "provider"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    short_name: Mapped[str] = mapped_column(String(32))


class ProviderDetail(Base):
    """What people may want to know of a provider; clientconfig.ProviderDetails explains it."""

    __tablename__ = "provider_detail"

    provider_id: Mapped[int] = mapped_column(
        ForeignKey("provider.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    webmail_url: Mapped[str | None] = mapped_column(String(255))
    help_url: Mapped[str | None] = mapped_column(String(255))
    support_address: Mapped[str | None] = mapped_column(String(320))
    color: Mapped[str | None] = mapped_column(String(7))
    logo_type: Mapped[str | None] = mapped_column(String(32))
    logo_width: Mapped[int | None]
    logo_height: Mapped[int | None]
    logo: Mapped[bytes | None]
    oauth2_issuer: Mapped[str | None] = mapped_column(String(255))
    oauth2_auth_url: Mapped[str | None] = mapped_column(String(255))
    oauth2_token_url: Mapped[str | None] = mapped_column(String(255))
    oauth2_scope: Mapped[str | None] = mapped_column(String(255))
    oauth2_client_id: Mapped[str | None] = mapped_column(String(255))


class Documentation(Base):
    """A page that explains the settings to people; its provider has a row of details as well."""

    __tablename__ = "documentation"

    id: Mapped[int] = mapped_column(primary_key=True)
    provider_id: Mapped[int] = mapped_column(
        ForeignKey("provider_detail.provider_id", ondelete="CASCADE"), index=True
    )
    url: Mapped[str] = mapped_column(String(255))
    lang: Mapped[str] = mapped_column(String(35))
    text: Mapped[str] = mapped_column(String(255))


class Server(Base):
    """A mail server; the one with the lower ``prio`` is preferred."""

    __tablename__ = "server"

    id: Mapped[int] = mapped_column(primary_key=True)
    prio: Mapped[int] = mapped_column(server_default="10")
    name: Mapped[str] = mapped_column(String(128))
    port: Mapped[int]
    type: Mapped[str] = mapped_column(String(32))
    socket_type: Mapped[str] = mapped_column(String(32))
    user_name: Mapped[str] = mapped_column(String(64))
    authentication: Mapped[str] = mapped_column(String(32))


class Domain(Base):
    """A mail domain, in lower or upper case, as A-label or U-label, or a wildcard (``*``)."""

    __tablename__ = "domain"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    provider_id: Mapped[int] = mapped_column(ForeignKey("provider.id"))
    ldapserver_id: Mapped[int | None] = mapped_column(ForeignKey("ldapserver.id"))


class LdapServer(Base):
    """A directory that knows the login names of a domain's people."""

    __tablename__ = "ldapserver"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    port: Mapped[int]
    use_ssl: Mapped[bool]
    search_base: Mapped[str] = mapped_column(String(128))
    search_filter: Mapped[str] = mapped_column(String(128))
    attr_uid: Mapped[str] = mapped_column(String(32))
    attr_cn: Mapped[str | None] = mapped_column(String(32))
    bind_password: Mapped[str | None] = mapped_column(String(128))
    bind_user: Mapped[str | None] = mapped_column(String(128))


class DavServer(Base):
    """A service reached by URL: calendar, address book, file share; ``port`` 0 is the scheme's."""

    __tablename__ = "davserver"

    id: Mapped[int] = mapped_column(primary_key=True)
    url: Mapped[str] = mapped_column(String(128))
    port: Mapped[int]
    type: Mapped[str] = mapped_column(String(32))
    use_ssl: Mapped[bool]
    domain_required: Mapped[bool]
    user_name: Mapped[str | None] = mapped_column(String(64))


class UtcDateTime(TypeDecorator[datetime]):
    """A moment to the second, kept in UTC: databases differ in what they make of time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return what the database keeps of a moment; ValueError if it has no time zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        return value and value.astimezone(UTC).replace(tzinfo=None, microsecond=0)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment with its time zone."""
        return value and value.replace(tzinfo=UTC)


class Token(Base):
    """What an administrator gives away as QR code: the right to make some accounts.

    ``token`` is the secret, as mailadm calls it; it is found by its SHA-256, so that the time that
    the search takes tells nothing of it. ``expiry`` is the lifetime of the accounts, as mailadm
    writes it (``1d``, ``never``). ``maxuse`` 0 has no limit. ``backend`` "" is that of the
    settings. ``domain`` is a name, not a row's number: tokens outlive a domain that is seeded anew.
    """

    __tablename__ = "token"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    token: Mapped[str] = mapped_column(String(255))
    token_digest: Mapped[str] = mapped_column(String(64), unique=True)
    domain: Mapped[str] = mapped_column(String(255))
    prefix: Mapped[str] = mapped_column(String(64))
    address: Mapped[str | None] = mapped_column(String(320))
    expiry: Mapped[str] = mapped_column(String(16))
    maxuse: Mapped[int]
    usecount: Mapped[int]
    valid_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    is_revoked: Mapped[bool]
    backend: Mapped[str] = mapped_column(String(32))
    spare_active: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Account(Base):
    """A mailbox that was made by a token, or is being made or deleted; never its password.

    ``mark`` is what the backend keeps with the mailbox, so that one of the same name that somebody
    else made is not taken for ours. ``changed_at`` is when ``state`` got its value.
    """

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(String(320), unique=True)
    token_id: Mapped[int] = mapped_column(ForeignKey("token.id"), index=True)
    mark: Mapped[str] = mapped_column(String(32))
    backend: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    warned_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
