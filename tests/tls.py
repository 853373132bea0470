"""A certificate authority for tests, and the certificates that it issues."""

import base64
import datetime
import hashlib
import ipaddress
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.processes import program

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key as PEM files."""

    certificate: Path
    key: Path
    pin: str
    """Base64 of the SHA-256 of the certificate's SubjectPublicKeyInfo, as in RFC 7469."""


class Authority:
    """A certificate authority whose files lie in ``folder``; ``root`` is its own certificate.

    One with a ``parent`` is an intermediate authority.
    """

    def __init__(self, folder: Path, parent: "Authority | None" = None) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Test intermediate" if parent else "Test authority")
        self._issued = 0
        issuer = parent or self
        certificate = (
            issuer._builder(self._name, self._key)
            .add_extension(
                x509.BasicConstraints(ca=True, path_length=0 if parent else 1), critical=True
            )
            .add_extension(_usage(certificates=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(issuer._key, hashes.SHA256())
        )
        self.root = folder / ("intermediate.pem" if parent else "authority.pem")
        self.root.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def intermediate(self) -> "Authority":
        """Return an intermediate authority, whose files lie in a folder of their own."""
        folder = self._folder / "intermediate"
        folder.mkdir()
        return Authority(folder, self)

    def issue(self, *names: str, days: int = 30, client: str = "") -> Certificate:
        """Issue a certificate for host names and IP addresses; ``*.example.test`` is a legal one.

        It ends after so many days; with a negative number it has ended already. ``client`` is the
        common name of a certificate that proves a client.
        """
        use = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        certificate = (
            self._builder(_name(client or "Test server"), key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(alternatives, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        self._issued += 1
        public_key = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        issued = Certificate(
            self._folder / f"server-{self._issued}.pem",
            self._folder / f"server-{self._issued}.key",
            base64.b64encode(hashlib.sha256(public_key).digest()).decode(),
        )
        issued.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        issued.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return issued

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int = 30
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, now + days * _DAY) - _DAY)
            .not_valid_after(now + days * _DAY)
        )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def verified(profile: bytes, authority: Authority, folder: Path) -> bytes:
    """Return what openssl takes out of a signed profile after checking it."""
    signed = folder / "signed.mobileconfig"
    signed.write_bytes(profile)
    command: list[str | Path] = [program("openssl", "openssl"), "cms", "-verify"]
    command += ["-inform", "DER", "-in", signed]
    command += ["-CAfile", authority.root, "-purpose", "any", "-binary"]
    result = subprocess.run(command, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout
