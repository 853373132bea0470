"""Signed profiles: openssl accepts them, renewed files are read, trouble is told in the log."""

import datetime
import plistlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from flask import Flask

from automx.config import SigningSettings, load
from automx.errors import SettingsError
from automx.signing import Signer, read
from tests.processes import program
from tests.tls import Authority, Certificate, verified

URL = "/mobileconfig?emailaddress=alice@example.com"

pytestmark = pytest.mark.usefixtures("example")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority of the test's own."""
    folder = tmp_path / "authority"
    folder.mkdir()
    return Authority(folder)


@pytest.fixture
def certificate(authority: Authority) -> Certificate:
    """A certificate that is good for a while."""
    return authority.issue("automx.example.com", days=90)


def files(certificate: Path, key: Path, **others: str) -> SigningSettings:
    """Return the settings that name some files."""
    return SigningSettings(certificate=str(certificate), key=str(key), **others)


def test_openssl_finds_the_same_profile_in_a_signed_one(
    make_app: Callable[..., Flask],
    authority: Authority,
    certificate: Certificate,
    tmp_path: Path,
) -> None:
    plain = make_app().test_client().get(URL)
    signed = (
        make_app(signing_certificate=str(certificate.certificate), signing_key=str(certificate.key))
        .test_client()
        .get(URL)
    )
    assert signed.headers["Content-Type"] == plain.headers["Content-Type"]
    assert signed.headers["Content-Disposition"] == plain.headers["Content-Disposition"]
    assert signed.data[:1] == b"0"  # DER begins with a SEQUENCE
    assert verified(signed.data, authority, tmp_path) == plain.data


def test_intermediate_certificates_are_included(
    authority: Authority, certificate: Certificate, tmp_path: Path
) -> None:
    intermediate = authority.intermediate()
    issued = intermediate.issue("automx.example.com", days=90)
    together = tmp_path / "fullchain.pem"
    together.write_bytes(issued.certificate.read_bytes() + intermediate.root.read_bytes())
    own_file = files(issued.certificate, issued.key, chain=str(intermediate.root))
    for settings in (files(together, issued.key), own_file):
        assert verified(Signer(settings).sign(b"profile"), authority, tmp_path) == b"profile"


def test_an_encrypted_key_needs_its_passphrase(
    certificate: Certificate, authority: Authority, tmp_path: Path
) -> None:
    key = serialization.load_pem_private_key(certificate.key.read_bytes(), None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    settings = files(certificate.certificate, encrypted, passphrase="open sesame")
    assert verified(Signer(settings).sign(b"profile"), authority, tmp_path) == b"profile"
    for passphrase, text in (
        ("", "signing_key is encrypted: set signing_key_passphrase_file"),
        (
            "wrong",
            f"signing_key: {encrypted} is no private key in PEM, or its passphrase is wrong",
        ),
    ):
        with pytest.raises(SettingsError) as caught:
            read(files(certificate.certificate, encrypted, passphrase=passphrase))
        assert str(caught.value) == text


def test_the_passphrase_comes_from_a_file(certificate: Certificate, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("open sesame\n")
    settings = load(
        {
            "AUTOMX_CONF": "/dev/null",
            "AUTOMX_SIGNING_CERTIFICATE": str(certificate.certificate),
            "AUTOMX_SIGNING_KEY": str(certificate.key),
            "AUTOMX_SIGNING_KEY_PASSPHRASE_FILE": str(secret),
        }
    )
    assert settings.signing.passphrase == "open sesame"
    assert "open sesame" not in repr(settings)


def test_a_certificate_without_its_key_stops_the_start(certificate: Certificate) -> None:
    environ = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_SIGNING_CERTIFICATE": str(certificate.certificate),
    }
    with pytest.raises(SettingsError, match="signing_key is missing"):
        load(environ)


def test_renewed_files_are_used_without_a_restart(
    authority: Authority, certificate: Certificate, tmp_path: Path
) -> None:
    signer = Signer(files(certificate.certificate, certificate.key))
    first = signer.sign(b"profile")
    renewed = authority.issue("automx.example.com", days=90)
    shutil.copyfile(renewed.key, certificate.key)
    shutil.copyfile(renewed.certificate, certificate.certificate)
    second = signer.sign(b"profile")
    assert first != second
    pem = subprocess.run(
        [program("openssl", "openssl"), "pkcs7", "-inform", "DER", "-print_certs"],
        input=second,
        capture_output=True,
        check=True,
    ).stdout
    expected = subprocess.run(
        [program("openssl", "openssl"), "x509", "-in", renewed.certificate],
        capture_output=True,
        check=True,
    ).stdout
    assert expected in pem


def test_a_key_of_another_certificate_is_named_and_the_former_pair_goes_on(
    authority: Authority,
    certificate: Certificate,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    signer = Signer(files(certificate.certificate, certificate.key))
    signer.sign(b"profile")
    other = authority.issue("automx.example.com", days=90)
    shutil.copyfile(other.key, certificate.key)  # its certificate has not come yet
    for _ in range(3):
        assert verified(signer.sign(b"profile"), authority, tmp_path) == b"profile"
    assert [record.getMessage() for record in caplog.records] == [
        (
            "the signing certificate cannot be used, the former one signs:"
            " signing_key is not the key of signing_certificate"
        )
    ]


def test_without_a_usable_certificate_profiles_are_not_signed(
    make_app: Callable[..., Flask],
    authority: Authority,
    certificate: Certificate,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = authority.issue("automx.example.com", days=90)
    app = make_app(signing_certificate=str(certificate.certificate), signing_key=str(other.key))
    answer = app.test_client().get(URL)
    assert plistlib.loads(answer.data)["PayloadType"] == "Configuration"
    assert "signing_key is not the key of signing_certificate" in caplog.text


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (10, "the signing certificate ends on {end:%Y-%m-%d}: renew it"),
        (-1, "the signing certificate has ended on {end:%Y-%m-%d}"),
    ],
)
def test_a_certificate_near_its_end_is_named_once_a_day(
    authority: Authority, days: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    issued = authority.issue("automx.example.com", days=days)
    now = datetime.datetime.now(datetime.UTC)
    times = [now]
    settings = files(issued.certificate, issued.key)
    signer = Signer(settings, now=lambda: times[-1])
    for _ in range(3):
        signer.sign(b"profile")
    times.append(now + datetime.timedelta(hours=25))
    signer.sign(b"profile")
    end = read(settings).certificate.not_valid_after_utc
    message = text.format(end=end)
    assert [record.getMessage() for record in caplog.records] == [message, message]


def test_two_downloads_have_the_same_identifiers(
    make_app: Callable[..., Flask], authority: Authority, certificate: Certificate, tmp_path: Path
) -> None:
    client = make_app(
        signing_certificate=str(certificate.certificate), signing_key=str(certificate.key)
    ).test_client()
    profiles = [verified(client.get(URL).data, authority, tmp_path) for _ in range(2)]
    assert profiles[0] == profiles[1]


def test_a_missing_file_is_named(certificate: Certificate, tmp_path: Path) -> None:
    certificate.key.unlink()
    with pytest.raises(SettingsError) as caught:
        read(files(certificate.certificate, certificate.key))
    assert str(caught.value) == (
        f"signing_key: {certificate.key} cannot be read: No such file or directory"
    )
