"""A real Thunderbird without a window, asked which configuration it finds for an address.

All host names lead to loopback inside Thunderbird, or where a name server of the test says, and
ports 443 and 80 to those of the front; neither the machine's names nor its network are touched. The
profile is new and knows the test authority.
"""

import contextlib
import json
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.front import Front
from tests.clients.marionette import Marionette
from tests.processes import own_mounts, program, running

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

    def __init__(self, marionette: Marionette, *, asks_name_server: bool = False) -> None:
        self._marionette = marionette
        self._asks_name_server = asks_name_server
        self.version: str = marionette.capabilities["browserVersion"]

    def find(
        self,
        address: str,
        *,
        password: str = "",
        mail_exchangers: Mapping[str, str] | None = None,
    ) -> Configuration | None:
        """Return what Thunderbird finds for an address, or None if it would begin to guess.

        ``mail_exchangers`` gives the MX host of domains; all others have none. A name server, if it
        asks one, gives them itself.
        """
        exchangers = None if self._asks_name_server else mail_exchangers or {}
        result = self._marionette.run(FIND_CONFIG, address, password, exchangers)
        assert "error" not in result, result["error"]
        found = json.loads(result["found"])
        if found is None:
            return None
        for direction in ("incoming", "outgoing"):
            found[direction] = [Server(**server) for server in found[direction]]
        return Configuration(**found)

    def forget_names(self) -> None:
        """Forget what name servers have said, as it does by itself after a minute."""
        self._marionette.run("Services.dns.clearCache(true); arguments[0]();")

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
def thunderbird(
    folder: Path, front: Front, authority: Path, *, name_server: str = ""
) -> Iterator[Thunderbird]:
    """Run Thunderbird with its profile in ``folder``; it reaches nothing but ``front``.

    ``name_server`` is the address, without a port, that it asks for names, which must lead to
    ``front``; only root can arrange that. Without it, all names do.
    """
    profile = folder / "profile"
    profile.mkdir()
    preferences: dict[str, str | int | bool] = {
        "network.dns.forceResolve": "" if name_server else front.address,
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
    if name_server:
        command = _with_name_server(name_server, folder, command)
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
        yield Thunderbird(marionette, asks_name_server=bool(name_server))


def _with_name_server(
    address: str, folder: Path, command: Sequence[str | Path]
) -> list[str | Path]:
    """Return a command that runs another one with a resolv.conf that nothing else sees."""
    file = folder / "resolv.conf"
    file.write_text(f"nameserver {address}\noptions attempts:1\n")
    script = f'mount --bind {shlex.quote(str(file))} /etc/resolv.conf && exec "$@"'
    return [*own_mounts(), "sh", "-c", script, "sh", *command]
