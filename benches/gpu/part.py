"""One part of a run: a process of its own that writes its figures as it goes."""

import importlib.util
import json
import os
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import plan


class Skipped(Exception):
    """The part cannot be done here, for the reason given."""


class Part:
    """Folder in which a part reads its settings, other parts' figures and files, and writes its own."""

    def __init__(self, work: Path, name: str):
        self.work = work
        self.name = name
        self.data: dict = {}
        settings = json.loads((work / "settings.json").read_text(encoding="utf-8"))
        self.dry: bool = settings["dry"]
        self.device: str = "cpu" if self.dry else "cuda"
        self.sizes = plan.DRY if self.dry else plan.FULL
        self.torch: bool = settings["torch"]
        step = next(step for step in plan.STEPS if step.name == name)
        self.until = time.monotonic() + step.limit
        # A part may do several things at once.
        self.lock = threading.RLock()

    def left(self) -> float:
        """Seconds until this part is cut off."""
        return self.until - time.monotonic()

    def save(self, **figures) -> None:
        """Adds figures; saved ones survive this process."""
        with self.lock:
            self.data |= figures
            self.write("running")

    def check(self, name: str, value: float, wanted: str, ok: bool) -> None:
        """A figure that must hold; one that does not fails the part at its end."""
        with self.lock:
            self.data.setdefault("checks", []).append({"name": name, "value": value, "wanted": wanted, "ok": bool(ok)})
            self.write("running")

    def note(self, text: str) -> None:
        """Something inside the part that could not be done; the rest of it goes on."""
        with self.lock:
            print(text, flush=True)
            self.data.setdefault("notes", []).append(text)
            self.write("running")

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Inside, an error is a check that does not hold, and the part goes on behind it."""
        try:
            yield
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            self.note(f"{what}: {type(error).__name__}: {error}")
            self.check(f"{what}: runs", 0, "1", False)

    def write(self, status: str, reason: str = "") -> None:
        path = file_of(self.work, self.name)
        path.parent.mkdir(exist_ok=True)
        written = path.with_suffix(".new")
        written.write_text(json.dumps({"status": status, "reason": reason, "data": self.data}), encoding="utf-8")
        os.replace(written, path)

    def other(self, name: str) -> dict:
        """The figures of another part; empty where it has none."""
        return read(self.work, name)["data"]

    def models(self) -> dict[str, Path]:
        """The folders that the part `models` made, by the model's name."""
        return {folder.name: folder for folder in sorted((self.work / "models").glob("*")) if folder.is_dir()}

    def on_device(self, dtype: str) -> list[str]:
        """The options that put penstock on the device."""
        return [] if self.dry else ["--device", "cuda", "--dtype", dtype]


def file_of(work: Path, name: str) -> Path:
    return work / "parts" / f"{name}.json"


def read(work: Path, name: str) -> dict:
    try:
        return json.loads(file_of(work, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"status": "", "reason": "", "data": {}}


def has_torch() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers", "tokenizers"))


def execute(work: Path, name: str) -> None:
    """Does the part here and now, and writes how it ended."""
    part = Part(work, name)
    step = next(step for step in plan.STEPS if step.name == name)
    try:
        if step.gpu and part.dry:
            raise Skipped("needs a GPU")
        if step.torch and not part.torch:
            raise Skipped("needs torch, transformers and tokenizers")
        importlib.import_module(f".parts.{name}", __package__).run(part)
    except Skipped as reason:
        part.write("skipped", str(reason))
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        part.write("failed", f"{type(error).__name__}: {error}")
    else:
        broken = [check["name"] for check in part.data.get("checks", []) if not check["ok"]]
        part.write("failed" if broken else "ok", f"not held: {'; '.join(broken)}" if broken else "")
