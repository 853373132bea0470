"""mailadm's environment variables, which have no effect here."""

import logging
from collections.abc import Mapping

log = logging.getLogger(__name__)

# What stands for them here.
VARIABLES = {
    "WEB_ENDPOINT": "web_endpoint",
    "MAILCOW_ENDPOINT": "mailcow_endpoint",
    "MAILCOW_TOKEN": "mailcow_token",
    "MAILADM_DB": "db_uri",
}


def warn(environ: Mapping[str, str], sources: Mapping[str, str]) -> None:
    """Log which settings take the place of mailadm's variables, unless they are there."""
    missing = [
        (variable, name)
        for variable, name in VARIABLES.items()
        if environ.get(variable) and sources[name] == "default"
    ]
    for variable, name in missing:
        log.warning(
            "environment variable %s is mailadm's and has no effect here: use the setting %s, or"
            " AUTOMX_%s in the environment%s",
            *(variable, name, name.upper()),
            "; automx import-mailadm reads mailadm's file" if variable == "MAILADM_DB" else "",
        )
    if missing and environ.get("MAIL_DOMAIN"):
        log.warning(
            "environment variable MAIL_DOMAIN is mailadm's and has no effect here: the table domain"
            " holds the domains, and each token names one (automx token add NAME --domain DOMAIN)"
        )
