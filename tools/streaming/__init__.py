"""Shared code of tools/kafka, tools/chaos and the end-to-end tests of Kafka: brokers, records, verification."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache/kafka"
REQUIREMENTS = ROOT / "server/tests/python/requirements.txt"
PYTHON = ROOT / ".cache/venv/bin/python"

sys.dont_write_bytecode = True


def enter_environment() -> None:
    """Goes on in the environment that the end-to-end tests have, unless this one has its packages already."""
    if importlib.util.find_spec("confluent_kafka"):
        return
    subprocess.run([ROOT / "tools/need", "python3"], check=True)
    subprocess.run([ROOT / "tools/venv", REQUIREMENTS.relative_to(ROOT)], check=True)
    if Path(sys.prefix) == PYTHON.parents[1]:
        raise SystemExit(f"confluent-kafka cannot be imported, although {REQUIREMENTS.relative_to(ROOT)} names it")
    os.execv(PYTHON, [PYTHON, *sys.argv])
