"""Starts the server that the end-to-end tests talk to, and stops it."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("PENSTOCK_BINARY", ROOT / "target/release/penstock"))
SENTIMENT = Path(os.environ.get("PENSTOCK_SENTIMENT", ROOT / "models/sentiment"))
MINILM = Path(os.environ.get("PENSTOCK_MINILM", ROOT / ".cache/models/all-MiniLM-L6-v2"))
START_TIMEOUT = 120.0

sys.dont_write_bytecode = True
# Code that the tests of Kafka share with tools/kafka and tools/chaos.
sys.path.insert(0, str(ROOT / "tools"))


@dataclass
class Server:
    """A running server and where it listens."""

    process: subprocess.Popen
    log: Path
    grpc: str
    http: str
    metrics: str

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 60.0) -> int:
        return self.process.wait(timeout)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def start(folder: Path, config: str = "", models: dict[str, Path] | None = None) -> Server:
    """A server with `config` (TOML) on free ports, once it is ready."""
    models = {"sentiment": SENTIMENT, "minilm": MINILM} if models is None else models
    config_file, log = folder / "penstock.toml", folder / "penstock.log"
    config_file.write_text(config)
    command = [BINARY, "serve", "--config", config_file]
    for name in ("grpc", "http", "metrics"):
        command += [f"--{name}-addr", "127.0.0.1:0"]
    for name, path in models.items():
        command += ["--model", f"{name}={path}"]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT)
    line = first_line(process)
    ports = re.fullmatch(r"ready grpc=(\S+) http=(\S+) metrics=(\S+)\n", line)
    if not ports:
        process.kill()
        process.wait()
        pytest.fail(f"the server said {line!r} and not that it is ready; its log:\n{log.read_text()}")
    return Server(process, log, *ports.groups())


def first_line(process: subprocess.Popen) -> str:
    """Its first line; nothing where it ends or takes too long before."""
    import threading

    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.append(process.stdout.readline()), daemon=True)
    reader.start()
    reader.join(START_TIMEOUT)
    return lines[0] if lines else ""


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Server:
    """The server that tests share which change nothing about it."""
    running = start(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture
def launch(tmp_path):
    """Starts servers of a test's own: `launch(config, models)`."""
    running: list[Server] = []

    def launched(config: str = "", models: dict[str, Path] | None = None) -> Server:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        running.append(start(folder, config, models))
        return running[-1]

    yield launched
    for one in running:
        one.stop()


def eventually(holds, what: str, timeout: float = 20.0):
    """Waits until `holds()` is true and returns what it returned; fails with `what` where it never is."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if result := holds():
            return result
        time.sleep(0.02)
    pytest.fail(f"after {timeout} s still not: {what}")
