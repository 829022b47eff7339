"""What there is of CUDA on this machine, asked without any package."""

import ctypes
import glob
import os
import sys
from pathlib import Path

LIBRARY = "libcublasLt.so.13"
# Where a toolkit puts it, then where PyTorch's packages do.
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


def environment(work: Path) -> dict[str, str]:
    """This process's, in which the linker finds cuBLASLt: PyTorch brings one that only PyTorch looks for."""
    if loads(LIBRARY):
        return dict(os.environ)
    found = next(iter(candidates()), None)
    if not found:
        # The programs say themselves what is missing.
        return dict(os.environ)
    folder = work / "lib"
    folder.mkdir(exist_ok=True)
    # By the name without a version, which is asked for first, and which another CUDA may have too.
    for name in (LIBRARY, "libcublasLt.so"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(found)
    print(f"{LIBRARY} is not on the linker's path: {found} is used", flush=True)
    path = os.environ.get("LD_LIBRARY_PATH")
    return {**os.environ, "LD_LIBRARY_PATH": f"{folder}:{path}" if path else str(folder)}


def candidates() -> list[str]:
    """Every file of that name where one may lie."""
    folders = [*TOOLKITS, *(os.path.join(place, package) for place in sys.path if place for package in PACKAGES)]
    return [path for folder in folders for path in sorted(glob.glob(os.path.join(folder, LIBRARY)))]


def loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
