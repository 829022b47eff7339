"""A real Triton as a child process: one model in several settings, each under its own name."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from . import place

PEERS = place.ROOT / "benches/peers"
START_SECONDS = 60
WINDOW = 256
TEXTS_MAX = 64


@dataclass(frozen=True)
class Setting:
    """Triton's way to run the model: processes, threads of each, and whether it batches requests."""

    instances: int
    threads: int
    batching: bool

    @property
    def name(self) -> str:
        way = "dynamic" if self.batching else "single"
        return f"{way}-{self.instances}x{self.threads}"

    def config(self, onnx: Path, tokenizer: Path) -> str:
        """`config.pbtxt`. Without batching a request's own shape, `[n, 1]`, is the model's."""
        dims, wide = ("[1]", "[384]") if self.batching else ("[-1, 1]", "[-1, 384]")
        parameters = {"onnx": onnx, "tokenizer": tokenizer, "threads": self.threads, "window": WINDOW}
        lines = [
            f'name: "{self.name}"',
            'backend: "python"',
            f"max_batch_size: {TEXTS_MAX if self.batching else 0}",
            f'input [ {{ name: "text" data_type: TYPE_STRING dims: {dims} }} ]',
            f'output [ {{ name: "embedding" data_type: TYPE_FP32 dims: {wide} }} ]',
            f"instance_group [ {{ count: {self.instances} kind: KIND_CPU }} ]",
        ]
        if self.batching:
            lines.append("dynamic_batching { }")
        for key, value in parameters.items():
            lines.append(f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}')
        return "\n".join(lines) + "\n"


class Triton:
    """`tritonserver` of PyPI's nvidia-pytriton with its Python backend, until closed."""

    def __init__(self, environment: Path, onnx: Path, model: Path, settings: list[Setting]):
        server = next(environment.glob("lib/python3*/site-packages/pytriton/tritonserver"))
        version = next(environment.glob("lib/python3*")).name.removeprefix("python")
        stub = shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", server / "backends/python")
        Path(stub).chmod(0o755)
        repository = environment / "repository"
        shutil.rmtree(repository, ignore_errors=True)
        for setting in settings:
            folder = repository / setting.name / "1"
            folder.mkdir(parents=True)
            shutil.copy(PEERS / "triton_model.py", folder / "model.py")
            config = setting.config(onnx, model / "tokenizer.json")
            (folder.parent / "config.pbtxt").write_text(config)
        http, self.port = free_port(), free_port()
        command = [server / "bin/tritonserver", "--model-repository", repository, "--allow-metrics", "false"]
        command += ["--backend-directory", server / "backends", "--http-port", http, "--grpc-port", self.port]
        self.log = open(environment / "triton.log", "w", encoding="utf-8")
        # The backend's interpreter is its own; the model's imports lie in this one.
        paths = os.environ | {"PYTHONPATH": str(server.parents[1])}
        self.process = subprocess.Popen([str(part) for part in command], stdout=self.log, stderr=self.log, env=paths)
        self.version = self.wait(f"http://127.0.0.1:{http}/v2")

    def wait(self, address: str) -> str:
        """Until it is ready with every model; then its name and version."""
        for _ in range(START_SECONDS * 10):
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{address}/health/ready", timeout=5):
                    pass
                with urllib.request.urlopen(address, timeout=5) as about:
                    said = json.load(about)
                    return f"{said['name']} {said['version']}"
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        self.process.kill()
        raise SystemExit(f"tritonserver was not ready after {START_SECONDS} s; see {self.log.name}")

    def target(self, setting: Setting) -> str:
        return f"kserve-grpc@127.0.0.1:{self.port}/{setting.name}"

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)
        self.log.close()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
