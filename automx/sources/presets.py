"""The tables and attributes in which known programs keep their domains."""

from collections.abc import Mapping
from typing import NamedTuple

from automx.config import SourceSettings

# PostfixAdmin, iRedMail and mailcow have the same tables, and booleans of three kinds: that of
# PostgreSQL, numbers, and tinyint. In PostfixAdmin, an alias is a row of ``domain``, too.
# PostgreSQL reads all domains for each alias if they are too many for a NOT IN, and all aliases for
# each domain if a condition on them, beside the name, makes it expect few.
_POSTFIXADMIN = """\
SELECT d.domain AS domain, d.active AS active,
       CASE WHEN CAST(a.active AS CHAR(5)) IN ('1', 'true') THEN a.target_domain END AS alias_of
  FROM domain d
  LEFT JOIN alias_domain a ON a.alias_domain = d.domain
 WHERE CAST(d.backupmx AS CHAR(5)) IN ('0', 'false') AND d.domain <> 'ALL'
UNION ALL
SELECT a.alias_domain, a.active, a.target_domain
  FROM alias_domain a
 WHERE NOT EXISTS (SELECT 1 FROM domain d WHERE d.domain = a.alias_domain)
"""

_MODOBOA = """\
SELECT d.name AS domain, d.enabled AS active, '' AS alias_of
  FROM admin_domain d
 WHERE d.type = 'domain'
UNION ALL
SELECT a.name, a.enabled, d.name
  FROM admin_domainalias a
  JOIN admin_domain d ON d.id = a.target_id
 WHERE d.type = 'domain'
"""


class Search(NamedTuple):
    """A search in a directory: a filter, and the attributes by what they say."""

    search_filter: str
    attributes: Mapping[str, str]


_QUERIES = {"postfixadmin": _POSTFIXADMIN, "modoboa": _MODOBOA}

_SEARCHES = {
    "iredmail-ldap": Search(
        "(objectClass=mailDomain)",
        {"domain": "domainName", "active": "accountStatus", "aliases": "domainAliasName"},
    )
}


def query(source: SourceSettings) -> str:
    """Return the query of a source of the type ``sql``."""
    return source.query or _QUERIES[source.preset]


def search(source: SourceSettings) -> Search:
    """Return the search of a source of the type ``ldap``."""
    known = _SEARCHES.get(source.preset, Search("", {}))
    return Search(
        source.search_filter or known.search_filter, source.attributes or known.attributes
    )
