"""Settings that work, but are unsafe, and the certificate that signs profiles."""

from collections.abc import Iterator
from datetime import datetime

from automx.check.finding import Finding, Level
from automx.config import Settings, SigningSettings
from automx.errors import SettingsError


def check_settings(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Yield what is wrong with the settings, and with the certificate that signs profiles."""
    if not settings.directory.verify:
        text = "an attacker between automx and a directory can read and change the answers"
        advice = "name the directory's authority by ldap_ca_file, and set this to yes"
        yield Finding("", Level.WARNING, "ldap_verify", text, advice)
    if settings.signing.certificate:
        yield from _signing(settings.signing, now)


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
