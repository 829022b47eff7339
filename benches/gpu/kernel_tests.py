"""The kernels' own tests against the f32 reference: the test binary that was packed, alone or under a checker."""

import re
import shutil
import subprocess
from pathlib import Path

from harness import place

from .part import Part, Skipped

BINARY = place.RELEASE / "gpu-kernel-tests"
# Where CUDA lies when its tools are not on the PATH.
TOOLS = (Path("/usr/local/cuda/bin"), Path("/usr/local/cuda/compute-sanitizer"))


def test(part: Part) -> None:
    tests(part, [])


def sanitize(part: Part, tool: str) -> None:
    found = shutil.which("compute-sanitizer") or next((str(t / "compute-sanitizer") for t in TOOLS if (t / "compute-sanitizer").exists()), None)
    if not found:
        raise Skipped("compute-sanitizer is not installed")
    tests(part, [found, "--tool", tool, "--error-exitcode", "86", "--print-limit", "10"])


def tests(part: Part, before: list[str]) -> None:
    if not BINARY.exists():
        raise SystemExit("the kernel tests are not in the pack")
    command = [*before, str(BINARY), "--test-threads", "1", "--nocapture"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    counts = re.search(r"test result: \w+\. (\d+) passed; (\d+) failed", done.stdout)
    passed, failed = (int(count) for count in counts.groups()) if counts else (0, 0)
    # Here there is a GPU, so a test that skips itself has not seen it.
    skipped = len(re.findall(r"(?im)^.*\bskipped\b", done.stdout))
    part.save(passed=passed, failed=failed, skipped=skipped, command=" ".join([*map(portable, before), "gpu-kernel-tests"]))
    summary = [line.strip("= ") for line in done.stdout.splitlines() if "ERROR SUMMARY" in line or "RACECHECK SUMMARY" in line]
    part.save(summary=summary[-1] if summary else "")
    part.check("tests that failed", failed, "0", failed == 0 and done.returncode == 0)
    part.check("tests that passed", passed, "at least 1", passed > 0)
    part.check("tests that skipped themselves", skipped, "0", skipped == 0)


def portable(word: str) -> str:
    return Path(word).name
