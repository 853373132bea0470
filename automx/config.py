"""Settings: defaults, then one INI file, then the environment.

The first file found is read: ``$AUTOMX_CONF``, ``~/.automx.conf``, ``/etc/automx/automx.conf``,
``/etc/automx.conf`` with the section ``[automx]``; else automx2's ``$AUTOMX2_CONF``,
``~/.automx2.conf``, ``/etc/automx2/automx2.conf``, ``/etc/automx2.conf`` with ``[automx2]``.
Every key can be overridden by ``AUTOMX_<KEY>`` in the environment; a secret can also stand in a
file of its own, named by ``<key>_file``.
"""

import difflib
import logging
import os
import re
import shlex
from collections.abc import Callable, Mapping
from configparser import (
    BasicInterpolation,
    ConfigParser,
    DuplicateOptionError,
    DuplicateSectionError,
    InterpolationError,
    MissingSectionHeaderError,
    ParsingError,
)
from configparser import Error as IniError
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from automx.duration import format_duration, parse_duration
from automx.errors import SettingsError

log = logging.getLogger(__name__)

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

BACKENDS = ("none", "mailcow", "command")

ETC = Path("/etc")

# automx2's variable, and the value that its documentation asks for.
CLEARTEXT_VARIABLE = "PERMIT_CLEARTEXT_PASSWORDS"
CLEARTEXT_CONSENT = "I_understand_the_risks"

# No user, no query ("?"), no fragment ("#"), and nothing that a URL has to escape.
_WEB_URL = re.compile(r"https?://[a-z0-9.:\[\]-]+(/[!\"$->@-~]*)?", re.ASCII | re.IGNORECASE)

# Kubernetes gives every container such variables for services called "automx" or "automx-…".
_SERVICE_LINK = re.compile(
    r"AUTOMX_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)"
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings. ``contrib/automx.conf`` explains each.

    ``permit_passwords_in_urls`` is no key of the file: only automx2's environment variable sets it.
    ``sources`` maps each key to where its value came from.
    """

    db_uri: str = field(repr=False)
    db_echo: bool = False
    loglevel: str = "WARNING"
    proxy_count: int = 0
    domain_cache_seconds: float = 10
    initdb_token: str = field(default="", repr=False)
    permit_cleartext_passwords: bool = False
    ldap_starttls: str = "yes"
    ldap_ca_file: str = ""
    ldap_verify: bool = True
    ldap_timeout: float = 3
    ldap_cache_seconds: float = 60
    ldap_cache_size: int = 10_000
    ldap_bind_password_file: Mapping[int, str] = field(default_factory=dict, repr=False)
    web_endpoint: str = ""
    account_backend: str = "none"
    account_timeout: float = 20
    account_command: tuple[str, ...] = ()
    mailcow_endpoint: str = ""
    mailcow_token: str = field(default="", repr=False)
    mailcow_ca_file: str = ""
    account_warn_before: timedelta = timedelta(0)
    account_warn_command: tuple[str, ...] = ()
    account_grace: timedelta = timedelta(0)
    account_rate_limit: str = "30 per minute; 300 per day"
    rate_limit_storage: str = field(default="memory://", repr=False)
    signing_certificate: str = ""
    signing_key: str = ""
    signing_key_passphrase: str = field(default="", repr=False)
    signing_chain: str = ""
    permit_passwords_in_urls: bool = False
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


class _NotAllowedError(ValueError):
    """A value that a key does not allow; the text tells what is allowed."""


def _boolean(text: str) -> bool:
    words = {"yes": True, "true": True, "on": True, "1": True}
    words |= {"no": False, "false": False, "off": False, "0": False}
    try:
        return words[text.lower()]
    except KeyError:
        raise _NotAllowedError("yes or no") from None


def _loglevel(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise _NotAllowedError("one of " + ", ".join(LOG_LEVELS))
    return text.upper()


def _proxy_count(text: str) -> int:
    if not re.fullmatch(r"\d{1,2}", text, re.ASCII):
        raise _NotAllowedError("a whole number from 0 to 99")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", text, re.ASCII):
        raise _NotAllowedError("a number of seconds, 0 or more")
    return float(text)


def _positive_seconds(text: str) -> float:
    seconds = _seconds(text)
    if not seconds:
        raise _NotAllowedError("a number of seconds above 0")
    return seconds


def _call_seconds(text: str) -> float:
    # What is being made is given up after some minutes, so no call may take longer.
    if not re.fullmatch(r"\d{1,2}(\.\d{1,3})?", text, re.ASCII) or not 0 < float(text) <= 60:
        raise _NotAllowedError("a number of seconds above 0, at most 60")
    return float(text)


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise _NotAllowedError("a whole number, 0 or more")
    return int(text)


def _starttls(text: str) -> str:
    if text.lower() not in {"yes", "no", "try"}:
        raise _NotAllowedError("yes, no or try")
    return text.lower()


def _readable_file(text: str) -> str:
    if text and not os.access(text, os.R_OK):
        raise _NotAllowedError("the path of a file that can be read")
    return text


def _bind_passwords(text: str) -> Mapping[int, str]:
    """Return the passwords by the id of the row, read from the files that ``3:/path`` names."""
    passwords = {}
    for item in re.split(r"[\s,]+", text.strip()) if text.strip() else ():
        row_id, colon, path = item.partition(":")
        if not colon or not row_id.isdecimal():
            raise _NotAllowedError("pairs of id and file, such as 3:/etc/automx/ldap.3")
        try:
            passwords[int(row_id)] = Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            text = f"pairs of id and file; the file of {row_id} cannot be read: {reason}"
            raise _NotAllowedError(text) from error
    return passwords


def _web_url(text: str) -> str:
    """Return the URL of a page or an API, with its scheme in lower case and no final slash."""
    if not text:
        return text
    try:
        parts = urlsplit(text)
        is_complete = _WEB_URL.fullmatch(text) and parts.hostname and parts.port != 0
    except ValueError:  # a port above 65535, a bracket that stays open
        is_complete = False
    if not is_complete:
        raise _NotAllowedError("a URL such as https://example.org/new_email, without query")
    return parts.geturl().rstrip("/")


def _backend(text: str) -> str:
    if text.lower() not in BACKENDS:
        raise _NotAllowedError("one of " + ", ".join(BACKENDS))
    return text.lower()


def _command(text: str) -> tuple[str, ...]:
    """Return the words of a command line: quotes are as in a shell, and nothing else is."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise _NotAllowedError("a program and its arguments, with closed quotes") from error
    if words and not (
        words[0].startswith("/") and Path(words[0]).is_file() and os.access(words[0], os.X_OK)
    ):
        raise _NotAllowedError("the full path of a program that can be run, and its arguments")
    return words


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise _NotAllowedError(str(error)) from error


def _rate_limit(text: str) -> str:
    """Return a limit as Flask-Limiter writes it (https://limits.readthedocs.io)."""
    period = r"\d{1,9}\s*(/|per)\s*(\d{1,9}\s*)?(second|minute|hour|day|month|year)s?"
    if text and not re.fullmatch(rf"{period}(\s*[;,|]\s*{period})*", text.strip(), re.IGNORECASE):
        raise _NotAllowedError("limits such as 30 per minute; 300 per day")
    return text.strip()


def _storage(text: str) -> str:
    if not re.fullmatch(r"memory://|(redis|rediss|redis\+unix)://[!-~]+", text):
        raise _NotAllowedError("memory:// or a URI such as redis://localhost:6379")
    return text


def _secret(text: str) -> str:
    if text and (not text.isascii() or not text.isprintable() or " " in text):
        raise _NotAllowedError("printable ASCII characters without blanks")
    return text


def _db_uri(text: str) -> str:
    """Return the URI with a driver that automx ships, and with an absolute path for SQLite."""
    scheme, separator, rest = text.partition("://")
    drivers = {
        "postgres": "postgresql+psycopg",
        "postgresql": "postgresql+psycopg",
        "mysql": "mysql+pymysql",
        "mariadb": "mariadb+pymysql",
    }
    if not separator or not re.fullmatch(r"(sqlite|postgres(ql)?|mysql|mariadb)(\+\w+)?", scheme):
        raise _NotAllowedError("a URI such as sqlite:////path, postgresql://… or mysql://…")
    if scheme.startswith("sqlite") and rest.startswith("/") and not rest.startswith("//"):
        path, question, query = rest[1:].partition("?")
        if path and not path.startswith((":memory:", "file:")):
            rest = f"/{Path(path).absolute()}{question}{query}"
    return f"{drivers.get(scheme, scheme)}://{rest}"


@dataclass(frozen=True)
class _Key:
    parse: Callable[[str], object]
    secret: bool = False


KEYS: dict[str, _Key] = {
    "db_uri": _Key(_db_uri, secret=True),
    "db_echo": _Key(_boolean),
    "loglevel": _Key(_loglevel),
    "proxy_count": _Key(_proxy_count),
    "domain_cache_seconds": _Key(_seconds),
    "initdb_token": _Key(_secret, secret=True),
    "permit_cleartext_passwords": _Key(_boolean),
    "ldap_starttls": _Key(_starttls),
    "ldap_ca_file": _Key(_readable_file),
    "ldap_verify": _Key(_boolean),
    "ldap_timeout": _Key(_positive_seconds),
    "ldap_cache_seconds": _Key(_seconds),
    "ldap_cache_size": _Key(_count),
    "ldap_bind_password_file": _Key(_bind_passwords),
    "web_endpoint": _Key(_web_url),
    "account_backend": _Key(_backend),
    "account_timeout": _Key(_call_seconds),
    "account_command": _Key(_command),
    "mailcow_endpoint": _Key(_web_url),
    "mailcow_token": _Key(_secret, secret=True),
    "mailcow_ca_file": _Key(_readable_file),
    "account_warn_before": _Key(_duration),
    "account_warn_command": _Key(_command),
    "account_grace": _Key(_duration),
    "account_rate_limit": _Key(_rate_limit),
    "rate_limit_storage": _Key(_storage, secret=True),
    "signing_certificate": _Key(_readable_file),
    "signing_key": _Key(_readable_file),
    "signing_key_passphrase": _Key(str, secret=True),
    "signing_chain": _Key(_readable_file),
}

_NAMES = [*KEYS, *(f"{name}_file" for name, key in KEYS.items() if key.secret)]


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that files and environment give.

    ``environ`` takes the place of ``os.environ``. Raises SettingsError for a file that cannot be
    read, an unknown key or a bad value; the text names file or variable, key, and what is allowed.
    """
    environ = os.environ if environ is None else environ
    texts = _from_file(environ) | _from_environment(environ)  # key -> (text, source)
    values: dict[str, object] = {"db_uri": default_db_uri(environ)}
    sources = dict.fromkeys(KEYS, "default")
    for name, (text, source) in texts.items():
        try:
            values[name] = KEYS[name].parse(text)
        except _NotAllowedError as error:
            raise SettingsError(f"{source}: {name} must be {error}") from None
        sources[name] = source
    if bool(values.get("signing_certificate")) != bool(values.get("signing_key")):
        missing = "signing_certificate" if values.get("signing_key") else "signing_key"
        raise SettingsError(f"{missing} is missing: profiles are signed with both")
    if environ.get(CLEARTEXT_VARIABLE) == CLEARTEXT_CONSENT:
        values["permit_cleartext_passwords"] = values["permit_passwords_in_urls"] = True
        sources["permit_cleartext_passwords"] = f"environment variable {CLEARTEXT_VARIABLE}"
    return Settings(**values, sources=sources)  # type: ignore[arg-type] # parsed key by key


def default_db_uri(environ: Mapping[str, str]) -> str:
    """Return the URI of the SQLite file in the data directory of this service or user."""
    if state := environ.get("STATE_DIRECTORY"):  # systemd; the first one if there are several
        folder = Path(state.split(":", maxsplit=1)[0])
    elif data := environ.get("XDG_DATA_HOME"):
        folder = Path(data) / "automx"
    else:
        folder = _home(environ) / ".local" / "share" / "automx"
    return f"sqlite:///{folder.absolute() / 'automx.sqlite'}"


def masked(name: str, value: object) -> str:
    """Return a setting's value for a person to read, without its secret."""
    if name in {"db_uri", "rate_limit_storage"}:
        uri = re.sub(r"(://[^:/@]*:).*@", r"\1***@", str(value))
        return re.sub(r"(passw(?:or)?d=)[^&]*", r"\1***", uri)
    if name in KEYS and KEYS[name].secret:
        return "***" if value else ""
    if isinstance(value, Mapping):
        return " ".join(f"{key}:***" for key in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return shlex.join(value)
    if isinstance(value, timedelta):
        return format_duration(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def _from_file(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return key -> (text, source) from the first configuration file that exists."""
    for program in ("automx", "automx2"):
        variable = f"{program.upper()}_CONF"
        places = [
            _home(environ) / f".{program}.conf",
            ETC / program / f"{program}.conf",
            ETC / f"{program}.conf",
        ]
        if environ.get(variable):
            path = Path(environ[variable])
            if not path.exists():
                raise SettingsError(f"environment variable {variable}: there is no file {path}")
            return _read(path, program)
        for path in places:
            if _exists(path, _home(environ)):
                return _read(path, program)
    return {}


def _exists(path: Path, home: Path) -> bool:
    """Tell whether there is a file; SettingsError if its folder is closed to us."""
    try:
        return path.exists()
    except OSError as error:
        if path.parent == home:  # HOME is still that of root, who started us as another user
            return False
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error


def _read(path: Path, section: str) -> dict[str, tuple[str, str]]:
    """Return key -> (text, source) from one file; automx2 expands ``%(name)s``, automx does not."""
    parser = ConfigParser(interpolation=BasicInterpolation() if section == "automx2" else None)
    try:
        parser.read_string(path.read_text("utf-8-sig"), str(path))
        if not parser.has_section(section):
            others = [name for name in parser.sections() if name != section]
            if others and section == "automx":
                raise SettingsError(f"{path}: the section must be [automx], not [{others[0]}]")
            return {}
        items = dict(parser.items(section))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8") from error
    except IniError as error:
        raise SettingsError(f"{path}: {_defect(error)}") from None
    unknown = [name for name in items if name not in _NAMES]
    if unknown and section == "automx":
        raise SettingsError(f"{path}: {_unknown(unknown[0])}")
    for name in unknown:  # automx2 passes over keys that it does not know
        log.warning("%s: the key %s is not known and has no effect", path, name)
        del items[name]
    return _with_secret_files({name: (text, str(path)) for name, text in items.items()})


def _defect(error: IniError) -> str:
    """Return what is wrong with an INI file, without its lines: they may hold a password."""
    match error:
        case MissingSectionHeaderError():
            return f"line {error.lineno}: a section such as [automx] must come first"
        case ParsingError(errors=[(line, _), *_]):
            return f"line {line}: is neither a section nor key = value"
        case DuplicateOptionError():
            return f"line {error.lineno}: {error.option} stands there twice"
        case DuplicateSectionError():
            return f"line {error.lineno}: [{error.section}] stands there twice"
        case InterpolationError():
            return f"{error.option}: the % must be written %%, or name a key: %(key)s"
    return "is not a valid INI file"


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return key -> (text, source) from the variables that begin with AUTOMX_."""
    items: dict[str, tuple[str, str]] = {}
    for variable in sorted(environ):
        if not variable.startswith("AUTOMX_") or variable == "AUTOMX_CONF":
            continue
        name = variable.removeprefix("AUTOMX_").lower()
        if name in _NAMES:
            items[name] = (environ[variable], f"environment variable {variable}")
        elif not _SERVICE_LINK.fullmatch(variable):
            raise SettingsError(f"environment variable {variable}: {_unknown(name)}")
    return _with_secret_files(items)


def _with_secret_files(items: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Return key -> (text, source), where ``<key>_file`` is replaced by what the file holds."""
    texts = {name: (text.strip(), source) for name, (text, source) in items.items()}
    for name in [name for name in texts if name not in KEYS]:
        text, source = texts.pop(name)
        key = name.removesuffix("_file")
        if not text:
            continue
        if key in texts:
            raise SettingsError(f"{source}: {key} and {name} exclude each other")
        path = Path(text)
        try:
            texts[key] = (path.read_text("utf-8").strip(), f"{source}, {name} {path}")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise SettingsError(f"{source}: {name}: {path} cannot be read: {reason}") from error
    return texts


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _NAMES, 1)
    allowed = f"did you mean {near[0]}?" if near else "allowed are " + ", ".join(_NAMES)
    return f"the key {name} is not known; {allowed}"
