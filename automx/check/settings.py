"""Settings that work, but are unsafe, a database that others can read, the signing certificate."""

import shlex
import stat
from collections.abc import Iterator
from datetime import datetime

from automx.check.finding import Finding, Level
from automx.config import Settings, SigningSettings
from automx.database import file_to_make
from automx.errors import SettingsError


def check_settings(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Yield what is wrong with the settings, the mode of the database, and the certificate."""
    if not settings.directory.verify:
        text = "an attacker between automx and a directory can read and change the answers"
        advice = "name the directory's authority by ldap_ca_file, and set this to yes"
        yield Finding("", Level.WARNING, "ldap_verify", text, advice)
    yield from _readable(settings.db_uri)
    if settings.signing.certificate:
        yield from _signing(settings.signing, now)


def _readable(db_uri: str) -> Iterator[Finding]:
    """Yield a warning if each user of this machine can read the SQLite file."""
    path = file_to_make(db_uri)
    try:
        if path is None or not path.stat().st_mode & stat.S_IROTH:
            return
        if not all(folder.stat().st_mode & stat.S_IXOTH for folder in path.absolute().parents):
            return
    except OSError:  # other checks tell that
        return
    text = f"each user of this machine can read {path}, with its tokens and passwords"
    yield Finding("", Level.WARNING, "db_uri", text, f"chmod o= {shlex.quote(str(path))}")


def _signing(files: SigningSettings, now: datetime) -> Iterator[Finding]:
    from automx.signing import read

    subject = "signing_certificate"
    try:
        identity = read(files)
    except SettingsError as error:
        advice = "correct the setting or the file; profiles are not signed until then"
        yield Finding("", Level.ERROR, subject, str(error), advice)
        return
    if trouble := identity.trouble(now):
        certificate = identity.certificate
        is_valid = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
        level = Level.WARNING if is_valid else Level.ERROR
        yield Finding("", level, subject, trouble, "put a renewed certificate into the file")
