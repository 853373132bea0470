"""The dashboard and the alert rules in contrib/grafana, and the metrics that they ask for."""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from automx.counts import METRICS
from tests.processes import REPOSITORY

RULES = REPOSITORY / "contrib" / "grafana" / "automx-alerts.yml"
DASHBOARD = REPOSITORY / "contrib" / "grafana" / "automx-dashboard.json"

# Labels that Prometheus adds, and that of the buckets of a histogram.
_ALWAYS = {"instance", "job", "le"}


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def expressions() -> Iterator[str]:
    """Yield all expressions in PromQL of the rules and of the dashboard."""
    yield from (rule["expr"] for rule in rules())
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    yield from (each["query"]["query"] for each in dashboard["templating"]["list"][1:])


def metrics_of(expression: str) -> set[str]:
    """Return the names of automx's metrics in an expression, as ``# TYPE`` has them."""
    names = set(re.findall(r"\bautomx_\w+", expression))
    return {re.sub("_(bucket|sum|count)$", "", name) for name in names}


def labels_of(expression: str) -> set[str]:
    """Return the names of labels in an expression, without those of Prometheus."""
    selectors = " ".join(re.findall(r"\{([^}]*)\}", expression))
    lists = ",".join(re.findall(r"\bby \(([^)]*)\)", expression))
    found = {*re.findall(r"(\w+)[=!]", selectors), *re.findall(r"\w+", lists)}
    return found - _ALWAYS


def unknown_labels(expression: str) -> set[str]:
    """Return the labels of an expression that a metric of it lacks."""
    labels = labels_of(expression)
    return {label for name in metrics_of(expression) for label in labels - {*METRICS[name].labels}}
