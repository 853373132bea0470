"""Settings of the log and of metrics."""

from dataclasses import dataclass

from automx.config import values
from automx.config.keys import setting


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSettings:
    """The [log](monitoring.md#the-log).

    log_format: The form of the lines: `text`, or `json`, an object in each line with more fields.

    log_addresses: What the lines tell of the addresses of clients: `full`, `network` (the first 24
    bits of IPv4, the first 48 of IPv6) or `none`.

    access_log: Where the lines go that tell of each request: `-` (standard output), `off`, or the
    full path of a file, which may be renamed to begin a new one. Empty: standard error, with all
    others, if `loglevel` is `INFO` or `DEBUG`.
    """

    format: str = setting("log_format", values.one_of(("text", "json")), "text")
    addresses: str = setting("log_addresses", values.one_of(("full", "network", "none")), "full")
    access: str = setting("access_log", values.log_file)


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricsSettings:
    """[Metrics](monitoring.md#metrics) for Prometheus.

    metrics_listen: Where `automx serve` answers `/metrics`: an IP address and a port, such as
    `127.0.0.1:9324` or `[::1]:9324`. Another address than that of this machine itself needs
    `metrics_token`. Empty: there are no metrics.

    metrics_token: If it is set, `/metrics` wants it (`Authorization: Bearer TOKEN`).
    `/readyz?details` always does; if it is not set, there are no details.
    """

    # No key ends in _port: Kubernetes sets such variables for a service automx-metrics.
    listen: str = setting("metrics_listen", values.listener)
    token: str = setting("metrics_token", values.token, secret=True)

    @property
    def address(self) -> tuple[str, int]:
        """The IP address and the port of ``listen``."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)
