"""Where the texts of settings come from: one INI file, then the environment.

The first file found is read: ``$AUTOMX_CONF``, ``~/.automx.conf``, ``/etc/automx/automx.conf``,
``/etc/automx.conf`` with the section ``[automx]``; else automx2's ``$AUTOMX2_CONF``,
``~/.automx2.conf``, ``/etc/automx2/automx2.conf``, ``/etc/automx2.conf`` with ``[automx2]``.
Every key can be overridden by ``AUTOMX_<KEY>`` in the environment; a secret can also stand in a
file of its own, named by ``<key>_file``. A file of automx 1.x, which had ``/etc/automx.conf``, too,
is told apart.
"""

import configparser
import difflib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from automx.errors import SettingsError

log = logging.getLogger(__name__)

ETC = Path("/etc")

# Kubernetes gives every container such variables for services called "automx" or "automx-…".
_SERVICE_LINK = re.compile(
    r"AUTOMX_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)"
)

# Keys that automx 1.x cannot do without.
_OF_AUTOMX_1 = re.compile(r"(?m)^[ \t]*(provider|domains)[ \t]*[=:]")

_Texts = dict[str, tuple[str, str]]  # key -> (text, source)


def read(environ: Mapping[str, str], names: Mapping[str, str]) -> _Texts:
    """Return key -> (text, source) from the configuration file and the environment.

    ``names`` maps each allowed name to its key: ``db_uri`` and ``db_uri_file`` to ``db_uri``.
    Raises SettingsError for a file that cannot be read and for an unknown name.
    """
    texts = by_key(_from_file(environ, names), names)
    return texts | by_key(_from_environment(environ), names)


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


def found(environ: Mapping[str, str]) -> tuple[Path, str] | None:
    """Return the first configuration file that exists, and the section that it must have."""
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
            return path, program
        for path in places:
            if _exists(path, home(environ)):
                return path, program
    return None


def _from_file(environ: Mapping[str, str], names: Mapping[str, str]) -> _Texts:
    """Return the texts of the configuration file."""
    file = found(environ)
    return {} if file is None else _read(*file, names)


def _exists(path: Path, home: Path) -> bool:
    """Return whether there is a file; SettingsError if its folder is closed to us."""
    try:
        return path.exists()
    except OSError as error:
        if path.parent == home:  # HOME is still that of root, who started us as another user
            return False
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error


def parsed(path: Path, section: str) -> configparser.ConfigParser:
    """Return the content of a file; automx2 expands ``%(name)s``, automx does not.

    Raises SettingsError.
    """
    parser = configparser.ConfigParser(
        interpolation=configparser.BasicInterpolation() if section == "automx2" else None
    )
    try:
        content = path.read_text("utf-8-sig")
        if section == "automx" and _OF_AUTOMX_1.search(content):
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


def _read(path: Path, section: str, names: Mapping[str, str]) -> _Texts:
    """Return the texts of the section of one file."""
    parser = parsed(path, section)
    try:
        if not parser.sections() and parser.defaults():  # automx2's oldest sample
            parser.add_section(section)
        if not parser.has_section(section):
            others = [name for name in parser.sections() if name != section]
            if others and section == "automx":
                raise SettingsError(f"{path}: the section must be [automx], not [{others[0]}]")
            return {}
        items = dict(parser.items(section))
    except configparser.Error as error:
        raise SettingsError(f"{path}: {_defect(error)}") from None
    if section == "automx2":  # which passes over keys that it does not know
        for name in [name for name in items if name not in names]:
            log.warning("%s: the key %s is not known and has no effect", path, name)
            del items[name]
    return {name: (text, str(path)) for name, text in items.items()}


def _defect(error: configparser.Error) -> str:
    """Return what is wrong with an INI file, without its lines: they may hold a password."""
    match error:
        case configparser.MissingSectionHeaderError():
            return f"line {error.lineno}: a section such as [automx] must come first"
        case configparser.ParsingError(errors=[(line, _), *_]):
            return f"line {line}: is neither a section nor key = value"
        case configparser.DuplicateOptionError():
            return f"line {error.lineno}: {error.option} stands there twice"
        case configparser.DuplicateSectionError():
            return f"line {error.lineno}: [{error.section}] stands there twice"
        case configparser.InterpolationError():
            return f"{error.option}: the % must be written %%, or name a key: %(key)s"
    return "is not a valid INI file"


def _from_environment(environ: Mapping[str, str]) -> _Texts:
    """Return the texts of the variables that begin with AUTOMX_."""
    return {
        variable.removeprefix("AUTOMX_").lower(): (text, f"environment variable {variable}")
        for variable, text in sorted(environ.items())
        if variable.startswith("AUTOMX_") and variable != "AUTOMX_CONF"
        if not _SERVICE_LINK.fullmatch(variable)
    }


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
