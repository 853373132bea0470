"""What an administrator can do about an error of another program's database."""

import re
from collections.abc import Mapping

from sqlalchemy import exc

from automx.database.outages import reason

_LOGIN = "see user name and password in uri; special characters are written as in a URL, %40 for @"
_GRANT = "the account may not read this: it needs GRANT SELECT"
_DATABASE = "see the name of the database at the end of uri, and that the account may read there"
_TABLE = "see preset or query, and whether uri names the right database"
_SERVER = "see that the database runs, and host and port in uri"
_SYNTAX = "see query"

# Codes: the SQLSTATE of PostgreSQL, the number of MariaDB and MySQL.
_BY_CODE: Mapping[object, str] = {
    **dict.fromkeys((1045, 1698, "28P01", "28000"), _LOGIN),
    **dict.fromkeys((1142, 1143, "42501"), _GRANT),
    **dict.fromkeys((1044, 1046, 1049, "3D000"), _DATABASE),
    **dict.fromkeys((1054, 1146, "42P01", "42703"), _TABLE),
    **dict.fromkeys((1064, "42601"), _SYNTAX),
    **dict.fromkeys((2002, 2003, 2005), _SERVER),
}

# Where there is no code: psycopg has none before it is connected, and neither has SQLite.
_BY_TEXT: Mapping[str, str] = {
    "password authentication failed": _LOGIN,
    "no password supplied": _LOGIN,
    "no pg_hba.conf entry": "pg_hba.conf must let this account in from this host",
    "does not exist": _DATABASE,
    "Connection refused": _SERVER,
    "resolve": _SERVER,
    "No such file": _SERVER,
    "SSL negotiation": _SERVER,
    "unable to open database file": (
        "the file is missing, or its rights or those of a folder above keep the user of this"
        " program from reading it"
    ),
    "file is not a database": "see the path in uri",
    "no such table": _TABLE,
    "no such column": _TABLE,
    "syntax error": _SYNTAX,
}

# psycopg repeats itself for each address of a host, and shows the cursor that it has declared.
_REPEATED = " Multiple connection attempts failed"
_LINE = re.compile(r" LINE \d+: .*")


def advised_reason(error: exc.SQLAlchemyError) -> str:
    """Return what the database says, in one line, and what can be done about it if that is known.

    Neither password nor statement are in it.
    """
    driver = getattr(error, "orig", None)
    code: object = getattr(driver, "sqlstate", None)
    match getattr(driver, "args", ()):
        case (int() as number, str() as said):  # PyMySQL
            code, text = number, f"{' '.join(said.split())} ({number})"
        case _:
            text = _LINE.sub("", reason(error))
    text = text.partition(_REPEATED)[0]
    advice = _BY_CODE.get(code) or next(
        (advice for part, advice in _BY_TEXT.items() if part in text), ""
    )
    return f"{text}; {advice}" if advice else text
