"""The kernels' own tests against the f32 reference: the test binary that was packed, alone or under a checker."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from harness import place

from .part import Part, Skipped

TEST = re.compile(r"test (\w+) \.\.\.")
BINARY = place.RELEASE / "gpu-kernel-tests"
# Folder of CUDA when its tools are not on the PATH.
TOOLS = (Path("/usr/local/cuda/bin"), Path("/usr/local/cuda/compute-sanitizer"))
# The first test reads a forbidden address, which a checker reports; the other takes a minute of a run that has nine.
UNCHECKED = ["--skip", "gpu_that_is_lost", "--skip", "8192"]
CHECKER = ["--error-exitcode", "86", "--print-limit", "10"]
# Beginnings of our kernels' names.
OURS = ("attention", "embedding", "layer_norm", "pool", "gelu", "relu", "tanh")
OPTIONS = {
    # The tests look at the result of each call of the driver. Libraries ask for optional things, and a checker that
    # counts this finds errors in any program.
    "memcheck": ["--report-api-errors", "no"],
    # Our kernels alone: synchronisation inside NVIDIA's kernels is not ours to judge, and takes minutes.
    "racecheck": [word for name in OURS for word in ("--kernel-name", f"kns={name}_")],
}


def test(part: Part) -> None:
    tests(part, [], [])


def sanitize(part: Part, tool: str) -> None:
    places = [shutil.which("compute-sanitizer"), *(folder / "compute-sanitizer" for folder in TOOLS)]
    found = next((str(path) for path in places if path and Path(path).exists()), None)
    if not found:
        raise Skipped("compute-sanitizer is not installed")
    tests(part, [found, "--tool", tool, *CHECKER, *OPTIONS[tool]], UNCHECKED)


def tests(part: Part, before: list[str], options: list[str]) -> None:
    if not BINARY.exists():
        raise SystemExit("the kernel tests are not in the pack")
    command = [*before, str(BINARY), "--test-threads", "1", "--nocapture", *options]
    part.save(command=" ".join([*(Path(word).name for word in before), BINARY.name]))
    # Else a test that finds no GPU skips itself.
    environment = {**os.environ, "PENSTOCK_NEEDS_GPU": "1"}
    said = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as running:
        # Not line by line: a test is named when it begins, and its line ends when it does.
        while some := running.stdout.read1():
            said += some.decode(errors="replace")
            print(some.decode(errors="replace"), end="", flush=True)
            # Kept as it goes: the time may run out, and the last one named is the one that took it.
            part.save(begun=TEST.findall(said))
    verdict(part, said, running.returncode)


def verdict(part: Part, said: str, code: int) -> None:
    counts = re.search(r"test result: \w+\. (\d+) passed; (\d+) failed", said)
    passed, failed = (int(count) for count in counts.groups()) if counts else (0, 0)
    skipped = len(re.findall(r"(?i)\bskipped\b", said))
    summary = [line.strip("= ") for line in said.splitlines() if " SUMMARY: " in line]
    part.save(passed=passed, failed=failed, skipped=skipped, summary=summary[-1] if summary else "")
    part.check("exit code", code, "0", code == 0)
    part.check("tests that failed", failed, "0", failed == 0)
    part.check("tests that passed", passed, "at least 1", passed > 0)
    part.check("tests that skipped themselves", skipped, "0", skipped == 0)
