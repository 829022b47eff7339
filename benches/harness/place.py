"""Places of programs and files, and their building."""

import argparse
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
CACHE = ROOT / ".cache"
MODEL = Path(os.environ.get("PENSTOCK_MINILM", CACHE / "models/all-MiniLM-L6-v2"))
PEERS_PYTHON = Path(os.environ.get("PENSTOCK_PEERS_PYTHON", CACHE / "peers/venv/bin/python"))
EXPORT_PYTHON = Path(os.environ.get("PENSTOCK_EXPORT_PYTHON", CACHE / "peers/export/bin/python"))
TRITON = Path(os.environ.get("PENSTOCK_TRITON", CACHE / "peers/triton"))
ONNX = Path(os.environ.get("PENSTOCK_PEERS_ONNX", CACHE / "peers/onnx"))
GEMM_WITH_PEERS = ["-p", "penstock-benches", "--features", "peers", "--bin", "gemm"]
RESULTS = ROOT / "benches/results"


def build() -> None:
    """Builds the server and the tools that measure."""
    command = ["cargo", "build", "--release", "--quiet", "-p", "penstock", "-p", "penstock-benches", "--bins"]
    subprocess.run(command, check=True, cwd=ROOT)


def build_with_peers() -> None:
    """Builds `gemm` with the libraries that it compares, and with it alone: their features would reach the server."""
    subprocess.run(["cargo", "build", "--release", "--quiet", *GEMM_WITH_PEERS], check=True, cwd=ROOT)


def common(description: str) -> argparse.ArgumentParser:
    """The options that every comparison has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--texts", type=Path, help='JSON Lines with "text"; default: the generated workload')
    parser.add_argument("--model", type=Path, default=MODEL, help="the folder of all-MiniLM-L6-v2")
    parser.add_argument("--threads", type=int, default=2, help="compute threads of every contender")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each burst")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder that the results go to")
    parser.add_argument("--no-build", action="store_true", help="measure the existing build")
    return parser


def texts(given: Path | None) -> Path:
    """The workload as a file."""
    if given:
        return given.resolve()
    path = CACHE / "benches/texts.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        subprocess.run([RELEASE / "texts"], check=True, stdout=out)
    return path
