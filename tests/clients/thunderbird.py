"""A real Thunderbird without a window, asked which configuration it finds for an address.

All host names lead to loopback inside Thunderbird, ports 443 and 80 to those of the front; neither
the machine's names nor its network are touched. The profile is new and knows the test authority.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.front import Front
from tests.clients.marionette import Marionette
from tests.processes import program, running

FIND_CONFIG = Path(__file__).with_name("find_config.js").read_text()

# Where Thunderbird looks for the database of providers (ISPDB) unless it is told otherwise.
PROVIDERS = "live.thunderbird.net"


@dataclass(frozen=True)
class Server:
    """A server as Thunderbird understood it, with its own names of the constants."""

    type: str
    hostname: str
    port: int
    socket_type: str
    auth: str
    username: str
    other: Mapping[str, Any]
    """Settings beyond these that are not as in a server just created."""


@dataclass(frozen=True)
class Configuration:
    """A configuration that Thunderbird found; of the servers, the preferred one comes first."""

    source: str
    id: str | None
    display_name: str | None
    domains: list[str]
    complete: bool
    incoming: list[Server]
    outgoing: list[Server]


class Thunderbird:
    """A running Thunderbird."""

    def __init__(self, marionette: Marionette) -> None:
        self._marionette = marionette
        self.version: str = marionette.capabilities["browserVersion"]

    def find(
        self,
        address: str,
        *,
        password: str = "",
        mail_exchangers: Mapping[str, str] | None = None,
    ) -> Configuration | None:
        """Return what Thunderbird finds for an address, or None if it would begin to guess.

        ``mail_exchangers`` gives the MX host of domains; all others have none.
        """
        result = self._marionette.run(FIND_CONFIG, address, password, mail_exchangers or {})
        assert "error" not in result, result["error"]
        found = json.loads(result["found"])
        if found is None:
            return None
        for direction in ("incoming", "outgoing"):
            found[direction] = [Server(**server) for server in found[direction]]
        return Configuration(**found)

    @contextlib.contextmanager
    def preference(self, name: str, value: str) -> Iterator[None]:
        """Give a preference another value, as an administrator would, until the block ends."""
        change = "const [name, value, done] = arguments; Services.prefs.{}; done();"
        self._marionette.run(change.format("setCharPref(name, value)"), name, value)
        try:
            yield
        finally:
            self._marionette.run(change.format("clearUserPref(name)"), name, value)


@contextlib.contextmanager
def thunderbird(folder: Path, front: Front, authority: Path) -> Iterator[Thunderbird]:
    """Run Thunderbird with its profile in ``folder``; it reaches nothing but ``front``."""
    profile = folder / "profile"
    profile.mkdir()
    preferences: dict[str, str | int | bool] = {
        "network.dns.forceResolve": front.address,
        "network.socket.forcePort": f"443={front.https_port};80={front.http_port}",
        "network.proxy.type": 0,
        "network.trr.mode": 5,
        "marionette.port": 0,
        "app.update.disabledForTesting": True,
        "datareporting.policy.dataSubmissionEnabled": False,
        "extensions.update.enabled": False,
        "mailnews.start_page.enabled": False,
        "mail.provider.suppress_dialog_on_startup": True,
        "mail.shell.checkDefaultClient": False,
        "services.settings.server": "data:,",
    }
    (profile / "user.js").write_text(
        "".join(
            f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
            for name, value in preferences.items()
        )
    )
    certutil = program("certutil", "libnss3-tools")
    database = f"sql:{profile}"
    for arguments in (
        ["-N", "--empty-password"],
        ["-A", "-n", "Test authority", "-t", "C,,", "-i", str(authority)],
    ):
        subprocess.run([certutil, "-d", database, *arguments], check=True, capture_output=True)

    # Marionette chooses a free port and writes it into the profile when it listens.
    port = profile / "MarionetteActivePort"
    command: list[str | Path] = [
        program("thunderbird", "thunderbird"),
        *("--headless", "--no-remote", "--marionette", "--remote-allow-system-access"),
        *("--profile", profile),
    ]
    environment = {"HOME": str(folder), "MOZ_CRASHREPORTER_DISABLE": "1"}
    with (
        running(
            command,
            folder / "thunderbird.log",
            ready=lambda: port.exists() and port.read_text().strip() != "",
            env=environment,
            seconds=120,
        ),
        Marionette(int(port.read_text())) as marionette,
    ):
        yield Thunderbird(marionette)
