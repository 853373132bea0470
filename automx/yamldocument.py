"""YAML of documents (YAML 1.2, core schema), read as JSON would be.

Only true and false are booleans, so that the language ``no`` and the like are texts. There are no
merge keys, and no types beyond those of JSON.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

from automx.errors import SeedError
from automx.kinds import shown

# The same in C reads some ten times faster; not every build of the library has it.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG = "tag:yaml.org,2002:"
# Type -> how its plain values look (YAML 1.2.2, 10.3.2, decimal numbers only), how they begin.
_PLAIN = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
        list("-+.0123456789"),
    ),
}
_READ: dict[str, Callable[[str], Any]] = {
    f"{_TAG}str": str,
    f"{_TAG}null": lambda _: None,
    f"{_TAG}bool": lambda text: text.lower() == "true",
    f"{_TAG}int": int,  # leading zeros do not make it an octal number
    f"{_TAG}float": float,
}


class _Loader(_Base):  # type: ignore[misc] # one of two classes
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as in the library


for _name, (_regex, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^({_regex})$"), _first)


def parse(data: bytes, source: str) -> object:
    """Return what the YAML text ``data`` holds; ``source`` names it in errors, such as a file.

    Raises SeedError, with line and column where they are known.
    """
    try:
        loader = _Loader(data.decode("utf-8-sig"))
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        return None if node is None else _value(node, {})
    except SeedError as error:
        raise SeedError(f"{source}: {error}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SeedError(f"{source}: line {line} is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        where = _where(error.problem_mark or error.context_mark)
        raise SeedError(f"{source}: {where} is not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise SeedError(f"{source} cannot be read as YAML: {reason}") from error


def _value(node: yaml.Node, known: dict[yaml.Node, Any]) -> Any:
    """Return what a node holds; ``known`` has what anchors may name again."""
    if isinstance(node, yaml.ScalarNode) and node.tag in _READ:
        return _READ[node.tag](node.value)
    if node in known:
        return known[node]
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
        known[node] = _object(node, known)
    elif isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        known[node] = [_value(item, known) for item in node.value]
    else:  # such as !!binary
        raise SeedError(f"{_where(node.start_mark)}: the type {shown(node.tag)} is not known here")
    return known[node]


def _object(node: yaml.MappingNode, known: dict[yaml.Node, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _value(key_node, known)
        if not isinstance(key, str):
            where = _where(key_node.start_mark)
            raise SeedError(f"{where}: expected a text as key, found {shown(key)}")
        if key in found:
            where = _where(key_node.start_mark)
            raise SeedError(f"{where}: the key {shown(key)} stands twice in one object")
        found[key] = _value(value_node, known)
    return found


def _where(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
