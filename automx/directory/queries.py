"""The queries that find people in the tables of known programs.

An address is that of a mailbox, an alias of a mailbox, or an alias of an alias; in a domain that is
an alias, it is the one of the same name in the target. What comes first in this order counts. An
alias with several targets has no login name, and an address that only a catch-all receives is that
of no person. Each condition compares a column with a value, so that its index is used.
"""

from automx.config import SourceSettings

# Booleans are those of PostgreSQL, or numbers: mailcow has a 2 for people who may not log in.
_ON = "CAST({} AS CHAR(5)) IN ('1', 'true')"

_POSTFIXADMIN = """\
SELECT login, name FROM (
  SELECT 1 AS place, m.username AS login, m.name AS name
    FROM mailbox m
   WHERE m.username = :address AND {m_on}
  UNION ALL
  SELECT 2, m.username, m.name
    FROM alias a JOIN mailbox m ON m.username = a.goto
   WHERE a.address = :address AND {a_on} AND {m_on}
  UNION ALL
  SELECT 3, m.username, m.name
    FROM alias a JOIN alias b ON b.address = a.goto JOIN mailbox m ON m.username = b.goto
   WHERE a.address = :address AND {a_on} AND {b_on} AND {m_on}
  UNION ALL
  SELECT 4, m.username, m.name
    FROM alias_domain d JOIN mailbox m ON m.username = {target}
   WHERE d.alias_domain = :domain AND {d_on} AND {m_on}
  UNION ALL
  SELECT 5, m.username, m.name
    FROM alias_domain d JOIN alias a ON a.address = {target}
         JOIN mailbox m ON m.username = a.goto
   WHERE d.alias_domain = :domain AND {d_on} AND {a_on} AND {m_on}
  UNION ALL
  SELECT 6, m.username, m.name
    FROM alias_domain d JOIN alias a ON a.address = {target}
         JOIN alias b ON b.address = a.goto JOIN mailbox m ON m.username = b.goto
   WHERE d.alias_domain = :domain AND {d_on} AND {a_on} AND {b_on} AND {m_on}
) found
ORDER BY place
LIMIT 1
"""

# Rooms and the like are mailboxes, too.
_OF_A_PERSON = "{} AND m.kind NOT IN ('location', 'thing', 'group')"

_MODOBOA = """\
SELECT login, name FROM (
  SELECT 1 AS place, u.email AS login, {name} AS name
    FROM admin_domain d
         JOIN admin_mailbox m ON m.domain_id = d.id JOIN core_user u ON u.id = m.user_id
   WHERE m.address = :local AND d.name = :domain AND d.enabled AND u.is_active
  UNION ALL
  SELECT 2, u.email, {name}
    FROM admin_alias a JOIN {recipients} r ON r.alias_id = a.id
         JOIN admin_mailbox m ON m.id = r.r_mailbox_id JOIN core_user u ON u.id = m.user_id
   WHERE a.address = :address AND a.enabled AND u.is_active
         AND (SELECT COUNT(*) FROM {recipients} o WHERE o.alias_id = a.id) = 1
  UNION ALL
  SELECT 3, u.email, {name}
    FROM admin_alias a JOIN {recipients} r ON r.alias_id = a.id
         JOIN admin_alias b ON b.id = r.r_alias_id JOIN {recipients} s ON s.alias_id = b.id
         JOIN admin_mailbox m ON m.id = s.r_mailbox_id JOIN core_user u ON u.id = m.user_id
   WHERE a.address = :address AND a.enabled AND b.enabled AND u.is_active
         AND (SELECT COUNT(*) FROM {recipients} o WHERE o.alias_id IN (a.id, b.id)) = 2
  UNION ALL
  SELECT 4, u.email, {name}
    FROM admin_domainalias t JOIN admin_domain d ON d.id = t.target_id
         JOIN admin_mailbox m ON m.domain_id = d.id JOIN core_user u ON u.id = m.user_id
   WHERE m.address = :local AND t.name = :domain AND t.enabled AND d.enabled AND u.is_active
  UNION ALL
  SELECT 5, u.email, {name}
    FROM admin_domainalias t JOIN admin_domain d ON d.id = t.target_id
         JOIN admin_alias a ON a.address = {target} JOIN {recipients} r ON r.alias_id = a.id
         JOIN admin_mailbox m ON m.id = r.r_mailbox_id JOIN core_user u ON u.id = m.user_id
   WHERE t.name = :domain AND t.enabled AND d.enabled AND a.enabled AND u.is_active
         AND (SELECT COUNT(*) FROM {recipients} o WHERE o.alias_id = a.id) = 1
) found
ORDER BY place
LIMIT 1
"""


def query(source: SourceSettings) -> str:
    """Return the query that finds people in a source; "" if it does not look up any."""
    if not source.finds_people:
        return ""
    if source.people_query:
        return source.people_query
    is_mysql = source.uri.startswith(("mysql", "mariadb"))
    preset = source.people_preset
    if preset == "modoboa":
        return _MODOBOA.format(
            name=_joined(is_mysql, "u.first_name", "' '", "u.last_name"),
            target=_joined(is_mysql, ":local", "'@'", "d.name"),
            recipients="modoboa_admin_aliasrecipient",
        )
    on = {f"{table}_on": _ON.format(f"{table}.active") for table in "mabd"}
    if preset == "mailcow":
        on["m_on"] = _OF_A_PERSON.format(on["m_on"])
    return _POSTFIXADMIN.format(target=_joined(is_mysql, ":local", "'@'", "d.target_domain"), **on)


def _joined(is_mysql: bool, *texts: str) -> str:
    """Return the expression that joins texts; for MySQL, || is another word for OR."""
    return f"CONCAT({', '.join(texts)})" if is_mysql else f"({' || '.join(texts)})"
