"""CUDA on this machine, found without any package."""

import ctypes
import glob
import os
import re
import sys
from pathlib import Path

LIBRARY = "libcublasLt.so.13"
# Folder of a toolkit, then of PyTorch's packages.
TOOLKITS = ("/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/x86_64-linux/lib")
PACKAGES = ("nvidia/*/lib", "torch/lib")


def no_gpu() -> str:
    """Why there is no GPU; empty where there is one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return str(error)
    count = ctypes.c_int()
    if code := driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"the driver answers with error {code}"
    return "" if count.value else "the driver sees none"


def short_name() -> str:
    """The first GPU's, fit for a file: `h200` of `NVIDIA H200`."""
    name, device = ctypes.create_string_buffer(100), ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "none"
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetName(name, 100, device):
        return "unknown"
    return slug(name.value.decode(errors="replace"))


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("nvidia", "")).strip("-")


def environment(work: Path) -> dict[str, str]:
    """This process's environment, in which the linker finds cuBLASLt. PyTorch brings one that only PyTorch looks for, and an
    interpreter may have a path of its own, which no program has that it starts."""
    found = loaded(LIBRARY) or next(iter(candidates()), None)
    if not found:
        # The programs themselves name what is missing.
        return dict(os.environ)
    folder = work / "lib"
    folder.mkdir(exist_ok=True)
    # By the name without a version, which is asked for first, and which another CUDA may have too.
    for name in (LIBRARY, "libcublasLt.so"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(found)
    print(f"cuBLASLt: {found}", flush=True)
    # The libraries beside it too, should it look for them.
    path = [str(folder), str(Path(found).parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(path)}


def candidates() -> list[str]:
    """Every file of that name where one may lie."""
    folders = [*TOOLKITS, *(os.path.join(place, package) for place in sys.path if place for package in PACKAGES)]
    return [path for folder in folders for path in sorted(glob.glob(os.path.join(folder, LIBRARY)))]


def loaded(name: str) -> str:
    """The file that the linker takes by itself; empty where there is none."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return ""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    # The last of six columns, which a mapping without a file has not.
    files = [columns[5] for columns in (line.split(maxsplit=5) for line in maps) if len(columns) == 6]
    return next((file for file in files if Path(file).name.startswith(name)), "")
