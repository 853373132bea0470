"""A mailcow server as a program of its own, which can be frozen: ``python -m bench.mailcow PORT``.

It prints its URL and runs until it is ended. The port 0 is any free one.
"""

import signal
import sys

from tests.mailcow import Domain, running_mailcow

MANY = 10**9


def main() -> None:
    """Serve the domains that follow the port, without limits."""
    _, port, *domains = sys.argv
    with running_mailcow(port=int(port)) as mailcow:
        for name in domains:
            mailcow.domains[name] = Domain(mailboxes=MANY, maxquota=MANY, quota=MANY)
        print(mailcow.url, flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
