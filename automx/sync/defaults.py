"""What domains get: provider, servers, services and directory, by the settings of a source."""

from collections.abc import Collection, Mapping

from automx.changes import selection, stored
from automx.config import SourceSettings
from automx.database import Session
from automx.errors import AutomxError
from automx.members import LINKS, Item
from automx.sources.found import SourceError

# The members that an alias has from its target, and that are copied by ``like``.
COPIED = ("provider", "ldapserver_id", *LINKS)


class Defaults:
    """The members of new domains. Rows are looked for once each, when they are first needed."""

    def __init__(self, session: Session, source: SourceSettings) -> None:
        self._session = session
        self._source = source
        self._ids: dict[tuple[str, str], int] = {}
        self._of_provider: dict[int | None, Item] = {}
        self._like: Item | None = None

    def provider(self, name: str) -> int:
        """Return the id of a provider. Raises AutomxError if there is none."""
        return self._id("provider", name)

    def of_new(self, provider: str = "") -> Item:
        """Return the members of a new domain, whose provider the source may say.

        Raises SourceError for settings that name no row, and AutomxError for such a provider.
        """
        row_id = self.provider(provider) if provider else None
        if row_id not in self._of_provider:
            self._of_provider[row_id] = self._members(row_id)
        return self._of_provider[row_id]

    def of_provider(self, row_id: int) -> Item:
        """Return the members of a domain that gets another provider."""
        return self._shared(row_id) | {"provider": row_id}

    def _members(self, provider: int | None) -> Item:
        source = self._source
        given: Item = {"ldapserver_id": None}
        if source.like:
            given = {member: self._liked()[member] for member in COPIED}
        if provider is None:
            provider = self._provider_of(given)
        if not source.like or provider != given.get("provider"):
            given |= self._shared(provider)
        given["provider"] = provider
        if source.directory:
            given["ldapserver_id"] = self._said("directory", "directory", source.directory)
        for key, member, kind, names in (
            ("servers", "servers", "server", source.servers),
            ("services", "davservers", "service", source.services),
        ):
            if names:
                given[member] = tuple(sorted({self._said(key, kind, name) for name in names}))
        return given

    def _provider_of(self, given: Mapping[str, int]) -> int:
        if self._source.provider:
            return self._said("provider", "provider", self._source.provider)
        if "provider" in given:
            return given["provider"]
        only = selection.only_provider(self._session)
        if only is None:
            raise self._error("provider is missing: there is not exactly one provider")
        return only

    def _shared(self, provider: int) -> Item:
        return dict(selection.shared_links(self._session, provider))

    def _liked(self) -> Item:
        if self._like is None:
            row_id = self._said("like", "domain", self._source.like)
            self._like = stored.item(self._session, "domain", row_id) or {}
        return self._like

    def _said(self, key: str, kind: str, name: str) -> int:
        """Return the id of a row that a setting names."""
        try:
            return self._id(kind, name)
        except AutomxError as error:
            raise self._error(f"{key}: {error}") from error

    def _id(self, kind: str, name: str) -> int:
        if (kind, name) not in self._ids:
            self._ids[kind, name] = selection.find(self._session, kind, name)
        return self._ids[kind, name]

    def _error(self, text: str) -> SourceError:
        return SourceError(cause=f"[source.{self._source.name}]: {text}")


def names(session: Session, items: Collection[Item]) -> dict[str, dict[int, str]]:
    """Return what people call the rows that domains refer to: kind -> id -> name."""
    ids: dict[str, set[int]] = {"provider": set(), "directory": set(), "server": set()}
    ids["service"] = set()
    for item in items:
        ids["provider"].add(item["provider"])
        ids["directory"] |= {item["ldapserver_id"]} - {None}
        ids["server"].update(item["servers"])
        ids["service"].update(item["davservers"])
    return {kind: selection.names(session, kind, some) for kind, some in ids.items()}
