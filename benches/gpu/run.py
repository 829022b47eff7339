"""Runs the parts, each a process with its own time limit, and writes the results after every one of them."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
from pathlib import Path

from harness import place

from . import cuda, plan, report
from .part import has_torch, read

PROGRAM = place.ROOT / "tools" / "gpu-check"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pack", type=Path, help="file that `pack` wrote; without it, the build of this tree")
    parser.add_argument("--dry-run", action="store_true", help="the same on the CPU in seconds: it measures nothing")
    parser.add_argument("--no-torch", action="store_true", help="as if torch were not installed")
    parser.add_argument("--results", type=Path, help="the folder for the results; default: benches/results, of a dry run .cache/gpu-check/dry")
    parser.add_argument("--only", help="parts with commas between them; the parts that they need run too")
    parser.add_argument("--budget", type=float, default=plan.BUDGET, help="seconds of the whole run")


def main(arguments: argparse.Namespace) -> int:
    if arguments.results is None:
        arguments.results = place.CACHE / "gpu-check/dry" if arguments.dry_run else place.RESULTS
    if arguments.pack:
        return unpacked(arguments)
    if not arguments.dry_run and (reason := cuda.no_gpu()):
        raise SystemExit(f"no GPU: {reason}; --dry-run tries the parts out on the CPU")
    # A run that is ended from outside still writes its figures.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        run = Run(Path(folder), arguments)
        try:
            run.all()
        finally:
            run.end()
            report.write(run.stem, run.work, run.outcomes, arguments.dry_run)
            print(run.stem.with_suffix(".md").read_text(encoding="utf-8"))
            print(f"written: {run.stem}.md and .json")
    failed = [name for name, outcome in run.outcomes.items() if outcome["status"] == "failed"]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def unpacked(arguments: argparse.Namespace) -> int:
    """Runs the pack's own copy of this program, so that code and binaries are of one commit."""
    with tempfile.TemporaryDirectory(prefix="gpu-check-pack-") as folder:
        with tarfile.open(arguments.pack) as pack:
            pack.extractall(folder, filter="data")
        tree = Path(folder)
        trained = place.ROOT / "models/sentiment/model.safetensors"
        if trained.exists():
            # Too large for the pack; where this tree has the trained model, it is compared too.
            (tree / "models/sentiment/model.safetensors").symlink_to(trained)
        command = [sys.executable, tree / "tools/gpu-check", "run", "--results", arguments.results.resolve()]
        command += ["--budget", arguments.budget]
        command += ["--dry-run"] * arguments.dry_run + ["--no-torch"] * arguments.no_torch
        command += ["--only", arguments.only] if arguments.only else []
        environment = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}
        return subprocess.run([str(word) for word in command], env=environment, check=False).returncode


class Run:
    """The parts of one run and how each ended."""

    def __init__(self, work: Path, arguments: argparse.Namespace):
        self.work = work
        self.arguments = arguments
        self.until = time.monotonic() + arguments.budget - plan.RESERVE
        self.outcomes: dict[str, dict] = {}
        self.stem = report.stem(arguments.results, arguments.dry_run)
        self.ended = {step.name: threading.Event() for step in plan.STEPS}
        self.children: set[subprocess.Popen] = set()
        self.environment = cuda.environment(work)
        self.lock = threading.Lock()
        (work / "settings.json").write_text(json.dumps({"dry": arguments.dry_run, "torch": has_torch() and not arguments.no_torch}))

    def all(self) -> None:
        """The lanes side by side, then the timed parts with the machine to themselves."""
        steps = wanted(self.arguments.only)
        lanes = {step.lane: [other for other in steps if other.lane == step.lane] for step in steps}
        timed = lanes.pop("", [])
        beside = [threading.Thread(target=self.some, args=(lane,), daemon=True) for lane in lanes.values()]
        for thread in beside:
            thread.start()
        for thread in beside:
            thread.join()
        self.some(timed)

    def some(self, steps: list[plan.Step]) -> None:
        names = {step.name for step in wanted(self.arguments.only)}
        for step in steps:
            for need in step.needs:
                if need in names:
                    self.ended[need].wait(max(0.0, self.until - time.monotonic()))
            self.one(step)

    def one(self, step: plan.Step) -> None:
        start = time.monotonic()
        limit = min(step.limit, self.until - start)
        if limit < 1:
            outcome = {"status": "skipped", "reason": "no time was left", "seconds": 0.0}
        else:
            code = self.child(step.name, limit)
            found = read(self.work, step.name)
            outcome = {"status": found["status"], "reason": found["reason"], "seconds": time.monotonic() - start}
            if code is None:
                # A limit shortened by earlier parts is no fault of this part.
                status, why = ("failed", "") if limit == step.limit else ("skipped", "no time was left: ")
                outcome |= {"status": status, "reason": f"{why}cut off after {limit:.0f} s; measured figures are kept"}
            elif found["status"] in ("", "running"):
                outcome |= {"status": "failed", "reason": f"ended with {code}: {last_words(self.log(step.name))}"}
        with self.lock:
            self.outcomes[step.name] = outcome
            self.ended[step.name].set()
            print(f"{step.name}: {outcome['status']} in {outcome['seconds']:.1f} s {outcome['reason']}".rstrip(), flush=True)
            self.keep(step.name)

    def keep(self, name: str) -> None:
        """Writes the figures so far. A page that cannot be written ends nothing: the next part writes it anew."""
        try:
            report.write(self.stem, self.work, self.outcomes, self.arguments.dry_run)
        except Exception:  # noqa: BLE001: a half measured part may break a table in any way
            traceback.print_exc()
        with open(self.stem.with_suffix(".log"), "ab" if len(self.outcomes) > 1 else "wb") as logs:
            logs.write(f"==== {name}\n".encode() + (self.log(name).read_bytes() if self.log(name).exists() else b""))

    def log(self, name: str) -> Path:
        return self.work / f"{name}.log"

    def child(self, name: str, limit: float) -> int | None:
        """The exit code of the part, or None where its time ran out."""
        command = [sys.executable, PROGRAM, "part", name, "--work", self.work]
        with open(self.log(name), "wb") as log:
            process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, env=self.environment)
            self.children.add(process)
            try:
                return process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                return None
            finally:
                # With all that the part has started: a server left behind would keep the GPU.
                end(process)
                self.children.discard(process)

    def end(self) -> None:
        for process in list(self.children):
            end(process)


def end(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def wanted(only: str | None) -> list[plan.Step]:
    """The parts asked for and, through all steps between, the parts that they need."""
    if not only:
        return plan.STEPS
    names, known = set(only.split(",")), {step.name: step for step in plan.STEPS}
    if strange := names - set(known):
        raise SystemExit(f"no such part: {', '.join(sorted(strange))}; there are {', '.join(known)}")
    for step in reversed(plan.STEPS):
        names |= set(step.needs) if step.name in names else set()
    return [step for step in plan.STEPS if step.name in names]


