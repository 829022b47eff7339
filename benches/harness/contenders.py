"""Processes that measure on request, run in turn so that a slow minute of the machine meets all alike."""

import json
import os
import select
import statistics
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path


class Contender:
    """A process that answers a line of JSON, the burst that is wanted, with a line of JSON, the figures. One that says
    nothing for `patience` seconds is ended."""

    def __init__(self, command: list, environment: dict[str, str] | None = None, patience: float | None = None):
        self.patience = patience
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )
        self.about = self.read()
        self.version = self.about["ready"]

    def read(self) -> dict:
        # Whole: an answer is one line, and nothing is said unasked.
        if not select.select([self.process.stdout], [], [], self.patience)[0]:
            self.process.kill()
            raise SystemExit(f"{self.process.args[0]} said nothing for {self.patience} s")
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args[0]} ended with {self.process.wait()}")
        return json.loads(line)

    def burst(self, wanted: dict) -> dict:
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()
        answer = self.read()
        if "error" in answer:
            raise SystemExit(f"{self.process.args[0]}: {answer['error']}")
        return answer

    def close(self) -> None:
        # A contender that is gone has closed it.
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def interleave(bursts: dict, rounds: int) -> dict[str, list[dict]]:
    """Calls each of `bursts` once a round, another one first each time."""
    names = list(bursts)
    measured: dict[str, list[dict]] = {name: [] for name in names}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for step in range(len(names)):
            name = names[(number + step) % len(names)]
            measured[name].append(bursts[name]())
    return measured


def median(rounds: list[dict], figure: str) -> float:
    return statistics.median(one[figure] for one in rounds)


def ratio(above: list[dict], below: list[dict], figure: str) -> tuple[float, float, float]:
    """The median of the rounds' ratios, with the smallest and the largest."""
    ratios = [a[figure] / b[figure] for a, b in zip(above, below, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def forward(release: Path, model: Path, texts: Path, threads: int, dtype: str = "f32") -> Contender:
    """Penstock's bare forward."""
    command = [release / "forward", "--model", model, "--texts", texts, "--threads", threads, "--dtype", dtype]
    return Contender(command)


def runtime(python: Path, onnx: Path, model: Path, texts: Path, threads: int) -> Contender:
    """ONNX Runtime in process, on one graph."""
    command = [python, Path(__file__).parents[1] / "peers/ort.py", "--onnx", onnx]
    return Contender([*command, "--tokenizer", model / "tokenizer.json", "--texts", texts, "--threads", threads])


def fastest(contenders: dict[str, Contender], wanted: dict, figure: str, rounds: int = 3) -> tuple[str, dict]:
    """The fastest contender at `wanted`, and the median rate of each. The others are closed."""
    tried = interleave({name: partial(one.burst, wanted) for name, one in contenders.items()}, rounds)
    rates = {name: median(measured, figure) for name, measured in tried.items()}
    best = max(rates, key=rates.get)
    for name, one in contenders.items():
        if name != best:
            one.close()
    return best, rates
