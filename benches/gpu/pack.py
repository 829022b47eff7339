"""One file for a machine with no network and no cargo: the stripped programs, this suite, the workload."""

import argparse
import datetime
import hashlib
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from harness import place, results

from . import plan, workload

PROGRAMS = ("penstock", "forward", "load")
# The test target of kernels/ that needs a GPU, and its name in the pack.
KERNEL_TESTS = "cuda"
PACKED_TESTS = "gpu-kernel-tests"
SOURCES = ("tools/gpu-check", "benches/harness", "benches/gpu", "models/sentiment/tokenizer.json", "models/sentiment/tokenizer_config.json")
SOURCES += ("models/sentiment/config.json", "kernels/cu")
# Kinds of files taken from a folder.
KINDS = (".py", ".cu", ".cuh")
# Jumps in x86 code are made absolute first: about a tenth smaller.
LZMA_FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
QUICK_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 0}]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=place.CACHE / "gpu-check/penstock-gpu-check.tar.xz")
    parser.add_argument("--no-build", action="store_true", help="pack the existing build")
    parser.add_argument("--quick", action="store_true", help="hardly compressed: for trying the suite out on this machine")


def main(arguments: argparse.Namespace) -> int:
    if not arguments.no_build:
        build()
    tests = kernel_tests()
    if tests is None:
        print(f"no test target `{KERNEL_TESTS}` of kernels/ is built: the pack goes without the kernels' tests", flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    packed = archive(tests)
    filters = QUICK_FILTERS if arguments.quick else LZMA_FILTERS
    arguments.out.write_bytes(lzma.compress(packed, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=filters))
    size = arguments.out.stat().st_size
    print(f"{arguments.out}: {size / 1e6:.1f} MB, {len(packed) / 1e6:.1f} MB unpacked")
    if size > plan.PACK_BYTES_MAX:
        raise SystemExit(f"the pack is larger than {plan.PACK_BYTES_MAX / 1e6:.0f} MB")
    return 0


def build() -> None:
    place.build()
    command = ["cargo", "test", "--release", "--quiet", "-p", "penstock-kernels", "--no-run", "--test", KERNEL_TESTS]
    if (place.ROOT / f"kernels/tests/{KERNEL_TESTS}.rs").exists():
        subprocess.run(command, check=True, cwd=place.ROOT)


def kernel_tests() -> Path | None:
    """The newest build of the test target."""
    built = [p for p in (place.RELEASE / "deps").glob(f"{KERNEL_TESTS}-*") if not p.suffix and os.access(p, os.X_OK)]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


def archive(tests: Path | None) -> bytes:
    """A tar with the tree's own layout, so that the suite finds everything where it is found at home."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar, tempfile.TemporaryDirectory() as folder:
        programs = {name: place.RELEASE / name for name in PROGRAMS} | ({PACKED_TESTS: tests} if tests else {})
        # Folder in which the tools look where no CARGO_TARGET_DIR is set.
        for name, path in programs.items():
            add(tar, f"target/release/{name}", stripped(path, Path(folder) / name), 0o755)
        for source in SOURCES:
            path = place.ROOT / source
            for file in sorted(file for file in path.rglob("*") if file.suffix in KINDS) if path.is_dir() else [path]:
                add(tar, str(file.relative_to(place.ROOT)), file.read_bytes(), 0o755 if os.access(file, os.X_OK) else 0o644)
        add(tar, str(workload.MIXED.relative_to(place.ROOT)), workload.generate(), 0o644)
        add(tar, "manifest.json", json.dumps(manifest(programs), indent=1).encode(), 0o644)
    return whole.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def stripped(path: Path, to: Path) -> bytes:
    """Without symbols, where binutils are installed."""
    if not path.exists():
        raise SystemExit(f"{path} is not built; without --no-build it would be")
    if shutil.which("strip"):
        subprocess.run(["strip", "-o", to, path], check=True)
        return to.read_bytes()
    print(f"no `strip`: {path.name} is packed with its symbols", flush=True)
    return path.read_bytes()


def manifest(programs: dict[str, Path]) -> dict:
    """Name of the build."""
    return {
        "built": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": results.said(["git", "rev-parse", "--short=12", "HEAD"]) + ("" if results.clean() else ", with changes"),
        "rustc": results.said(["rustc", "--version"]),
        "programs": {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in programs.items()},
    }
