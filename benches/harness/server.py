"""The server as a child process, and load on it."""

import json
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

from .place import RELEASE


class Server:
    """`penstock serve` with one model, on free ports, until closed. `log` takes its stderr."""

    def __init__(self, model: Path, threads: int, options: list = (), name: str = "minilm", log=subprocess.DEVNULL):
        self.model = name
        command = [RELEASE / "penstock", "serve", "--model", f"{name}={model}", "--threads", threads, *options]
        for port in ("grpc", "http", "metrics"):
            command += [f"--{port}-addr", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=log, text=True
        )
        for line in self.process.stdout:
            if line.startswith("ready "):
                addresses = dict(part.split("=", 1) for part in line.split()[1:])
                self.grpc, self.http = addresses["grpc"], addresses["http"]
                self.metrics = addresses["metrics"]
                return
        raise SystemExit(f"the server ended with {self.process.wait()} before it was ready")

    def targets(self) -> dict[str, str]:
        return {
            "kserve-grpc": f"kserve-grpc@{self.grpc}/{self.model}",
            "penstock-stream": f"penstock-stream@{self.grpc}/{self.model}",
            "tei-http": f"tei-http@{self.http}/{self.model}",
            "v2-http": f"v2-http@{self.http}/{self.model}",
        }

    def counter(self, name: str) -> float:
        """The sum of a series over its labels."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as page:
            text = page.read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)", text, re.MULTILINE))

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        if code != 0:
            raise SystemExit(f"the server ended with {code} after SIGTERM")


def load_command(target: str, model: Path | None, texts: Path, seconds: float, options: list) -> list[str]:
    """With the folder of a `model`, tokens are counted too."""
    command = [RELEASE / "load", "--target", f"server={target}", "--texts", texts, "--seconds", seconds]
    command += ["--json", "-", *(["--tokenizer", model] if model else []), *options]
    return [str(part) for part in command]


def load(target: str, model: Path, texts: Path, seconds: float, options: list) -> dict:
    """Figures of one burst."""
    command = load_command(target, model, texts, seconds, options)
    return loaded(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def loaded(said: str) -> dict:
    """The figures of a burst, as the load generator said them."""
    row = json.loads(said)["rows"][0]["median"]
    if row["errors"]:
        raise SystemExit(f"{row['errors']} requests failed, the first: {row['error']}")
    return row
