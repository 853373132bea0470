"""Alert rules and dashboard: Prometheus accepts them, they fire, and they ask for what there is."""

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from automx.counts import METRICS
from tests.alerts import DASHBOARD, RULES, expressions, metrics_of, rules, unknown_labels
from tests.processes import REPOSITORY, program

EXPRESSIONS = sorted(set(expressions()))

# Series of a minute each, in the notation of promtool: "0+5x10" grows by 5 ten times.
HEALTHY = {
    'up{job="automx"}': "1x75",
    "automx_workers": "2x75",
    "automx_workers_ended_total": "1x75",
    "automx_worker_memory_bytes": "150e6x75",
    'automx_requests_total{status="200"}': "0+6000x75",
    'automx_requests_total{status="503"}': "0+1x75",
    'automx_request_seconds_bucket{protocol="pacc",le="0.1"}': "0+6000x75",
    'automx_request_seconds_bucket{protocol="pacc",le="2.5"}': "0+6001x75",
    'automx_request_seconds_bucket{protocol="pacc",le="+Inf"}': "0+6001x75",
    "automx_database_away": "0x75",
    "automx_database_turns": "3x75",
    "automx_replica_away": "0x75",
    "automx_replica_changes_missing": "0x75",
    "automx_changes_read_seconds": "1x75",
    "automx_statistics_timestamp_seconds": "0+60x75",
    'automx_directory_lookups_total{directory="1",result="found"}': "0+600x75",
    'automx_directory_lookups_total{directory="1",result="failed"}': "0+1x75",
    'automx_directory_seconds_total{directory="1"}': "0+6x75",
    'automx_backend_calls_total{backend="mailcow",result="ok"}': "0+6x75",
    'automx_backend_calls_total{backend="mailcow",result="failed"}': "1x75",
    "automx_rate_limit_storage_away": "0x75",
    'automx_limited_total{scope="client"}': "0+1x75",
    'automx_source_failed{source="mail"}': "0x75",
    'automx_source_read_timestamp_seconds{source="mail"}': "0+60x75",
    'automx_source_problems{source="mail"}': "0x75",
    "automx_accounts_overdue": "0x75",
    "automx_prune_timestamp_seconds": "0+60x75",
    "automx_prune_failed": "0x75",
    'automx_token_uses_left{token="fair"}': "40x75",
    "automx_certificate_end_timestamp_seconds": "4e6x75",
}
# What is not healthy, by the alert that tells it.
FIRING = {
    "AutomxDown": ('up{job="automx"}', "0x75"),
    "AutomxWithoutWorkers": ("automx_workers", "0x75"),
    "AutomxWorkersEnd": ("automx_workers_ended_total", "0+1x75"),
    "AutomxMemory": ("automx_worker_memory_bytes", "900e6x75"),
    "AutomxErrors": ('automx_requests_total{status="503"}', "0+600x75"),
    "AutomxSlow": ('automx_request_seconds_bucket{protocol="pacc",le="0.1"}', "0+60x75"),
    "AutomxDatabaseAway": ("automx_database_away", "1x75"),
    "AutomxDatabaseBusy": ("automx_database_turns", "32x75"),
    "AutomxReplicaAway": ("automx_replica_away", "1x75"),
    "AutomxReplicaBehind": ("automx_replica_changes_missing", "2x75"),
    "AutomxChangesNotRead": ("automx_changes_read_seconds", "300x75"),
    "AutomxStatisticsOld": ("automx_statistics_timestamp_seconds", "0x75"),
    "AutomxDirectoryFails": (
        'automx_directory_lookups_total{directory="1",result="failed"}', "0+600x75",
    ),
    "AutomxDirectorySlow": ('automx_directory_seconds_total{directory="1"}', "0+600x75"),
    "AutomxBackendFails": (
        'automx_backend_calls_total{backend="mailcow",result="failed"}', "0+6x75",
    ),
    "AutomxRateLimitStorageAway": ("automx_rate_limit_storage_away", "2x75"),
    "AutomxManyRefused": ('automx_limited_total{scope="client"}', "0+600x75"),
    "AutomxSourceFails": ('automx_source_failed{source="mail"}', "1x75"),
    "AutomxSourceOld": ('automx_source_read_timestamp_seconds{source="mail"}', "-90000x75"),
    "AutomxSourceProblems": ('automx_source_problems{source="mail"}', "3x75"),
    "AutomxPruneMissing": ("automx_prune_timestamp_seconds", "-9000x75"),
    "AutomxPruneFails": ("automx_prune_failed", "1x75"),
    "AutomxTokenUsedUp": ('automx_token_uses_left{token="fair"}', "2x75"),
    "AutomxCertificateEnds": ("automx_certificate_end_timestamp_seconds", "1e6x75"),
}  # fmt: skip


def fires(series: dict[str, str], alerts: Iterable[str]) -> dict[str, Any]:
    """Return a test of promtool: after 75 minutes of some series, these alerts fire alone."""
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(alerts)]
    return {
        "interval": "1m",
        "input_series": [
            {"series": name if "{" in name else f"{name}{{}}", "values": values}
            for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "75m",
                "exp_samples": samples,
            }
        ],
    }


def test_each_alert_fires_alone_and_none_while_all_is_well(tmp_path: Path) -> None:
    assert {*FIRING} == {rule["alert"] for rule in rules()}
    tests = [fires(HEALTHY, [])]
    tests += [fires(HEALTHY | {name: values}, [alert]) for alert, (name, values) in FIRING.items()]
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": tests}))
    promtool = program("promtool", "prometheus")
    for arguments in (["check", "rules", str(RULES)], ["test", "rules", str(file)]):
        result = subprocess.run(
            [promtool, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_metrics_and_labels_that_there_are(expression: str) -> None:
    names = metrics_of(expression)
    assert names <= {*METRICS}
    assert names or expression.startswith("up{")
    assert unknown_labels(expression) == set()


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for each in EXPRESSIONS for name in metrics_of(each)}
    assert {*METRICS} - shown == set()


def test_panels_have_ids_of_their_own_and_a_place() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {
        (column, line)
        for panel in panels
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for line in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    }
    areas = [panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in panels]
    assert len(places) == sum(areas)
    assert max(column for column, _ in places) < 24


def test_the_page_says_of_each_alert_what_to_do() -> None:
    text = (REPOSITORY / "docs" / "monitoring.md").read_text()
    rows = re.findall(r"^\| `(Automx\w+)` \| (.+?) \| (.+) \|$", text, re.MULTILINE)
    assert [name for name, _, _ in rows] == [rule["alert"] for rule in rules()]
    levels = [level for _, level, _ in rows]
    assert levels == [rule["labels"]["severity"] for rule in rules()]
    assert all(len(what) > 30 for _, _, what in rows)
