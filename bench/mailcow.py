"""A mailcow server as a program of its own, which can be frozen: ``python -m bench.mailcow``.

It prints its URL and runs until it is ended.
"""

import signal
import sys

from tests.mailcow import Domain, running_mailcow

MANY = 10**9


def main() -> None:
    """Serve the domains of the arguments, without limits."""
    with running_mailcow() as mailcow:
        for name in sys.argv[1:]:
            mailcow.domains[name] = Domain(mailboxes=MANY, maxquota=MANY, quota=MANY)
        print(mailcow.url, flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
