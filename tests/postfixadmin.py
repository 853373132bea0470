"""PostfixAdmin's tables as its own program makes them: that of Debian's package ``postfixadmin``.

The package is unpacked, not installed: it would set up a web server.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.kept import alone, cache
from tests.processes import program

# What its ``upgrade.php`` needs to know, and to have where there is no web server.
_SETTINGS = """\
<?php
$CONF['configured'] = true;
$CONF['default_language'] = 'en';
foreach (['type', 'host', 'socket', 'user', 'password', 'name'] as $key) {
    $CONF["database_$key"] = getenv("DATABASE_$key");
}
"""
_RUN = "define('POSTFIXADMIN', 1); define('POSTFIXADMIN_CLI', 1); require 'upgrade.php';"


def make_tables(engine: str, name: str, socket: Path, user: str) -> str:
    """Make the tables in an empty database, and return what the program prints.

    ``socket`` is that of MariaDB's server, or the folder of PostgreSQL's.
    """
    kind = {"mariadb": "mysqli", "postgresql": "pgsql"}[engine]
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_type": kind,
        "DATABASE_host": str(socket),
        "DATABASE_socket": str(socket) if engine == "mariadb" else "",
        "DATABASE_user": user,
        "DATABASE_password": "",
        "DATABASE_name": name,
    }
    result = subprocess.run(
        [program("php", "php-cli"), "-r", _RUN],
        cwd=_folder() / "public",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _folder() -> Path:
    """Return the folder of PostfixAdmin's files, which are fetched once."""
    folder = cache() / "postfixadmin"
    with alone("postfixadmin"):
        if not folder.exists():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache()) as temporary:
        fetch = [program("apt-get", "apt"), "-q", "-o", "APT::Sandbox::User=root", "download"]
        for command in (
            [*fetch, "postfixadmin"],
            ["sh", "-c", "dpkg-deb -x postfixadmin_*.deb ."],
        ):
            result = subprocess.run(
                command, cwd=temporary, capture_output=True, text=True, check=False
            )
            if result.returncode:
                pytest.fail(f"Debian's package postfixadmin cannot be unpacked: {result.stderr}")
        files = Path(temporary) / "usr/share/postfixadmin"
        for name in ("config.inc.php", "config.local.php", "templates_c"):
            (files / name).unlink(missing_ok=True)
        text = (Path(temporary) / "etc/postfixadmin/config.inc.php").read_text()
        text = text.replace("require_once('dbconfig.inc.php');", "")
        (files / "config.inc.php").write_text(text)
        (files / "config.local.php").write_text(_SETTINGS)
        shutil.move(files, folder)
