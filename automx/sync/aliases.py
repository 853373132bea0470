"""Where the aliases of a source lead: chains, cycles, and targets that are missing or off."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from automx.sources.found import FoundDomain, Problem

LONGEST_CHAIN = 16


class End(NamedTuple):
    """The domain at the end of a chain of aliases, "" if there is none, and whether all are on."""

    label: str
    is_active: bool


class Aliases:
    """The aliases of a source. ``is_on`` says of another domain of the database whether it is on.

    It returns None for a domain that does not exist. ``is_held`` says of a domain of the source
    whether an administrator has switched it off.
    """

    def __init__(
        self,
        found: Mapping[str, FoundDomain],
        is_on: Callable[[str], bool | None],
        is_held: Callable[[str], bool],
    ) -> None:
        self._found = found
        self._is_on = is_on
        self._is_held = is_held

    def end_of(self, label: str) -> tuple[End, Problem | None]:
        """Return where a domain leads, itself if it is no alias, and what is odd about it."""
        domain = self._found[label]
        if not domain.alias_of:
            return End(label, domain.is_active), None
        chain = [label]
        is_active = True
        text = ""
        current: FoundDomain | None = domain
        while current is not None and current.alias_of:
            is_active = is_active and current.is_active
            target = current.alias_of
            if target in chain:
                return End("", False), Problem(domain.name, _cycle(chain[1:], domain.name))
            if len(chain) > LONGEST_CHAIN:
                text = f"it leads to more than {LONGEST_CHAIN} aliases, one after the other"
                return End("", False), Problem(domain.name, text)
            chain.append(target)
            current = self._found.get(target)
        end = chain[-1]
        is_on = current.is_active if current is not None else self._is_on(end)
        if is_on is None:
            return End("", False), Problem(domain.name, f"its target {end} does not exist")
        is_on = is_on and not any(map(self._is_held, chain[1:]))
        if not is_on and domain.is_active:
            text = f"its target {end} is not active, so it is off as well"
        elif len(chain) > 2:
            text = f"its target {chain[1]} is an alias itself; it gets the servers of {end}"
        return End(end, is_active and is_on), Problem(domain.name, text) if text else None


def _cycle(chain: list[str], name: str) -> str:
    return f"it is an alias of itself: {' -> '.join([name, *chain, name])}"
