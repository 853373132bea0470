"""Random words: local parts of new addresses, passwords, and the secrets of tokens."""

import secrets

# Digits and letters that cannot be taken for each other; mailadm's, for names.
NAME_LETTERS = "2345789acdefghjkmnpqrstuvwxyz"
NAME_LENGTH = 5  # after a prefix
BARE_NAME_LENGTH = 9  # without one: no person is called so

# The letters of passwords: those of names, and capitals that look like no other letter or digit.
LETTERS = NAME_LETTERS + "ACDEFGHJKLMNPQRTUVWXY"


def new_local_part(prefix: str) -> str:
    """Return the local part of a new address, which begins with a prefix."""
    return prefix + _word(NAME_LETTERS, NAME_LENGTH if prefix else BARE_NAME_LENGTH)


def new_token() -> str:
    """Return a new secret: 24 characters that stand for 116 bits."""
    return _word(NAME_LETTERS, 24)


def new_password() -> str:
    """Return a password of 20 characters with 101 bits of randomness.

    Mail servers may require lower and upper case, digits and punctuation. No letter looks like
    another one.
    """
    while True:
        password = "-".join(_word(LETTERS, 6) for _ in range(3))
        if all(any(map(kind, password)) for kind in (str.isdigit, str.islower, str.isupper)):
            return password


def _word(letters: str, length: int) -> str:
    return "".join(secrets.choice(letters) for _ in range(length))
