"""Settings that work, but are unsafe, and the certificate that signs profiles."""

from collections.abc import Iterator
from datetime import datetime

from automx.check.finding import Finding, Level
from automx.config import Settings
from automx.errors import SettingsError


def check_settings(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Yield what is wrong with the settings, and with the certificate that signs profiles."""
    if settings.web_endpoint.startswith("http:"):
        text = "clients that make accounts ask by https only"
        advice = "give the https URL of the web server in front of automx"
        yield Finding("", Level.WARNING, "web_endpoint", text, advice)
    if not settings.ldap_verify:
        text = "an attacker between automx and a directory can read and change the answers"
        advice = "name the directory's authority by ldap_ca_file, and set this to yes"
        yield Finding("", Level.WARNING, "ldap_verify", text, advice)
    if settings.signing_certificate:
        yield from _signing(settings, now)


def _signing(settings: Settings, now: datetime) -> Iterator[Finding]:
    from automx.signing import files

    subject = "signing_certificate"
    try:
        identity = files(settings).read()
    except SettingsError as error:
        advice = "correct the setting or the file; profiles are not signed until then"
        yield Finding("", Level.ERROR, subject, str(error), advice)
        return
    if trouble := identity.trouble(now):
        certificate = identity.certificate
        is_valid = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
        level = Level.WARNING if is_valid else Level.ERROR
        yield Finding("", level, subject, trouble, "put a renewed certificate into the file")
