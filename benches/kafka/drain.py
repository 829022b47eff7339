"""Consumers of a backlog, started for each burst, and the burst: from one commit to another, some seconds later."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness import place
from harness.server import load_command, loaded
from streaming import broker
from streaming.instance import Instance, table

from .backlog import Backlog, Progress, cpu_seconds

MODEL = "model"
# After the first commit: the client has fetched ahead, and the bounds have found the model's speed.
WARM = 1.5


@dataclass
class Drainer:
    """A server that serves a model; with a route, or with a consumer of its own before it."""

    folder: Path
    cluster: broker.Cluster
    model: Path
    threads: int
    delivery: str = "exactly-once"
    binary: str = "penstock"
    batching: dict = field(default_factory=dict)
    route: dict = field(default_factory=dict)
    consumer: bool = False

    def config(self, backlog: Backlog, group: str) -> str:
        parts = [table("[server]", {"threads": self.threads, "instance": "bench"})]
        parts.append(table("[[model]]", {"name": MODEL, "path": str(self.model)}))
        if self.batching:
            parts.append(table("[model.batching]", self.batching))
        route = {
            "name": "route",
            "brokers": self.cluster.bootstrap(),
            "group": group,
            "input": [backlog.name],
            "output": f"{backlog.name}-out",
            "dead_letter": f"{backlog.name}-dead",
            "model": MODEL,
            "field": "text",
            "delivery": self.delivery,
        }
        if not self.consumer:
            parts.append(table("[[kafka]]", route | self.route))
        return "\n".join(parts)

    @contextlib.contextmanager
    def running(self, backlog: Backlog, group: str) -> Iterator[tuple[Instance, dict[str, int]]]:
        """The server, and the processes whose time counts."""
        instance = Instance(self.folder / group, self.config(backlog, group), place.RELEASE / self.binary)
        try:
            instance.start().wait_ready()
            processes = {"server": instance.process.pid, "broker": self.cluster.pid(1)}
            with self.consuming(backlog, group, instance) as consumer:
                yield instance, processes | ({"consumer": consumer.pid} if consumer else {})
            if code := instance.stop():
                raise SystemExit(f"the server ended with {code} after SIGTERM; its log is {instance.log}")
        finally:
            instance.end()

    @contextlib.contextmanager
    def consuming(self, backlog: Backlog, group: str, instance: Instance) -> Iterator[subprocess.Popen | None]:
        if not self.consumer:
            yield None
            return
        command = [sys.executable, Path(__file__).with_name("consumer.py"), "--brokers", self.cluster.bootstrap()]
        command += ["--group", group, "--input", backlog.name, "--output", f"{backlog.name}-out"]
        process = subprocess.Popen([*command, "--grpc", instance.grpc, "--model", MODEL])
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def burst(who: Drainer, backlog: Backlog, seconds: float, texts: Path | None = None, rate: float = 0.0) -> dict:
    """Rate at which `who` drains; where a rate is given, beside so many interactive requests a second."""
    group = backlog.group()
    with who.running(backlog, group) as (instance, processes):
        progress = Progress(backlog, group)
        progress.edge()
        time.sleep(WARM)
        if not rate:
            return measure(progress, backlog, processes, seconds)
        requests = subprocess.Popen(interactive(instance, texts, seconds, rate), stdout=subprocess.PIPE, text=True)
        # The load's own first second warms it up.
        time.sleep(1.0)
        measured = measure(progress, backlog, processes, seconds)
        said, _ = requests.communicate()
        return measured | latency(loaded(said))


def idle(who: Drainer, backlog: Backlog, seconds: float, texts: Path, rate: float) -> dict:
    """The interactive requests alone: the route has nothing to read."""
    with who.running(backlog, backlog.group()) as (instance, _):
        time.sleep(WARM)
        command = interactive(instance, texts, seconds, rate)
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        return latency(loaded(said))


def measure(progress: Progress, backlog: Backlog, processes: dict[str, int], seconds: float) -> dict:
    began, first = progress.edge()
    before = {name: cpu_seconds(pid) for name, pid in processes.items()}
    time.sleep(seconds)
    ended, last = progress.edge()
    took = ended - began
    cores = {f"{name}_cores": (cpu_seconds(pid) - before[name]) / took for name, pid in processes.items()}
    progress.close()
    if sum(last) >= backlog.count:
        raise SystemExit(f"{backlog.name} was drained within {took:.1f} s; it holds too little")
    records, tokens = sum(last) - sum(first), backlog.tokens_between(first, last)
    return cores | {"seconds": took, "records_per_second": records / took, "tokens_per_second": tokens / took}


def interactive(instance: Instance, texts: Path, seconds: float, rate: float) -> list[str]:
    target = f"kserve-grpc@{instance.grpc}/{MODEL}"
    return load_command(target, None, texts, seconds, ["--rate", rate])


def latency(row: dict) -> dict:
    return {figure: row[figure] for figure in ("p50_ms", "p99_ms", "requests_per_second")}
