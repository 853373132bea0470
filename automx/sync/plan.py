"""The plan of a synchronization: what a source says, compared with the rows of its origin.

It only reads. A row of another origin is never touched, and one without an origin only if it is
adopted. The members of a domain are set when it is new; afterwards they follow only what the source
itself says: the provider, the domain that it is like, the target of an alias.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from automx.changes import Change, insertion, stored
from automx.changes.dependents import of_domains
from automx.changes.plan import Plan
from automx.config import SourceSettings
from automx.database import Session
from automx.errors import AutomxError
from automx.members import TABLES, Item
from automx.references import a_label_of
from automx.sources.found import Domains, Problem, SourceError, is_label
from automx.sync import rows
from automx.sync.aliases import LONGEST_CHAIN, Aliases
from automx.sync.defaults import COPIED, Defaults, names
from automx.sync.rows import DomainRow

_SHOWN = 5


@dataclass
class SyncPlan:
    """The changes of rows, and what is to be known of domains: id -> (gone_at, disabled_at).

    ``switched_off`` of the domains that are on, of which there are ``on``, are off afterwards.
    """

    plan: Plan = field(default_factory=Plan)
    kept: dict[int, tuple[datetime | None, datetime | None]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    switched_off: int = 0
    on: int = 0

    def __bool__(self) -> bool:
        """Whether anything is written."""
        return bool(self.plan or self.kept or self.dropped)


def make(
    session: Session, source: SourceSettings, found: Domains, *, now: datetime, adopt: bool
) -> SyncPlan:
    """Return the plan. Raises SourceError for settings of the source that name no row."""
    planner = _Planner(session, source, found, now=now, adopt=adopt)
    return planner.plan()


class _Planner:
    def __init__(
        self,
        session: Session,
        source: SourceSettings,
        found: Domains,
        *,
        now: datetime,
        adopt: bool,
    ) -> None:
        self._session = session
        self._source = source
        self._found = found.by_label
        self._unclear = found.unclear
        self._now = now
        self._adopts = adopt
        self._made = SyncPlan(problems=[*found.problems])
        self._defaults = Defaults(session, source)
        self._own: dict[str, DomainRow] = {}  # A-label -> row of this origin, or that is adopted
        self._gone: list[DomainRow] = []
        self._foreign: dict[str, DomainRow] = {}
        self._aliases = Aliases(self._found, self._is_on, self._is_held)
        self._items: dict[int, Item] = {}
        self._copies: dict[str, Item | None] = {}

    def plan(self) -> SyncPlan:
        self._read_rows()
        new: list[str] = []
        wanted: dict[int, tuple[str, bool]] = {}  # id -> A-label, and whether it is on
        models: dict[str, str] = {}  # A-label -> that of the domain whose members it gets
        active: dict[str, bool] = {}
        for label, domain in self._found.items():
            if label in self._foreign:
                continue
            end, problem = self._aliases.end_of(label)
            if problem:
                self._made.problems.append(problem)
            active[label] = end.is_active
            if domain.alias_of:
                models[label] = end.label
            elif domain.like:
                models[label] = domain.like
            if label in self._own:
                wanted[self._own[label].id] = label, end.is_active
            elif end.label:
                new.append(label)
        changing = self._plan_switches(wanted)
        self._plan_gone()
        self._read_items({*changing, *(self._made.kept)}, models)
        self._plan_changes(wanted, changing, models)
        self._plan_new(new, active, models)
        if not new:
            self._check_defaults()
        self._made.plan.names = self._names()
        return self._made

    def _read_rows(self) -> None:
        """Read the rows of the origin, and those that have names of the source."""
        for row in rows.of_origin(self._session, self._source.origin):
            label = row.name if row.name in self._found else a_label_of(row.name)
            self._made.on += row.off_since is None
            if label in self._found and label not in self._own:
                self._own[label] = row
            elif label not in self._unclear:  # what is unclear stays as it is
                self._gone.append(row)
        missing = self._found.keys() - self._own.keys()
        targets = {each.alias_of for each in self._found.values()}
        targets |= {each.like for each in self._found.values()}
        outside = targets - self._found.keys() - {""}
        labels = missing | {label for label in outside if is_label(label)}
        existing: dict[str, list[DomainRow]] = {}
        for label, row in rows.of_labels(self._session, labels):
            existing.setdefault(label, []).append(row)
        for label, [row, *others] in existing.items():
            if label not in outside and row.origin is None and self._adopts and not others:
                self._own[label] = row
                continue
            self._foreign[label] = row
            if label not in outside:
                by = f"of {row.origin}" if row.origin else "without an origin (see --adopt)"
                text = f"{1 + len(others)} rows" if others else f"a row {by}"
                self._problem(label, f"the database has {text}")

    def _problem(self, label: str, text: str) -> None:
        self._made.problems.append(Problem(label, text))

    def _is_on(self, label: str) -> bool | None:
        """Return whether a domain that the source does not have is on; None if there is none."""
        row = self._foreign.get(label)
        if row is None:
            return None
        is_gone = row.origin == self._source.origin and label not in self._unclear
        return row.off_since is None and not is_gone

    def _is_held(self, label: str) -> bool:
        """Return whether an administrator has switched a domain of the source off."""
        row = self._own.get(label)
        return row is not None and row.off_since is not None and not row.is_off_by_sync

    def _plan_switches(self, wanted: Mapping[int, tuple[str, bool]]) -> dict[int, bool]:
        """Return id -> whether it is disabled, of the rows that are switched on or off."""
        switched: dict[int, bool] = {}
        made = self._made
        for row in self._own.values():
            label, is_on = wanted[row.id]
            if row.off_since is None:
                if not is_on:
                    switched[row.id] = True
                    made.kept[row.id] = None, self._now
                elif row.is_kept:
                    made.dropped.add(row.id)
            elif self._is_held(label):  # an administrator has switched it off: it stays so
                if row.is_kept:
                    made.dropped.add(row.id)
            elif is_on:
                switched[row.id] = False
                made.dropped.add(row.id)
            elif row.gone_at is not None:
                made.kept[row.id] = None, row.disabled_at
        made.switched_off = sum(switched.values())
        return switched

    def _plan_gone(self) -> None:
        """Switch off what is gone, and delete what has been gone for long."""
        made, deleted = self._made, []
        keeping = timedelta(days=self._source.keep_days)
        for row in self._gone:
            if row.off_since is None:
                made.switched_off += 1
                made.kept[row.id] = row.gone_at or self._now, self._now
            elif row.gone_at is None:
                made.kept[row.id] = self._now, row.disabled_at
            elif self._source.keep_days and row.gone_at + keeping <= self._now:
                deleted.append(row)
        gone_names = {row.id: row.name for row in deleted}
        used = of_domains(self._session, gone_names) if gone_names else {}
        ids = []
        for row in deleted:
            if those := used.get(row.id):
                text = f"it is gone, and stays disabled: {', '.join(map(str, those))}"
                made.problems.append(Problem(row.name, text))
            else:
                ids.append(row.id)
        for row_id, item in stored.items(self._session, "domain", ids):
            made.plan.removed.append(Change("domain", row_id, item, None))

    def _read_items(self, ids: Collection[int], models: Mapping[str, str]) -> None:
        """Read the rows that are changed, or whose members others get."""
        wanted = {*ids}
        wanted |= {
            row.id
            for label, row in self._own.items()
            if row.origin is None or self._has_other_provider(label, row)
        }
        wanted |= self._unlike_their_models(wanted, models)
        self._items = dict(stored.items(self._session, "domain", wanted))

    def _unlike_their_models(self, wanted: set[int], models: Mapping[str, str]) -> set[int]:
        """Return the ids of rows that have, or may get, other members than their models.

        Those of their models are with them. ``wanted`` are rows that may change.
        """
        chains = {label: _chain(label, models) for label in models}
        # None is a domain without a row.
        rows_of = {label: [*map(self._row, chain)] for label, chain in chains.items()}
        all_rows = {row.id for some in rows_of.values() for row in some if row is not None}
        linked = [stored.links(self._session, table, all_rows) for table in stored.LINKED.values()]

        def members(row: DomainRow | None) -> tuple[object, ...]:
            if row is None:
                return ()
            return row.provider, row.directory, *(of.get(row.id, ()) for of in linked)

        labels = [
            label
            for label, some in rows_of.items()
            if len(set(map(members, some))) > 1 or any(row and row.id in wanted for row in some)
        ]
        found: dict[str, list[DomainRow | None]] = {}
        while labels:  # a model may have a model itself
            label = labels.pop()
            if label in models and label not in found:
                found[label] = rows_of[label]
                labels += chains[label]
        return {row.id for some in found.values() for row in some if row is not None}

    def _has_other_provider(self, label: str, row: DomainRow) -> bool:
        """Return whether the source says another provider than the row, or one that is unknown."""
        provider = self._found[label].provider
        try:
            return bool(provider) and self._defaults.provider(provider) != row.provider
        except AutomxError:
            return True

    def _row(self, label: str) -> DomainRow | None:
        return self._own.get(label) or self._foreign.get(label)

    def _plan_changes(
        self,
        wanted: Mapping[int, tuple[str, bool]],
        switched: Mapping[int, bool],
        models: Mapping[str, str],
    ) -> None:
        gone = {row.id for row in self._gone if row.off_since is None}
        for row_id, item in sorted(self._items.items()):
            label, _ = wanted.get(row_id, ("", False))
            if not label and row_id not in gone:
                continue
            before, after = dict(item), dict(item)
            after["disabled"] = switched.get(row_id, row_id in gone or item["disabled"])
            if label:
                after |= self._members(label, item, models) or {}
                if self._own[label].origin is None:
                    before["origin"], after["origin"] = None, self._source.origin
            if after != before:
                self._made.plan.changed.append(Change("domain", row_id, before, after))

    def _members(self, label: str, before: Item, models: Mapping[str, str]) -> Item | None:
        """Return the members that a row gets by what the source says; None for no change."""
        if label in models:
            return self._copy(label, models)
        if not (provider := self._found[label].provider):
            return None
        try:
            row_id = self._defaults.provider(provider)
        except AutomxError as error:
            self._problem(label, str(error))
            return None
        return None if row_id == before["provider"] else self._defaults.of_provider(row_id)

    def _plan_new(
        self, new: Collection[str], active: Mapping[str, bool], models: Mapping[str, str]
    ) -> None:
        made, without = self._made, []
        items = []
        for label in new:
            domain = self._found[label]
            if (members := self._copy(label, models)) is None:
                continue
            if not members["servers"]:
                without.append(domain.name)
            items.append({"name": domain.name, **members, "disabled": not active[label]})
        ids = insertion.allocate(self._session, TABLES["domain"], [None] * len(items))
        for row_id, item in zip(ids, items, strict=True):
            made.plan.added.append(Change("domain", row_id, None, {"id": row_id, **item}))
            made.plan.free.add((TABLES["domain"], row_id))
            if item["disabled"]:
                made.kept[row_id] = None, self._now
        if without:
            some = ", ".join(without[:_SHOWN]) + ", …" * (len(without) > _SHOWN)
            made.plan.warnings.append(
                f"{some}: no mail server; servers or like of [source.{self._source.name}] gives one"
            )

    def _check_defaults(self) -> None:
        """Warn of settings that name no row before a new domain needs them."""
        if all(each.provider or each.like or each.alias_of for each in self._found.values()):
            return
        try:
            self._defaults.of_new()
        except AutomxError as error:
            self._made.plan.warnings.append(f"new domains cannot be added: {error.reason}")

    def _copy(self, label: str, models: Mapping[str, str]) -> Item | None:
        """Return the members that a domain gets: those of its model, or of a new domain.

        None, and a problem, if there is no model.
        """
        *others, model = _chain(label, models)
        if not model and not models[others[-1]]:  # an alias without a target
            return None
        if model not in self._copies:
            self._copies[model] = self._members_of(model, models)
        if self._copies[model] is None and label in models:
            name = self._found[label].like or self._found[label].alias_of
            self._problem(label, f"there is no domain {name} whose servers it could get")
        return self._copies[model]

    def _members_of(self, label: str, models: Mapping[str, str]) -> Item | None:
        """Return the members of a domain without a model, as they are or will be."""
        row = self._row(label)
        if row is not None:
            item = self._items[row.id]
            changed = self._members(label, item, models) if label in self._own else None
            return {member: (item | (changed or {}))[member] for member in COPIED}
        domain = self._found.get(label)
        if domain is None:
            return None
        try:
            return self._defaults.of_new(domain.provider)
        except SourceError:
            raise
        except AutomxError as error:
            self._problem(label, str(error))
            return None

    def _names(self) -> dict[str, dict[int, str]]:
        changed = self._made.plan.changed
        if not any(set(each.difference()) & set(COPIED) for each in changed):
            return {}
        return names(self._session, [item for each in changed for item in _both(each)])


def _chain(label: str, models: Mapping[str, str]) -> list[str]:
    """Return a domain, its model, the model of that, and so on.

    The last one is "" if there is none: no target of an alias, a cycle, or too many.
    """
    chain = [label]
    while (last := chain[-1]) in models:
        model = models[last]
        is_bad = model in chain or len(chain) > LONGEST_CHAIN
        chain.append("" if is_bad else model)
    return chain


def _both(change: Change) -> list[Item]:
    return [item for item in (change.before, change.after) if item is not None]
