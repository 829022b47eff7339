"""The alerts of deploy/prometheus, judged by Prometheus' own promtool and held against the names that we publish."""

import re
import subprocess

import pytest

from conftest import ROOT
from test_metrics import PROMTOOL

RULES = ROOT / "deploy/prometheus/rules.yaml"
SCALER = ROOT / "deploy/keda/scaledobject.yaml"
NAMES = ROOT / "telemetry/src/metrics/names.rs"


@pytest.mark.parametrize(("what", "file"), [("check", RULES), ("test", RULES.with_name("rules_test.yaml"))])
def test_promtool_is_content_with_the_alerts(what, file):
    if not PROMTOOL.exists():
        pytest.skip("promtool is not at .cache/bin/promtool: tools/promtool fetches it")
    judged = subprocess.run([PROMTOOL, what, "rules", file], capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.parametrize("file", [RULES, SCALER], ids=["alerts", "scaler"])
def test_every_series_that_is_asked_for_is_published(file):
    queries = re.findall(r"^ +(?:expr|query):((?:.*\n)(?: {10,}.*\n)*)", file.read_text(), re.MULTILINE)
    asked = set(re.findall(r"\bpenstock_\w+", " ".join(queries)))
    published = set(re.findall(r'"(penstock_\w+)"', NAMES.read_text()))
    assert asked
    # A histogram is published under one name and read under three.
    assert {one for one in asked if not {one, re.sub(r"_(bucket|sum|count)$", "", one)} & published} == set()
