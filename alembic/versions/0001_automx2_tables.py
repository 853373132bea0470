"""automx2's seven tables, and what makes a domain quick to find.

The tables are created where they are missing. Those of an automx2 database of any age are adopted
with all their rows: the oldest have no ``server.prio`` or have it as their last column, and none
of the tables for CalDAV and CardDAV. Those of 2019, which are on SQLite and PostgreSQL only, have
no directories, and another order of columns. People insert rows by position, so the columns have to
be in order. automx2's own table ``alembic_version`` is none of our business.

Every step looks at the database first, so that a run that was cut off can be repeated: MariaDB
commits each statement by itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import CreateTable

from automx.errors import ConflictError, DatabaseError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Our indexes: name -> (table, what is indexed). They hold all that a look-up reads, so that rows,
# which lie apart, need not be read among a million. (The primary keys of the last two tables begin
# with the server.) On MySQL and MariaDB, foreign keys and unique names bring indexes of their own,
# and each index holds the primary key.
INDEXES = {
    "ix_domain_lower_name": ("domain", "lower(name), name, provider_id, ldapserver_id"),
    "ix_server_domain_domain_id": ("server_domain", "domain_id, server_id"),
    "ix_davserver_domain_domain_id": ("davserver_domain", "domain_id, davserver_id"),
}
MYSQL_INDEXES = {
    "ix_domain_name": ("domain", "name"),
    "ix_server_domain_domain_id": ("server_domain", "domain_id"),
    "ix_davserver_domain_domain_id": ("davserver_domain", "domain_id"),
}


def tables() -> Sequence[sa.Table]:
    """Return the seven tables in an order in which they can be created."""
    metadata = sa.MetaData()
    options: dict[str, Any] = {}
    for dialect in ("mysql", "mariadb"):  # names in any script and any case, whatever the default
        options[f"{dialect}_engine"] = "InnoDB"
        options[f"{dialect}_collate"] = "utf8mb4_general_ci"

    def table(name: str, *columns: sa.Column[object]) -> None:
        sa.Table(name, metadata, *columns, **options)

    def key() -> sa.Column[object]:
        return sa.Column("id", sa.Integer, primary_key=True)

    def number(name: str, default: str | None = None) -> sa.Column[object]:
        return sa.Column(name, sa.Integer, nullable=False, server_default=default)

    def text(name: str, length: int, *, null: bool = False) -> sa.Column[object]:
        return sa.Column(name, sa.String(length), nullable=null)

    def yes_no(name: str) -> sa.Column[object]:
        return sa.Column(name, sa.Boolean, nullable=False)

    def reference(name: str, *, null: bool = False, part: bool = False) -> sa.Column[object]:
        target = sa.ForeignKey(f"{name.removesuffix('_id')}.id")
        return sa.Column(name, sa.Integer, target, nullable=null, primary_key=part)

    table("provider", key(), text("name", 128), text("short_name", 32))
    table(
        "server",
        key(),
        number("prio", "10"),
        text("name", 128),
        number("port"),
        text("type", 32),
        text("socket_type", 32),
        text("user_name", 64),
        text("authentication", 32),
    )
    table(
        "davserver",
        key(),
        text("url", 128),
        number("port"),
        text("type", 32),
        yes_no("use_ssl"),
        yes_no("domain_required"),
        text("user_name", 64, null=True),
    )
    table(
        "ldapserver",
        key(),
        text("name", 128),
        number("port"),
        yes_no("use_ssl"),
        text("search_base", 128),
        text("search_filter", 128),
        text("attr_uid", 32),
        text("attr_cn", 32, null=True),
        text("bind_password", 128, null=True),
        text("bind_user", 128, null=True),
    )
    table(
        "domain",
        key(),
        sa.Column("name", sa.String(128), nullable=False, unique=True),
        reference("provider_id"),
        reference("ldapserver_id", null=True),
    )
    for server in ("server", "davserver"):
        table(
            f"{server}_domain",
            reference(f"{server}_id", part=True),
            reference("domain_id", part=True),
        )
    return metadata.sorted_tables


def upgrade() -> None:
    offline = context.is_offline_mode()
    existing = {} if offline else columns_by_table()
    refuse_strangers(existing)
    for table in tables():
        if table.name not in existing:
            op.execute(CreateTable(table))
    if "ldapserver_id" not in existing.get("domain", ("ldapserver_id",)):
        add_directories(existing["domain"])
    if "server" in existing:
        put_prio_second(existing["server"])
    if not is_mysql():
        for name, (table_name, expression) in INDEXES.items():
            op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {table_name} ({expression})")
    elif not offline:
        ignore_case_of_domains()
        for name, (table_name, column) in MYSQL_INDEXES.items():
            if not is_indexed(table_name, column):
                op.execute(f"CREATE INDEX {name} ON {table_name} ({column})")


def downgrade() -> None:
    """Drop the tables if all are empty; else leave them, since their rows may be older than we."""
    bind = op.get_bind()
    existing = columns_by_table()
    ours = [table for table in tables() if table.name in existing]
    if not any(bind.scalar(sa.select(1).select_from(table).limit(1)) for table in ours):
        for table in reversed(ours):
            op.drop_table(table.name)
    elif not is_mysql():  # there, foreign keys may have come to rely on them
        for name in INDEXES:
            op.execute(f"DROP INDEX IF EXISTS {name}")


def is_mysql() -> bool:
    return op.get_context().dialect.name in {"mysql", "mariadb"}


def quoted(name: str) -> str:
    return op.get_context().dialect.identifier_preparer.quote_identifier(name)


def columns_by_table() -> dict[str, list[str]]:
    """Return table -> columns in their order, of those of the seven tables that exist."""
    inspector = sa.inspect(op.get_bind())
    existing = set(inspector.get_table_names())
    return {
        table.name: [column["name"] for column in inspector.get_columns(table.name)]
        for table in tables()
        if table.name in existing
    }


def refuse_strangers(existing: Mapping[str, Sequence[str]]) -> None:
    """Raise DatabaseError if a table bears one of our names and is another program's."""
    added = {"server": {"prio"}, "domain": set() if is_mysql() else {"ldapserver_id"}}
    for table in tables():
        missing = set(table.columns.keys()) - set(existing.get(table.name, table.columns.keys()))
        for column in sorted(missing - added.get(table.name, set())):
            raise DatabaseError(
                cause=f"the table {table.name} has no column {column}, so it is another program's:"
                " give automx a database of its own"
            )


def put_prio_second(columns: Sequence[str]) -> None:
    """Make ``prio`` the second column of ``server``, with default 10; keep all else that is there.

    ``columns`` are those that the table has now.
    """
    default = None
    for column in sa.inspect(op.get_bind()).get_columns("server"):
        if column["name"] == "prio":
            default = str(column["default"]).strip("'")
    if columns[1] == "prio" and default == "10":
        return
    match op.get_context().dialect.name:
        case "mysql" | "mariadb":
            change = "MODIFY" if "prio" in columns else "ADD"
            place = "prio INTEGER NOT NULL DEFAULT 10 AFTER id"
            op.execute(f"ALTER TABLE server {change} COLUMN {place}")
        case "sqlite":
            rebuild_in_sqlite("server")
        case _:
            if "prio" in columns:
                op.execute("ALTER TABLE server ALTER COLUMN prio SET DEFAULT 10")
            else:
                op.execute("ALTER TABLE server ADD COLUMN prio INTEGER NOT NULL DEFAULT 10")
            if columns[1] != "prio":
                move_columns_behind_prio()


def add_directories(columns: Sequence[str]) -> None:
    """Give ``domain`` the column ``ldapserver_id`` behind ``provider_id``, behind ``name``.

    ``columns`` are those that the table has now.
    """
    if op.get_context().dialect.name == "sqlite":
        rebuild_in_sqlite("domain")
        return
    if columns.index("provider_id") < columns.index("name"):
        op.execute("ALTER TABLE domain ADD COLUMN automx_provider_id INTEGER")
        op.execute("UPDATE domain SET automx_provider_id = provider_id")
        op.execute("ALTER TABLE domain DROP COLUMN provider_id")
        op.execute("ALTER TABLE domain RENAME COLUMN automx_provider_id TO provider_id")
        op.execute("ALTER TABLE domain ALTER COLUMN provider_id SET NOT NULL")
        op.execute("ALTER TABLE domain ADD FOREIGN KEY (provider_id) REFERENCES provider (id)")
    op.execute("ALTER TABLE domain ADD COLUMN ldapserver_id INTEGER REFERENCES ldapserver (id)")


# What a table of SQLite that is made anew has beside its old columns.
NEW_COLUMNS = {
    "server": ("prio", "INTEGER DEFAULT '10' NOT NULL"),
    "domain": ("ldapserver_id", "INTEGER"),
}
CONSTRAINTS = {
    "server": ("PRIMARY KEY (id)",),
    "domain": (
        *("PRIMARY KEY (id)", "UNIQUE (name)"),
        "FOREIGN KEY(provider_id) REFERENCES provider (id)",
        "FOREIGN KEY(ldapserver_id) REFERENCES ldapserver (id)",
    ),
}


def in_order(table: str, columns: Iterable[str]) -> list[str]:
    """Return columns in the order of the table, and those that somebody has added behind them."""
    [ours] = [found.columns.keys() for found in tables() if found.name == table]
    return sorted(columns, key=lambda name: ours.index(name) if name in ours else len(ours))


def rebuild_in_sqlite(table: str) -> None:
    """Make a table anew: SQLite can add columns to the end only."""
    bind = op.get_bind()
    columns = bind.execute(sa.text(f"PRAGMA table_info({table})")).mappings().all()
    others = bind.scalars(  # indexes and triggers somebody has added; they go with the old table
        sa.text(
            "SELECT sql FROM sqlite_master WHERE tbl_name = :table AND sql IS NOT NULL"
            " AND type IN ('index', 'trigger')"
        ),
        {"table": table},
    ).all()
    new, definition = NEW_COLUMNS[table]
    definitions = {new: definition}
    for column in columns:
        if column["name"] != new:
            default = f" DEFAULT ({column['dflt_value']})" if column["dflt_value"] else ""
            null = " NOT NULL" if column["notnull"] else ""
            definitions[column["name"]] = f"{column['type']}{default}{null}"
    wanted = [f"{quoted(name)} {definitions[name]}" for name in in_order(table, definitions)]
    names = ", ".join(quoted(column["name"]) for column in columns)
    # Without this, SQLite stumbles over views of the table that is gone for a moment.
    bind.exec_driver_sql("PRAGMA legacy_alter_table = ON")
    for statement in (
        f"CREATE TABLE automx_{table} ({', '.join((*wanted, *CONSTRAINTS[table]))})",
        f"INSERT INTO automx_{table} ({names}) SELECT {names} FROM {table}",  # noqa: S608 # names of columns
        f"DROP TABLE {table}",
        f"ALTER TABLE automx_{table} RENAME TO {table}",
        *others,
    ):
        bind.exec_driver_sql(statement)
    bind.exec_driver_sql("PRAGMA legacy_alter_table = OFF")


def move_columns_behind_prio() -> None:
    """Put each column but ``id`` and ``prio`` to the end of ``server`` on PostgreSQL, in our order.

    The table itself stays, and with it the sequence, the foreign keys to it and who may read it.
    """
    bind = op.get_bind()
    found = (
        bind.execute(
            sa.text(
                "SELECT attname AS name, format_type(atttypid, atttypmod) AS type,"
                " attnotnull AS required, pg_get_expr(adbin, adrelid) AS expression"
                " FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
                " WHERE attrelid = CAST('server' AS regclass) AND attnum > 0 AND NOT attisdropped"
                " AND attname NOT IN ('id', 'prio') ORDER BY attnum"
            )
        )
        .mappings()
        .all()
    )
    by_name = {column["name"]: column for column in found}
    columns = [by_name[name] for name in in_order("server", by_name)]

    indexes = bind.execute(  # those that somebody has added; they go with the columns
        sa.text(
            "SELECT CAST(CAST(indexrelid AS regclass) AS text), pg_get_indexdef(indexrelid)"
            " FROM pg_index WHERE indrelid = CAST('server' AS regclass)"
        )
    ).all()

    def alter(*changes: str) -> None:
        # A default may hold a percent sign, which psycopg would take for a placeholder.
        bind.exec_driver_sql(f"ALTER TABLE server {', '.join(changes)}".replace("%", "%%"))

    new = {column["name"]: quoted(f"automx_{column['name']}") for column in columns}
    alter(*(f"ADD COLUMN {new[column['name']]} {column['type']}" for column in columns))
    values = ", ".join(f"{there} = {quoted(name)}" for name, there in new.items())
    bind.exec_driver_sql(f"UPDATE server SET {values}")  # noqa: S608 # names of columns
    alter(*(f"DROP COLUMN {quoted(name)}" for name in new))
    for column in columns:
        name = quoted(column["name"])
        alter(f"RENAME COLUMN {new[column['name']]} TO {name}")
        if column["required"]:
            alter(f"ALTER COLUMN {name} SET NOT NULL")
        if column["expression"]:
            alter(f"ALTER COLUMN {name} SET DEFAULT {column['expression']}")
    for index, definition in indexes:
        if bind.scalar(sa.text("SELECT to_regclass(:index) IS NULL"), {"index": index}):
            bind.exec_driver_sql(definition.replace("%", "%%"))


def ignore_case_of_domains() -> None:
    """Give ``domain.name`` a collation of MySQL or MariaDB that ignores case, if it has another."""
    bind = op.get_bind()
    charset, collation, kind = bind.execute(
        sa.text(
            "SELECT character_set_name, collation_name, column_type"
            " FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND table_name = 'domain' AND column_name = 'name'"
        )
    ).one()
    if collation.endswith("_ci"):
        return
    wanted = f"{charset}_general_ci"
    names = sa.table("domain", sa.column("name"))
    same = sa.select(sa.func.group_concat(names.c.name)).having(sa.func.count() > 1)
    if twins := bind.scalars(same.group_by(sa.collate(names.c.name, wanted))).all():
        raise ConflictError(
            "The table domain holds names that differ in case or accents only:"
            f" {'; '.join(twins)}. Keep one of each, then upgrade again."
        )
    collate = f"CHARACTER SET {charset} COLLATE {wanted}"
    op.execute(f"ALTER TABLE domain MODIFY COLUMN name {kind} {collate} NOT NULL")


def is_indexed(table: str, column: str) -> bool:
    """Return whether an index of MySQL or MariaDB begins with a column."""
    return bool(
        op.get_bind().scalar(
            sa.text(
                "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = DATABASE()"
                " AND table_name = :table AND column_name = :column AND seq_in_index = 1"
            ),
            {"table": table, "column": column},
        )
    )
