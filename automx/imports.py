"""Imports: Autoconfig files become rows, through automx.changes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from automx import kinds, members, references, rows
from automx.autoconfigfile import AutoconfigFile
from automx.changes import Changes, bulk, selection, stored
from automx.changes.bulk import NewDomain
from automx.clientconfig import MailServer, Service
from automx.errors import ConflictError, SeedError
from automx.members import Item
from automx.models import metadata

_GROUPS = ({"imap", "pop"}, {"smtp"}, {"managesieve"})  # servers have an order within each

_PROVIDER = metadata.tables["provider"].c


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person says beside the files.

    ``domains`` are names in their normal form, in the place of those of the files; ``provider`` is
    the id of a provider. Domains that exist are a conflict, or passed over.
    """

    domains: tuple[str, ...] = ()
    provider: int | None = None
    skip_existing: bool = False


class Imported(NamedTuple):
    """What came of a file: how many domains are new, and existed; what was lost, in lines."""

    name: str
    added: int
    skipped: int
    lost: list[str]


def add_file(changes: Changes, file: AutoconfigFile, name: str, wishes: Wishes) -> Imported:
    """Add the domains of a file, and those of its provider and servers that do not exist yet.

    ``name`` is that of the file. Raises SeedError if no domain is named, and ConflictError if
    domains exist, or a provider of the same name that is another one.
    """
    wanted = wishes.domains or tuple(file.domains)
    if not wanted:
        raise SeedError(f"{name} names no domain; say for which it is by --domain")
    new = _new(changes, wanted, name, wishes)
    if not new:
        return Imported(name, 0, len(wanted), [])
    lost = list(file.lost)
    if wishes.provider is None:
        provider, before = _provider(changes, file, name, wanted[0])
    else:
        provider, before = wishes.provider, wishes.provider
        lost += _unlike(changes, provider, file)
    links = {
        "servers": list(_servers(changes, before, file.servers, name)),
        "davservers": list(_services(changes, before, file.services, name)),
    }
    value = {"provider": provider, **links}
    domains = (NewDomain({"name": domain, **value}, f"{name}: {domain}") for domain in new)
    bulk.add_domains(changes, domains, len(new))
    return Imported(name, len(new), len(wanted) - len(new), lost)


def _new(changes: Changes, wanted: Sequence[str], name: str, wishes: Wishes) -> list[str]:
    """Return the domains that do not exist yet."""
    a_labels = {kinds.domain_a_label(domain): domain for domain in wanted}
    found = {a: known for _, known, a in references.same_domains(changes.session, [*a_labels])}
    if found and not wishes.skip_existing:
        reason = bulk.existing_in_words(len(found), len(a_labels), sorted(found.values()))
        raise ConflictError(f"{name}: {reason}")
    return [domain for a_label, domain in a_labels.items() if a_label not in found]


def _provider(
    changes: Changes, file: AutoconfigFile, name: str, domain: str
) -> tuple[int, int | None]:
    """Return the id of the provider of a file, and None or the same id if it existed before."""
    value = {"name": domain, **file.provider}
    same_name = [_PROVIDER.name == value["name"]]  # a collation may find too much
    for row_id, item in stored.items(changes.session, "provider", where=same_name):
        if item["name"] == value["name"]:
            if different := _different(item, file.provider):
                raise ConflictError(
                    f"{name}: provider {row_id} has the name {item['name']}, and another"
                    f" {', another '.join(different)}; --provider {row_id} uses it as it is"
                )
            return row_id, row_id
    return changes.add("provider", value, name).id, None


def _different(known: Item, given: Item) -> list[str]:
    """Return the members of a provider that a file gives, and that differ in a row."""
    item = members.read("provider", {"name": known["name"], **given})
    pairs = [(member, known[member], item[member]) for member in given if member != "details"]
    pairs += [(key, known["details"].get(key), new) for key, new in item["details"].items()]
    return [member for member, old, new in pairs if old != new]


def _unlike(changes: Changes, provider: int, file: AutoconfigFile) -> Iterator[str]:
    """Yield a line about what a file says of its provider and an existing one does not have."""
    item = stored.item(changes.session, "provider", provider)
    if item is not None and (different := _different(item, file.provider)):
        yield (
            f"the file's {', '.join(different)} of its provider is not kept:"
            f" provider {provider} ({item['name']}) stays as it is"
        )


def _servers(
    changes: Changes, provider: int | None, wanted: Sequence[Item], name: str
) -> Iterator[int]:
    """Yield the ids of mail servers: those that domains of the provider use, or new ones."""
    found = [(item, _mail_server(item)) for item in _used(changes, "server", provider)]
    known = [(item, record) for item, record in found if record is not None]
    known.sort(key=lambda pair: (pair[0]["prio"], pair[0]["id"]))  # as look-ups sort them
    for types in _GROUPS:
        group = [item for item in wanted if item["type"] in types]
        for item, row_id in zip(group, _known(known, group), strict=True):
            yield _added(changes, "server", item, name) if row_id is None else row_id


def _known(known: Sequence[tuple[Item, MailServer]], wanted: Sequence[Item]) -> list[int | None]:
    """Return the ids of rows that are equal to servers, None where there is none.

    All of them if rows have the order that is wanted; else those that have the same ``prio``.
    """
    records = [rows.mail_server(item) for item in wanted]
    ids, rest = [], iter(known)
    for record in records:
        ids += next(([item["id"]] for item, other in rest if other == record), [])
    if len(ids) == len(wanted):
        return ids
    by_prio = {(item["prio"], record): item["id"] for item, record in reversed(known)}
    return [
        by_prio.get((item["prio"], record)) for item, record in zip(wanted, records, strict=True)
    ]


def _services(
    changes: Changes, provider: int | None, wanted: Sequence[Item], name: str
) -> Iterator[int]:
    """Yield the ids of services: those that domains of the provider use, or new ones."""
    known: dict[Service | None, int] = {}
    for item in _used(changes, "service", provider):
        known.setdefault(_service(item), item["id"])
    for item in wanted:
        row_id = known.get(_service(item))
        yield _added(changes, "service", item, name) if row_id is None else row_id


def _used(changes: Changes, kind: str, provider: int | None) -> list[Item]:
    if provider is None:
        return []
    wanted = selection.Filter(provider=provider)
    where = selection.conditions(changes.session, kind, wanted)
    return [item for _, item in stored.items(changes.session, kind, where=where)]


def _added(changes: Changes, kind: str, item: Item, name: str) -> int:
    value = {member: value for member, value in item.items() if member != "id"}
    return changes.add(kind, value, name).id


def _mail_server(item: Item) -> MailServer | None:
    try:
        return rows.mail_server(item)
    except rows.BadRowError:
        return None


def _service(item: Item) -> Service | None:
    """Return the record of a service, but for what Autoconfig does not say."""
    try:
        return replace(rows.service(item), domain_required=True)
    except rows.BadRowError:
        return None
