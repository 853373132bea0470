"""The words of the columns ``type``, ``socket_type``, ``authentication``, ``state``, ``role``.

Of several that mean the same, the first is the normal form: automx2's, where it has one. Words are
read in any case of letters.
"""

from enum import StrEnum

from automx.clientconfig import Authentication, ServerType, ServiceType, SocketType

SERVER_TYPES = {
    "imap": ServerType.IMAP,
    "pop": ServerType.POP3,
    "pop3": ServerType.POP3,
    "smtp": ServerType.SMTP,
    "managesieve": ServerType.MANAGESIEVE,
    "sieve": ServerType.MANAGESIEVE,
}
SERVICE_TYPES = {word.value: word for word in ServiceType}
SOCKET_TYPES = {
    "SSL": SocketType.SSL,
    "STARTTLS": SocketType.STARTTLS,
    "plain": SocketType.PLAIN,
    "none": SocketType.PLAIN,
    "": SocketType.PLAIN,
}
AUTHENTICATIONS = {
    "plain": Authentication.PASSWORD_CLEARTEXT,
    "password-cleartext": Authentication.PASSWORD_CLEARTEXT,
    "secure": Authentication.PASSWORD_ENCRYPTED,
    "password-encrypted": Authentication.PASSWORD_ENCRYPTED,
    **{word.value: word for word in Authentication if not word.startswith("password-")},
}
# Words of mail clients and of SASL (RFC 4422 and its registry) that have one clear meaning.
SOCKET_TYPE_SYNONYMS = {
    "SSL/TLS": SocketType.SSL,
    "TLS/SSL": SocketType.SSL,
    "cleartext": SocketType.PLAIN,
    "plaintext": SocketType.PLAIN,
    "unencrypted": SocketType.PLAIN,
}
AUTHENTICATION_SYNONYMS = {
    "LOGIN": Authentication.PASSWORD_CLEARTEXT,
    "password": Authentication.PASSWORD_CLEARTEXT,
    "cleartext": Authentication.PASSWORD_CLEARTEXT,
    "": Authentication.PASSWORD_CLEARTEXT,
    "CRAM-MD5": Authentication.PASSWORD_ENCRYPTED,
    "DIGEST-MD5": Authentication.PASSWORD_ENCRYPTED,
    "SCRAM-SHA-1": Authentication.PASSWORD_ENCRYPTED,
    "SCRAM-SHA-1-PLUS": Authentication.PASSWORD_ENCRYPTED,
    "SCRAM-SHA-256": Authentication.PASSWORD_ENCRYPTED,
    "SCRAM-SHA-256-PLUS": Authentication.PASSWORD_ENCRYPTED,
    "SCRAM-SHA-512": Authentication.PASSWORD_ENCRYPTED,
    "SCRAM-SHA-512-PLUS": Authentication.PASSWORD_ENCRYPTED,
    "APOP": Authentication.PASSWORD_ENCRYPTED,
    "XOAUTH2": Authentication.OAUTH2,
    "OAUTHBEARER": Authentication.OAUTH2,
    "Kerberos": Authentication.GSSAPI,
    "EXTERNAL": Authentication.TLS_CLIENT_CERT,
}


class State(StrEnum):
    """The state of an account; the docstring of automx.accounts explains the values."""

    CREATING = "creating"
    ACTIVE = "active"
    DISABLING = "disabling"
    DISABLED = "disabled"
    UNDOING = "undoing"
    DELETING = "deleting"


class Role(StrEnum):
    """What a key of the API may do; ``automx.apikeys`` explains it."""

    READ = "read"
    WRITE = "write"
    ACCOUNTS = "accounts"
    ADMIN = "admin"
