"""The rows of the first domain: what the database has already, and what is added to it."""

from collections.abc import Sequence

from sqlalchemy import select

from automx import imports, members, references, words
from automx.autoconfigfile import AutoconfigFile
from automx.changes import Changes, selection, stored
from automx.clientconfig import MailServer
from automx.database import Session
from automx.errors import ConflictError, UnknownRowError
from automx.imports import Wishes
from automx.members import Item
from automx.models import metadata

_TABLES = metadata.tables
_TYPES = {type_: word for word, type_ in reversed(words.SERVER_TYPES.items())}
_SOCKET_TYPES = {type_: word for word, type_ in reversed(words.SOCKET_TYPES.items())}
_METHODS = {method: word for word, method in reversed(words.AUTHENTICATIONS.items())}


def known_servers(session: Session, domain: str) -> list[Item] | None:
    """Return the mail servers of a domain, an A-label; None if the database does not hold it."""
    item = _domain(session, domain)
    if item is None:
        return None
    return [server for _, server in stored.items(session, "server", item["servers"])]


def server_item(server: MailServer) -> Item:
    """Return the item of a mail server."""
    value = {
        "type": _TYPES[server.type],
        "name": server.hostname,
        "port": server.port,
        "socket_type": _SOCKET_TYPES[server.socket_type],
        "authentication": " ".join(_METHODS[method] for method in server.authentication),
    }
    return members.read("server", value, server.hostname)


def add(
    changes: Changes, domain: str, servers: Sequence[MailServer], provider: str | None = None
) -> None:
    """Add a domain with its servers; a provider and servers that are there already are used.

    ``provider`` is a name or an id; a name that no provider has makes one. Without it, the provider
    is that of other domains with the same servers, else one of the domain's name. Raises
    ConflictError if the domain has other servers.
    """
    items = [server_item(server) for server in servers]
    known = known_servers(changes.session, domain)
    if known is not None:
        if not _are_equal(known, items):
            hint = "automx server and automx domain link change them"
            raise ConflictError(f"{domain} is there already, with other mail servers; {hint}")
        return
    found = AutoconfigFile([domain], servers=items)
    wishes = Wishes(provider=_provider(changes.session, provider, items))
    if wishes.provider is None:
        found.provider = {"name": provider or domain}
    imports.add_file(changes, found, domain, wishes)


def _domain(session: Session, domain: str) -> Item | None:
    ids = [row_id for row_id, _, _ in references.same_domains(session, [domain])]
    return stored.item(session, "domain", min(ids)) if ids else None


def _provider(session: Session, name: str | None, items: Sequence[Item]) -> int | None:
    """Return the id of the provider to use, None for a new one."""
    if name is None:
        return _provider_with(session, items)
    try:
        return selection.find(session, "provider", name)
    except UnknownRowError:
        if name.isdecimal():  # an id
            raise
        return None


def _provider_with(session: Session, items: Sequence[Item]) -> int | None:
    """Return the only provider whose domains use equal servers, None if there is none."""
    domain, (server_id, domain_id) = _TABLES["domain"].c, _TABLES["server_domain"].columns
    found: list[set[int]] = []
    for item in items:
        named = selection.conditions(session, "server", selection.Filter(item["name"]))
        same = stored.items(session, "server", where=named)
        ids = [row_id for row_id, other in same if _are_equal([other], [item])]
        query = select(domain.provider_id).join(_TABLES["server_domain"], domain_id == domain.id)
        found.append({*session.scalars(query.where(server_id.in_(ids)).distinct())})
    common = set.intersection(*found)
    return common.pop() if len(common) == 1 else None


def _are_equal(known: Sequence[Item], items: Sequence[Item]) -> bool:
    """Return whether servers are the same, but for ids and order."""
    left, right = ([{**item, "id": None, "prio": 0} for item in some] for some in (known, items))
    return all(item in right for item in left) and all(item in left for item in right)
