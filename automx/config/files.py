"""Where the texts of settings come from: one INI file, then the environment.

The first file found is read: ``$AUTOMX_CONF``, ``~/.automx.conf``, ``/etc/automx/automx.conf``,
``/etc/automx.conf`` with the section ``[automx]``; else automx2's ``$AUTOMX2_CONF``,
``~/.automx2.conf``, ``/etc/automx2/automx2.conf``, ``/etc/automx2.conf`` with ``[automx2]``.
Every key can be overridden by ``AUTOMX_<KEY>`` in the environment; a secret can also stand in a
file of its own, named by ``<key>_file``. A file of automx 1.x, which had ``/etc/automx.conf``, too,
is told apart.

A zone has a section of its own, ``[zone.example.com]``, with the keys of zones without ``zone_``.
A source has one, too, ``[source.NAME]``; ``AUTOMX_SOURCE_NAME_<KEY>`` overrides a key
of it, with ``_`` for each ``-`` of the name, and can be all that there is of a source.
"""

import configparser
import difflib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from automx.config.sources import NAME, SOURCE_NAMES
from automx.errors import SettingsError

log = logging.getLogger(__name__)

ETC = Path("/etc")

# Kubernetes gives every container such variables for services called "automx" or "automx-…".
_SERVICE_LINK = re.compile(
    r"AUTOMX_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)"
)

# Keys that automx 1.x cannot do without; sources have such keys, too.
_SECTION_OF_SOURCE = re.compile(r"(?ms)^\[source\..*?(?=^\[|\Z)")
_OF_AUTOMX_1 = re.compile(r"(?m)^[ \t]*(provider|domains)[ \t]*[=:]")

_Texts = dict[str, tuple[str, str]]  # key -> (text, where it stands)

_SECTION = "source."  # how the sections of sources begin
_SECTION_OF_ZONE = "zone."
_VARIABLE = "source_"


class File(NamedTuple):
    """The configuration file, and the section that it must have: automx or automx2."""

    path: Path
    section: str


class Found(NamedTuple):
    """The texts of the settings, and of each source and each zone by its name."""

    texts: _Texts
    sources: dict[str, _Texts]
    zones: dict[str, _Texts]
    file: File | None = None


def read(environ: Mapping[str, str], names: Mapping[str, str]) -> Found:
    """Return the texts that the configuration file and the environment give.

    ``names`` maps each allowed name to its key: ``db_uri`` and ``db_uri_file`` to ``db_uri``. Those
    of zones are as they stand there. Raises SettingsError for a file that cannot be read and for an
    unknown name.
    """
    in_file, in_environment = _from_file(environ, names), _from_environment(environ)
    of_sources = _of_sources(in_environment.texts, in_file.sources)
    all_names = dict.fromkeys([*in_file.sources, *of_sources])
    texts = by_key(in_file.texts, names) | by_key(in_environment.texts, names)
    sources = {
        name: by_key(in_file.sources.get(name, {}), SOURCE_NAMES)
        | by_key(of_sources.get(name, {}), SOURCE_NAMES)
        for name in all_names
    }
    return Found(texts, sources, in_file.zones, in_file.file)


def _of_sources(texts: _Texts, known: Mapping[str, object]) -> dict[str, _Texts]:
    """Take the texts of variables that belong to sources out of ``texts``; return them by source.

    ``known`` are the sources of the file.
    """
    by_variable: dict[str, str] = {}
    for name in known:
        if (other := by_variable.setdefault(name.replace("-", "_"), name)) != name:
            raise SettingsError(f"[source.{name}]: its variables would be those of {other}")
    found: dict[str, _Texts] = {}
    for variable in [name for name in texts if name.startswith(_VARIABLE)]:
        rest = variable.removeprefix(_VARIABLE)
        # "people_query" ends as "query" does: the sources of the file decide, then the longest key.
        fitting = sorted(
            (rest.removesuffix(f"_{key}") not in by_variable, -len(key), key)
            for key in SOURCE_NAMES
            if rest.endswith(f"_{key}") and NAME.fullmatch(rest.removesuffix(f"_{key}"))
        )
        if fitting:
            key = fitting[0][2]
            name = rest.removesuffix(f"_{key}")
            found.setdefault(by_variable.get(name, name), {})[key] = texts.pop(variable)
    return found


def home(environ: Mapping[str, str]) -> Path:
    """Return the home folder of the user."""
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def fingerprint(path: str) -> tuple[int, ...] | None:
    """Return a value that is another one after a file was replaced; None if there is no file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path for each request is slower
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _place(environ: Mapping[str, str]) -> File | None:
    """Return the first configuration file that exists."""
    for program in ("automx", "automx2"):
        variable = f"{program.upper()}_CONF"
        places = [
            home(environ) / f".{program}.conf",
            ETC / program / f"{program}.conf",
            ETC / f"{program}.conf",
        ]
        if environ.get(variable):
            path = Path(environ[variable])
            if not _exists(path, home(environ)):
                raise SettingsError(f"environment variable {variable}: there is no file {path}")
            return File(path, program)
        for path in places:
            if _exists(path, home(environ)):
                return File(path, program)
    return None


def _from_file(environ: Mapping[str, str], names: Mapping[str, str]) -> Found:
    """Return the texts of the configuration file."""
    file = _place(environ)
    return Found({}, {}, {}) if file is None else _read(file, names)


def _exists(path: Path, home: Path) -> bool:
    """Return whether there is a file; SettingsError if its folder is closed to us."""
    try:
        return path.exists()
    except OSError as error:
        if path.parent == home:  # HOME is still that of root, who started us as another user
            return False
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error


def _parsed(path: Path, section: str) -> configparser.ConfigParser:
    """Return the content of a file; automx2 expands ``%(name)s``, automx does not.

    Raises SettingsError.
    """
    parser = configparser.ConfigParser(
        interpolation=configparser.BasicInterpolation() if section == "automx2" else None
    )
    try:
        content = path.read_text("utf-8-sig")
        if section == "automx" and _OF_AUTOMX_1.search(_SECTION_OF_SOURCE.sub("", content)):
            raise SettingsError(
                f"{path}: this is a file of automx 1.x, which has other settings, and domains in"
                " them: give this automx a file of its own (AUTOMX_CONF), or move that one away"
            )
        parser.read_string(content, str(path))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8") from error
    except configparser.Error as error:
        raise SettingsError(f"{path}: {_defect(error)}") from None
    return parser


def _read(file: File, names: Mapping[str, str]) -> Found:
    """Return the texts of the section of one file."""
    path, section = file
    parser = _parsed(path, section)
    try:
        if not parser.sections() and parser.defaults():  # automx2's oldest sample
            parser.add_section(section)
        sources = _sources_of(path, parser)
        zones = _zones_of(path, parser) if section == "automx" else {}
        if section == "automx":
            _check_sections(path, parser.sections())
        items = dict(parser.items(section)) if parser.has_section(section) else {}
    except configparser.Error as error:
        raise SettingsError(f"{path}: {_defect(error)}") from None
    if section == "automx2":  # which passes over keys that it does not know
        for name in [name for name in items if name not in names]:
            log.warning("%s: the key %s is not known and has no effect", path, name)
            del items[name]
    texts = {name: (text, str(path)) for name, text in items.items()}
    return Found(texts, sources, zones, file)


def _check_sections(path: Path, sections: Sequence[str]) -> None:
    """Raise SettingsError for a section that is not known: its keys would have no effect."""
    for name in sections:
        if name != "automx" and not name.startswith((_SECTION, _SECTION_OF_ZONE)):
            raise SettingsError(
                f"{path}: the section [{name}] is not known; sections are [automx], [source.NAME]"
                " and [zone.NAME]"
            )


def _sources_of(path: Path, parser: configparser.ConfigParser) -> dict[str, _Texts]:
    """Return the texts of each section of a source, without those of [DEFAULT]."""
    found = {}
    for section in parser.sections():
        if not re.match(r"(?i)sources?\b", section):
            continue
        name = section.removeprefix(_SECTION)
        if not section.startswith(_SECTION) or not NAME.fullmatch(name):
            raise SettingsError(
                f"{path}: the section [{section}] must be called [source.NAME], with a name of at"
                " most 40 letters in lower case, digits, - and _"
            )
        where = f"{path}, [{section}]"
        found[name] = {
            key: (text, where)
            for key, text in parser.items(section)
            if key in SOURCE_NAMES or key not in parser.defaults()
        }
    return found


def _zones_of(path: Path, parser: configparser.ConfigParser) -> dict[str, _Texts]:
    """Return the texts of each section of a zone."""
    found = {}
    for section in parser.sections():
        begin, dot, name = section.partition(".")
        if begin != "zone":
            continue
        where = f"{path}, [{section}]"
        if not dot or not name:
            raise SettingsError(f"{where}: the section must be [zone.NAME]")
        found[name] = {key: (text, where) for key, text in parser.items(section)}
    return found


def _defect(error: configparser.Error) -> str:
    """Return what is wrong with an INI file, without its lines: they may hold a password."""
    match error:
        case configparser.MissingSectionHeaderError():
            return f"line {error.lineno}: a section such as [automx] must come first"
        case configparser.ParsingError(errors=[(line, _), *_]):
            return (
                f"line {line}: is neither a section nor key = value; further lines of a value are"
                " indented"
            )
        case configparser.DuplicateOptionError():
            return f"line {error.lineno}: {error.option} stands there twice"
        case configparser.DuplicateSectionError():
            twice = f"[{error.section}] stands there twice"
            return f"line {error.lineno}: {twice}: write its keys into one section"
        case configparser.InterpolationError():
            return f"{error.option}: the % must be written %%, or name a key: %(key)s"
    return "is not a valid INI file"


def _from_environment(environ: Mapping[str, str]) -> Found:
    """Return the texts of the variables that begin with AUTOMX_, by the rest of their names."""
    texts = {
        variable.removeprefix("AUTOMX_").lower(): (text, f"environment variable {variable}")
        for variable, text in sorted(environ.items())
        if variable.startswith("AUTOMX_") and variable != "AUTOMX_CONF"
        if not _SERVICE_LINK.fullmatch(variable)
    }
    return Found(texts, {}, {})


def by_key(texts: _Texts, names: Mapping[str, str]) -> _Texts:
    """Return the texts by key: ``<key>_file`` is replaced by what the file holds."""
    found: _Texts = {}
    for name, (text, source) in texts.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            allowed = f"did you mean {near[0]}?" if near else "allowed are " + ", ".join(names)
            raise SettingsError(f"{source}: the key {name} is not known; {allowed}")
        key = names[name]
        if key == name:
            found[key] = (text.strip(), source)
        elif path := text.strip():
            if key in texts:
                raise SettingsError(f"{source}: {key} and {name} exclude each other")
            try:
                content = Path(path).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not UTF-8"
                raise SettingsError(f"{source}: {name}: {path} cannot be read: {reason}") from error
            found[key] = (content, f"{source}, {name} {path}")
    return found
