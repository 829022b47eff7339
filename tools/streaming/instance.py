"""One `penstock serve` as a child process, and what can befall it."""

import http.client
import json
import os
import re
import signal
import subprocess
from pathlib import Path

from . import ROOT
from .broker import free_ports
from .topics import until

BINARY = Path(os.environ.get("PENSTOCK_BINARY", ROOT / "target/release/penstock"))
# An encoder with tiny random weights: the real line from end to end, at the speed that large runs need.
TINY = ROOT / "models/tests/families/bert"
STOP_TIMEOUT = 120.0
# Exit code of a server that can't continue and asks for a restart.
AGAIN = 75


def toml(value) -> str:
    """Strings, numbers, booleans, lists and inline tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def table(head: str, values: dict) -> str:
    return "\n".join([head, *(f"{key} = {toml(value)}" for key, value in values.items())]) + "\n"


class Instance:
    """A server of its own folder and ports, which outlive a process that is killed and started again."""

    def __init__(self, folder: Path, config: str, binary: Path = BINARY):
        folder.mkdir(parents=True, exist_ok=True)
        self.config, self.log, self.binary = folder / "penstock.toml", folder / "penstock.log", binary
        self.config.write_text(config)
        first = free_ports(3)
        self.grpc, self.http, self.metrics_address = (f"127.0.0.1:{port}" for port in range(first, first + 3))
        self.process: subprocess.Popen | None = None
        # Ends that nobody asked for: an instance that can't go on leaves it to who runs it to start it again.
        self.gave_up = 0

    def start(self) -> "Instance":
        command = [self.binary, "serve", "--config", self.config, "--log-format", "text"]
        for name, address in (("grpc", self.grpc), ("http", self.http), ("metrics", self.metrics_address)):
            command += [f"--{name}-addr", address]
        with self.log.open("a") as said:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=ROOT)
        return self

    def run(self, command: str) -> subprocess.CompletedProcess:
        """Another command on its configuration."""
        return subprocess.run([self.binary, command, self.config], capture_output=True, text=True, cwd=ROOT)

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def keep_up(self) -> None:
        """Acts as a supervisor: restarts a server that has asked for a restart."""
        if self.process is not None and not self.alive():
            if self.process.poll() != AGAIN:
                self.must_run()
            self.gave_up += 1
            self.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = None

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Its exit code after SIGTERM; 0 where it does not run."""
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def stay_away(self) -> int:
        """The exit code of one that has ended by itself and is not started again."""
        process, self.process = self.process, None
        return process.wait(STOP_TIMEOUT)

    def end(self) -> None:
        """Away with it, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def get(self, path: str, address: str = "") -> tuple[int, str]:
        """Status and body; 0 where nobody listens."""
        connection = http.client.HTTPConnection(address or self.http, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def is_live(self) -> bool:
        return self.get("/v2/health/live")[0] == 200

    def is_ready(self) -> bool:
        return self.get("/v2/health/ready")[0] == 200

    def wait_ready(self) -> "Instance":
        until(lambda: self.is_ready() or self.must_run(), f"readiness; the log is {self.log}")
        return self

    def wait_live(self) -> None:
        """Before it listens it has nothing to drain, and no handler for SIGTERM yet."""
        until(lambda: self.is_live() or self.must_run(), f"the server to listen; the log is {self.log}")

    def must_run(self) -> bool:
        if not self.alive():
            raise SystemExit(
                f"penstock ended with {self.process and self.process.poll()}; its log:\n{self.said()[-3000:]}"
            )
        return False

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def page(self) -> str:
        return self.get("/metrics", self.metrics_address)[1]

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of a series over the labels that are not named; nothing where it is not there."""
        found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", self.page(), re.MULTILINE)
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        values = [float(value) for text, value in found if all(one in text for one in wanted)]
        return sum(values) if values else None
