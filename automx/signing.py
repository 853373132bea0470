"""Signs Apple profiles: CMS SignedData with the content inside (RFC 5652), in DER.

A device shows a profile as verified if it trusts the authority of the certificate. The certificate
of a web server can be used. Renewed files are read again without a restart.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import pkcs7

from automx.config import SigningSettings
from automx.config.files import fingerprint
from automx.errors import SettingsError

log = logging.getLogger(__name__)

# Automatic renewal happens earlier than this before the end of a certificate.
NEAR_END = timedelta(days=14)
# The time during which the same warning is not logged again.
SILENCE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, and the certificates between it and a root certificate."""

    certificate: x509.Certificate
    key: RSAPrivateKey | EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    def trouble(self, now: datetime) -> str:
        """Return the problem of the certificate at a time, in one line, or ""."""
        end = self.certificate.not_valid_after_utc
        if end <= now:
            return f"the signing certificate has ended on {end:%Y-%m-%d}"
        if end - now < NEAR_END:
            return f"the signing certificate ends on {end:%Y-%m-%d}: renew it"
        if self.certificate.not_valid_before_utc > now:
            return "the signing certificate is not valid yet"
        return ""


def read(files: SigningSettings) -> Identity:
    """Return the identity. Raises SettingsError: unreadable, no PEM, key does not fit."""
    certificates = _certificates("signing_certificate", files.certificate)
    chain = _certificates("signing_chain", files.chain) if files.chain else []
    key = _key(files)
    certificate = certificates[0]
    identity = Identity(certificate, key, tuple(dict.fromkeys([*certificates[1:], *chain])))
    try:
        is_pair = certificate.public_key() == key.public_key()
        sign(b"", identity)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"signing_key cannot be used: {error}") from None
    if not is_pair:
        raise SettingsError("signing_key is not the key of signing_certificate")
    return identity


def _key(files: SigningSettings) -> RSAPrivateKey | EllipticCurvePrivateKey:
    data = _content("signing_key", files.key)
    passphrase = files.passphrase.encode() or None
    try:
        key = serialization.load_pem_private_key(data, passphrase)
    except TypeError:
        needed = "is encrypted: set signing_key_passphrase_file"
        text = "is not encrypted: remove its passphrase" if passphrase else needed
        raise SettingsError(f"signing_key {text}") from None
    except (ValueError, UnsupportedAlgorithm):
        text = "is no private key in PEM, or its passphrase is wrong"
        raise SettingsError(f"signing_key: {files.key} {text}") from None
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
        raise SettingsError("signing_key must be an RSA or an EC key")
    return key


class Signer:
    """Signs with the identity in files, read again when they change. Safe for threads.

    If renewed files cannot be used, the reason is logged and the former identity stays in use.
    """

    def __init__(
        self, files: SigningSettings, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._files = files
        self._now = now
        self._lock = threading.Lock()
        self._state: list[tuple[int, ...] | None] = []
        self._identity: Identity | None = None
        self._complaint = ("", datetime.min.replace(tzinfo=UTC))
        self._current()  # logs problems at the start

    def sign(self, content: bytes) -> bytes:
        """Return ``content`` signed, or unchanged if there has never been a usable identity."""
        identity = self._current()
        return content if identity is None else sign(content, identity)

    def end(self) -> datetime | None:
        """Return when the certificate ends, None if there is none that can be used."""
        identity = self._current()
        return None if identity is None else identity.certificate.not_valid_after_utc

    def _current(self) -> Identity | None:
        files = self._files
        state = [fingerprint(path) for path in (files.certificate, files.key, files.chain)]
        with self._lock:
            if state != self._state:
                self._state = state
                try:
                    self._identity = read(files)
                except SettingsError as error:
                    goes_on = "the former one signs" if self._identity else "nothing is signed"
                    log.error("the signing certificate cannot be used, %s: %s", goes_on, error)
            if self._identity is not None and (trouble := self._identity.trouble(self._now())):
                self._complain(trouble)
            return self._identity

    def _complain(self, trouble: str) -> None:
        text, when = self._complaint
        if text != trouble or self._now() - when >= SILENCE:
            self._complaint = (trouble, self._now())
            log.error("%s", trouble)


def sign(content: bytes, identity: Identity) -> bytes:
    """Return CMS SignedData in DER; it holds the content and all certificates."""
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content)
    builder = builder.add_signer(identity.certificate, identity.key, hashes.SHA256())
    for certificate in identity.chain:
        builder = builder.add_certificate(certificate)
    return builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])


def _certificates(key: str, path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_content(key, path))
    except ValueError:
        raise SettingsError(f"{key}: {path} holds no certificate in PEM") from None


def _content(key: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{key}: {path} cannot be read: {error.strerror}") from error
