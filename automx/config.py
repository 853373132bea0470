"""Settings: defaults, then one INI file, then the environment.

The first file found is read: ``$AUTOMX_CONF``, ``~/.automx.conf``, ``/etc/automx/automx.conf``,
``/etc/automx.conf`` with the section ``[automx]``; else automx2's ``$AUTOMX2_CONF``,
``~/.automx2.conf``, ``/etc/automx2/automx2.conf``, ``/etc/automx2.conf`` with ``[automx2]``.
Every key can be overridden by ``AUTOMX_<KEY>`` in the environment; a secret can also stand in a
file of its own, named by ``<key>_file``.
"""

import os
import re
from collections.abc import Callable, Mapping
from configparser import BasicInterpolation, ConfigParser
from configparser import Error as IniError
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from automx.errors import SettingsError

# automx2's variable and the value that its documentation asks for.
CLEARTEXT_VARIABLE = "PERMIT_CLEARTEXT_PASSWORDS"
CLEARTEXT_CONSENT = "I_understand_the_risks"

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# Kubernetes gives every container such variables for a service that is called "automx".
_SERVICE_LINK = re.compile(r"AUTOMX_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")


def _bool(text: str) -> bool:
    return {"1": True, "yes": True, "true": True, "on": True} | {
        "0": False, "no": False, "false": False, "off": False,
    }  # fmt: skip
