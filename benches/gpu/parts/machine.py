"""Facts needed for comparing figures with those of another run."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess

from harness import place, results

from ..part import Part

PACKAGES = ("torch", "transformers", "tokenizers")
GPU_FIELDS = "name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit"


def run(part: Part) -> None:
    part.save(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cpu=results.cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        load_before=os.getloadavg()[0],
        python=platform.python_version(),
    )
    part.save(**{name: version(name) for name in PACKAGES})
    part.save(nvcc=last_line(["nvcc", "--version"]))
    if not part.dry:
        part.save(gpu=last_line(["nvidia-smi", f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader"]))
    manifest = place.ROOT / "manifest.json"
    built = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {"built": "in place, not packed"}
    part.save(**built)


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def last_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"absent ({type(error).__name__})"
    return (done.stdout.strip().splitlines() or ["said nothing"])[-1]
