"""Results on disk: a dated Markdown page and the same figures as JSON, with the machine they come from."""

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from .place import ROOT


def machine() -> dict:
    """Facts needed for comparing figures with those of another run."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_before": os.getloadavg()[0],
        "rustc": said(["rustc", "--version"]),
        "python": platform.python_version(),
        "commit": said(["git", "rev-parse", "--short=12", "HEAD"]) + ("" if clean() else ", with changes"),
    }


def cpu() -> str:
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in lines}
    flags = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"} & set(fields.get("flags", "").split())
    family = ", ".join(f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields)
    return f"{fields.get('model name', platform.machine())} ({family}; {' '.join(sorted(flags))})"


def said(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def clean() -> bool:
    return not said(["git", "status", "--porcelain", "--untracked-files=no"])


def table(heads: list[str], rows: list[list]) -> str:
    """Markdown; numbers stand to the right."""
    number = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(heads))]
    lines = ["| " + " | ".join(heads) + " |", "|" + "|".join("--:" if n else "---" for n in number) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(shown(cell) for cell in row) + " |")
    return "\n".join(lines) + "\n"


def shown(cell) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}" if abs(cell) < 1 else f"{cell:.2f}"
    return str(cell)


def write(folder: Path, name: str, title: str, about: dict, sections: list[str], data: dict) -> Path:
    """`about`: versions and workload; `sections`: Markdown; `data`: everything measured."""
    folder.mkdir(parents=True, exist_ok=True)
    command = shlex.join([f"benches/{Path(sys.argv[0]).name}", *map(portable, sys.argv[1:])])
    facts = {**about, "command": f"`{command}`"}
    stem = folder / f"{facts['date'].split()[0]}-{name}"
    page = [f"# {title}\n", *(f"- {key.replace('_', ' ')}: {value}" for key, value in facts.items()), ""]
    stem.with_suffix(".md").write_text("\n".join(page + sections), encoding="utf-8")
    stem.with_suffix(".json").write_text(json.dumps({"about": facts, **data}, indent=1) + "\n")
    print("\n".join(sections))
    print(f"written: {portable(str(stem))}.md and .json")
    return stem


def portable(argument: str) -> str:
    """Paths inside the repository as a reader would type them; of others, only the name."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
