"""Configuration profiles of Apple's, and the table of its schema that they are checked with."""

import plistlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from werkzeug.test import TestResponse

# Key -> (type in a property list, the words that are allowed). Those of PAYLOAD are in every
# dictionary; a key that begins with "!" must be there.
AUTHENTICATIONS = [
    "EmailAuthNone",
    "EmailAuthPassword",
    "EmailAuthCRAMMD5",
    "EmailAuthNTLM",
    "EmailAuthHTTPMD5",
]
Schema = Mapping[str, tuple[type, list[str]]]
PAYLOAD: Schema = {
    "!PayloadType": (str, []),
    "!PayloadVersion": (int, []),
    "!PayloadIdentifier": (str, []),
    "!PayloadUUID": (str, []),
    "!PayloadDisplayName": (str, []),
    "PayloadDescription": (str, []),
    "PayloadOrganization": (str, []),
}
PROFILE: Schema = {
    "!PayloadContent": (list, []),
    "PayloadRemovalDisallowed": (bool, []),
    "RemovalDate": (datetime, []),
    "DurationUntilRemoval": (float, []),
    "PayloadExpirationDate": (datetime, []),
}
MAIL: Schema = {
    "!EmailAccountType": (str, ["EmailTypeIMAP", "EmailTypePOP"]),
    "EmailAccountDescription": (str, []),
    "EmailAccountName": (str, []),
    "EmailAddress": (str, []),
    "!IncomingMailServerAuthentication": (str, AUTHENTICATIONS),
    "!IncomingMailServerHostName": (str, []),
    "IncomingMailServerPortNumber": (int, []),
    "IncomingMailServerUseSSL": (bool, []),
    "IncomingMailServerUsername": (str, []),
    "IncomingPassword": (str, []),
    "!OutgoingMailServerAuthentication": (str, AUTHENTICATIONS),
    "!OutgoingMailServerHostName": (str, []),
    "OutgoingMailServerPortNumber": (int, []),
    "OutgoingMailServerUseSSL": (bool, []),
    "OutgoingMailServerUsername": (str, []),
    "OutgoingPassword": (str, []),
    "OutgoingPasswordSameAsIncomingPassword": (bool, []),
    "SMIMESigningUserOverrideable": (bool, []),
    "SMIMESigningCertificateUUIDUserOverrideable": (bool, []),
    "SMIMEEncryptByDefaultUserOverrideable": (bool, []),
    "SMIMEEncryptionCertificateUUIDUserOverrideable": (bool, []),
    "SMIMEEnableEncryptionPerMessageSwitch": (bool, []),
}


def dav(prefix: str) -> Schema:
    """Return the schema of a calendar or an address book."""
    return {
        f"!{prefix}HostName": (str, []),
        f"{prefix}AccountDescription": (str, []),
        f"{prefix}Password": (str, []),
        f"{prefix}Port": (int, []),
        f"{prefix}PrincipalURL": (str, []),
        f"{prefix}UseSSL": (bool, []),
        f"{prefix}Username": (str, []),
    }


SCHEMAS: Mapping[str, Schema] = {
    "Configuration": PROFILE,
    "com.apple.mail.managed": MAIL,
    "com.apple.caldav.account": dav("CalDAV"),
    "com.apple.carddav.account": dav("CardDAV"),
}


def assert_valid(payload: Mapping[str, Any]) -> None:
    """Check a payload, and those inside of it, with Apple's schema."""
    schema = {**PAYLOAD, **SCHEMAS[payload["PayloadType"]]}
    required = {key.removeprefix("!") for key in schema if key.startswith("!")}
    assert required <= set(payload)
    for key, value in payload.items():
        assert {key, f"!{key}"} & set(schema), f"{key} is unknown"
        kind, words = schema.get(f"!{key}") or schema[key]
        assert type(value) is kind, key
        assert not words or value in words
    assert payload["PayloadVersion"] == 1
    for inner in payload.get("PayloadContent", []):
        assert_valid(inner)


def profile_of(answer: TestResponse) -> dict[str, Any]:
    """Return the checked profile that an answer holds."""
    assert answer.status_code == 200, answer.text
    profile: dict[str, Any] = plistlib.loads(answer.data)
    assert_valid(profile)
    identifiers = [
        (payload["PayloadIdentifier"], payload["PayloadUUID"])
        for payload in (profile, *profile["PayloadContent"])
    ]
    assert len({identifier for identifier, _ in identifiers}) == len(identifiers)
    assert len({uuid for _, uuid in identifiers}) == len(identifiers)
    return profile
