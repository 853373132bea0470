"""nginx with the files of contrib, by plain HTTP: with published files, and without."""

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from tests.processes import REPOSITORY, free_port, listens, program, running


@contextlib.contextmanager
def nginx(
    name: str, folder: Path, upstream: int, published: Path | None = None, *, more: str = ""
) -> Iterator[int]:
    """Run nginx with a file of contrib in front of automx; yield its port.

    It answers each host in its first block, to which ``more`` is added. Certificates are left out.
    """
    port = free_port()
    site = (REPOSITORY / "contrib" / name).read_text()
    site = site.partition("# The paths that clients ask on the mail domain itself.")[0]
    last = "    location / {\n        proxy_pass"
    changes = {
        last: f"    {more}\n{last}",
        "server 127.0.0.1:4243;": f"server 127.0.0.1:{upstream};",
        "    listen 443 ssl;\n": f"    listen 127.0.0.1:{port} default_server;\n",
        "    listen 80;\n": f"    listen 127.0.0.1:{free_port()};\n",
        "/var/log/nginx/automx.log": str(folder / "access.log"),
        "/var/log/nginx/error.log": str(folder / "error.log"),
    }
    if published is not None:
        changes["/var/cache/automx-published"] = str(published)
    for old, new in changes.items():
        assert old in site, f"contrib/{name} no longer holds {old!r}"
        site = site.replace(old, new)
    site = re.sub(r"(?m)^    (?:listen \[::\]|ssl_).*\n", "", site)
    (folder / "automx.conf").write_text(site)
    temporary = "\n".join(
        f"{kind}_temp_path {folder / kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if Path("/proc/self").stat().st_uid == 0 else ""
    (folder / "nginx.conf").write_text(
        f"""
        {user}
        pcre_jit on;  # as docs/publishing.md says
        daemon off;
        worker_processes 1;
        pid {folder / "pid"};
        events {{}}
        http {{
            {temporary}
            sendfile on;
            proxy_ignore_client_abort on;  # see exchange()
            include {folder / "automx.conf"};
        }}
        """
    )
    command = [program("nginx", "nginx-light"), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with running(command, folder / "log", ready=lambda: listens(port)):
        yield port


def exchange(port: int, request: bytes) -> bytes:
    """Send the bytes of one request that asks to close the connection; return all of the answer."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)  # nginx waits for no rest of what is not whole
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
    return b"".join(parts)
