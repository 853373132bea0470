"""Writes the references: contrib/automx.conf, tables of two pages, openapi.json.

``make reference`` runs it. The texts about settings are the docstrings of the groups in
automx/config.
"""

import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Any

from automx.api.dispatch import OPERATIONS
from automx.api.openapi import document
from automx.config import KEYS, SOURCE_KEYS, Settings, SourceSettings
from automx.config.keys import Key
from automx.counts import METRICS

FOLDER = Path(__file__).parent
REFERENCE = FOLDER.parent / "contrib" / "automx.conf"
PAGE = FOLDER / "configuration.md"
MONITORING = FOLDER / "monitoring.md"
OPENAPI = FOLDER / "openapi.json"

_HEAD = f"""\
# Settings of automx. Every key is listed with its default; remove the "#" to change one.
#
# The first file that exists is read: $AUTOMX_CONF, ~/.automx.conf, /etc/automx/automx.conf,
# /etc/automx.conf. Without any of them, automx2's files are read as they are.
# Each key can be overridden in the environment: AUTOMX_<KEY>, for example AUTOMX_PROXY_COUNT=1.
# A secret can stand in a file of its own, db_uri_file, initdb_token_file and so on. Secrets are
# {", ".join(name for name, key in KEYS.items() if key.secret)}.
# "automx config" prints the effective settings and where each one comes from.

[automx]
"""

_BEGIN = "<!-- make reference writes this table -->\n"
_BEGIN_SOURCES = "<!-- make reference writes this table of sources -->\n"
_END = "<!-- end of the table -->\n"


def configuration_file() -> str:
    """Return the content of contrib/automx.conf."""
    parts = [_HEAD]
    group = ""
    for name, key in KEYS.items():
        texts = [_paragraphs(key.path)[name]]
        if key.path.rpartition(".")[0] != group:
            group = key.path.rpartition(".")[0]
            texts = [_paragraphs(key.path)[""], *texts] if group else texts
        parts.append("".join(map(_comment, texts)) + f"#{name} = {key.default}\n")
    parts += _source_parts()
    return "\n".join(re.sub(r" +\n", "\n", part) for part in parts)


def _source_parts() -> Iterator[str]:
    """Yield the heading of a source, which is a comment as well, and the parts about its keys."""
    texts = _texts(SourceSettings)
    yield _comment(texts[""]) + "#[source.NAME]\n"
    for name, key in SOURCE_KEYS.items():
        yield _comment(texts[name]) + f"#{name} = {key.default}\n"


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(_plain(text), 98))


def page(text: str) -> str:
    """Return configuration.md with its tables written anew; ``text`` is what it holds now."""
    tables = (
        (_BEGIN, _table(KEYS, lambda name: _paragraphs(KEYS[name].path)[name])),
        (_BEGIN_SOURCES, _table(SOURCE_KEYS, _texts(SourceSettings).__getitem__)),
    )
    for mark, table in tables:
        before, begin, rest = text.partition(mark)
        _, end, after = rest.partition(_END)
        text = before + begin + "\n" + table + "\n\n" + end + after
    return text


def _table(keys: Mapping[str, Key], meaning_of: Callable[[str], str]) -> str:
    rows = ["| Key | Default | Meaning |", "|---|---|---|"]
    for name, key in keys.items():
        default = f"`{key.default}`" if key.default else ""
        meaning = meaning_of(name).replace(f"({PAGE.name}#", "(#")
        rows.append(f"| `{name}` | {default} | {meaning} |")
    return "\n".join(rows)


def monitoring(text: str) -> str:
    """Return monitoring.md with its table of metrics written anew; ``text`` is what it holds."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    rows = ["| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
    for name, metric in METRICS.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{name}` | {metric.kind} | {labels} | {metric.meaning} |")
    return before + begin + "\n" + "\n".join(rows) + "\n\n" + end + after


def openapi() -> str:
    """Return the content of openapi.json."""
    return f"{json.dumps(document(OPERATIONS), indent=1, ensure_ascii=False)}\n"


def _paragraphs(path: str) -> dict[str, str]:
    """Return key -> its explanation, and "" -> the heading, of the group that a path leads to."""
    groups = {item.name: item.type for item in fields(Settings) if is_dataclass(item.type)}
    return _texts(groups.get(path.rpartition(".")[0], Settings))


def _texts(group: Any) -> dict[str, str]:
    """Return key -> its explanation, and "" -> the heading, of a group."""
    heading, *paragraphs = cleandoc(group.__doc__ or "").split("\n\n")
    pairs = (paragraph.split(": ", 1) for paragraph in paragraphs)
    return {"": heading} | {name: " ".join(text.split()) for name, text in pairs}


def _plain(text: str) -> str:
    """Return Markdown as plain text: several words of code, and a sign alone, are in quotes."""
    text = re.sub(r"\[([^]]+)\]\(([^)]+)\)", r"\1 (docs/\2)", text)
    return re.sub(r"`([^`]+)`", _quoted, text)


def _quoted(code: re.Match[str]) -> str:
    return f'"{code[1]}"' if " " in code[1] or code[1] == ";" else code[1]


if __name__ == "__main__":
    REFERENCE.write_text(configuration_file(), "utf-8")
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    MONITORING.write_text(monitoring(MONITORING.read_text("utf-8")), "utf-8")
    OPENAPI.write_text(openapi(), "utf-8")
