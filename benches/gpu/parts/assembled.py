"""The kernels' sources through this machine's own compiler, to machine code for the oldest and the newest GPU that they
were written for: the one that runs them here says nothing about another."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from harness import place

from ..kernel_tests import TOOLS
from ..part import Part, Skipped

TARGETS = ("sm_80", "sm_90")


def run(part: Part) -> None:
    places = [shutil.which("nvcc"), *(folder / "nvcc" for folder in TOOLS)]
    nvcc = next((str(path) for path in places if path and Path(path).exists()), None)
    # nvcc lets the host's compiler read the sources first.
    if not nvcc or not shutil.which("gcc"):
        raise Skipped("nvcc or gcc is not installed")

    def one(job: tuple[Path, str]) -> None:
        source, target = job
        command = [nvcc, "-std=c++17", "-O3", "-cubin", f"-arch={target}", source, "-o", part.work / f"{source.stem}.{target}"]
        done = subprocess.run([str(word) for word in command], check=False)
        part.check(f"{source.name} for {target}, exit code", done.returncode, "0", done.returncode == 0)

    jobs = list(product(sorted((place.ROOT / "kernels/cu").glob("*.cu")), TARGETS))
    if not jobs:
        raise SystemExit("no kernels' sources in the pack")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(one, jobs))
