"""Messages of the program about its device. These tests need a machine without a usable GPU."""

import json
import subprocess

import pytest

from conftest import BINARY, MINILM, ROOT

MODELS = {"minilm": MINILM}


def serve(*options: str) -> subprocess.CompletedProcess:
    """A server that is expected to end by itself."""
    ports = [f"--{name}-addr=127.0.0.1:0" for name in ("grpc", "http", "metrics")]
    command = [BINARY, "serve", "--model", f"minilm={MINILM}", *ports, *options]
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20)
    except subprocess.TimeoutExpired:
        pytest.skip("this machine has a GPU: the server runs on it")


def test_a_gpu_asked_for_by_name_is_an_error_at_once_that_says_what_is_missing():
    for device, named in (("cuda", "cuda:0"), ("cuda:0,1", "cuda:0,1")):
        ended = serve("--device", device)
        assert ended.returncode == 2, ended.stderr
        assert ended.stdout == ""
        said = ended.stderr.strip().splitlines()[-1]
        assert said.startswith(f"penstock: device {named} cannot be used: "), said
        # The reason is a whole sentence, and names a library, the driver or the GPU.
        assert any(word in said for word in ("libcuda", "libcublasLt", "driver", "GPU")), said


def test_a_format_that_no_gpu_has_is_refused_before_one_is_looked_for():
    ended = serve("--device", "cuda", "--dtype", "int8")
    assert ended.returncode == 2
    assert "dtype int8 is not computed on a gpu" in ended.stderr


def test_auto_serves_on_the_cpu_and_says_why(launch):
    if serve("--device", "cuda").returncode != 2:
        pytest.skip("this machine has a GPU: auto takes it")
    server = launch('[server]\ndevice = "auto"\n[batching]\nexecutors = 4\n', MODELS)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    starting = next(line for line in lines if line["message"] == "starting")
    assert (starting["device"], starting["dtype"]) == ("cpu", "f32")
    assert starting["reason"].startswith("no gpu can be used: "), starting
