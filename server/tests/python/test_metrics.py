"""Tests of the metrics port, with independent parsers and a client's clock for comparison."""

import math
import subprocess
import threading
import time
import urllib.request

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tritonclient import grpc

from conftest import ROOT, SENTIMENT

PROMTOOL = ROOT / ".cache/bin/promtool"
MODELS = {"sentiment": SENTIMENT}
CLIENTS, EACH = 8, 125
# One goes ahead of the load.
REQUESTS = 1 + CLIENTS * EACH
# The server's clock starts when the request is read and stops when its response is built: the client's
# sees the two ways through the network stack and its own Python besides. Its latency may be larger by
# this share and this much, and smaller by the 5 % that the buckets allow.
SLACK, WAY = 0.25, 0.005


def page(server) -> str:
    with urllib.request.urlopen(f"http://{server.metrics}/metrics") as response:
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return response.read().decode()


def families(server) -> dict:
    return {family.name: family for family in text_string_to_metric_families(page(server))}


def samples(family, suffix: str = "", **labels) -> list:
    wanted = labels.items()
    return [s for s in family.samples if s.name == family.name + suffix and wanted <= s.labels.items()]


def total(family, suffix: str = "", **labels) -> float:
    return sum(sample.value for sample in samples(family, suffix, **labels))


def live_quantile(read: dict, q: float) -> float:
    """0 where nothing was seen in the last minute."""
    family = read.get("penstock_request_latency_seconds")
    return total(family, quantile=str(q)) if family else 0.0


def infer(client, texts: list[str]) -> None:
    tensor = grpc.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_))
    client.infer("sentiment", [tensor])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A server of its own after a load, its page just then, and what the clients measured, in seconds, sorted."""
    from conftest import start

    server = start(tmp_path_factory.mktemp("metrics"), models=MODELS)
    latencies: list[float] = []

    def run(seed: int, count: int = EACH):
        with grpc.InferenceServerClient(server.grpc) as client:
            for i in range(count):
                text = "a fine film " * (1 + (i * 7 + seed) % 9)
                begun = time.perf_counter()
                infer(client, [text])
                latencies.append(time.perf_counter() - begun)

    # The live quantiles may lack what came before their window's first reading.
    run(0, 1)
    while not live_quantile(families(server), 0.5):
        time.sleep(0.01)
    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Read soon: the live quantiles go a minute after. A page is kept for a second, so the last one may lack requests.
    deadline = time.monotonic() + 5
    while total((read := families(server))["penstock_requests"], "_total") < REQUESTS and time.monotonic() < deadline:
        time.sleep(0.1)
    yield server, read, sorted(latencies)
    server.stop()


def test_promtool_accepts_the_page(loaded):
    if not PROMTOOL.exists():
        pytest.skip("promtool is not at .cache/bin/promtool: tools/promtool fetches it")
    checked = subprocess.run([PROMTOOL, "check", "metrics"], input=page(loaded[0]), capture_output=True, text=True)
    # Triton's names are Triton's; its faults are not ours to mend.
    faults = [line for line in (checked.stdout + checked.stderr).splitlines() if not line.startswith("nv_inference_")]
    assert faults == []
    # 3 says that it parsed and has a remark; 1 would say that it did not parse.
    assert checked.returncode in (0, 3)


def test_every_request_is_counted_once(loaded):
    server, _, latencies = loaded
    # The gauges of the queue are published at least once a second.
    deadline = time.monotonic() + 5
    while total((read := families(server))["penstock_queue_depth"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(latencies) == REQUESTS
    origin = {"model": "sentiment", "source": "grpc", "class": "interactive"}
    assert total(read["penstock_requests"], "_total", outcome="ok", **origin) == REQUESTS
    assert total(read["penstock_requests"], "_total") == REQUESTS
    assert total(read["penstock_request_duration_seconds"], "_count", **origin) == REQUESTS
    assert total(read["penstock_batch_texts"], "_sum") == REQUESTS
    assert total(read["penstock_padding_tokens"], "_total") == 0
    assert total(read["penstock_queue_depth"]) == 0
    assert 0 < total(read["penstock_device_busy_ratio"]) <= 1
    # The parser gives every counter the suffix that Triton's lack.
    version = {"model": "sentiment", "version": "1"}
    assert total(read["nv_inference_request_success"], "_total", **version) == REQUESTS
    assert total(read["nv_inference_count"], "_total", **version) == REQUESTS
    batches = total(read["penstock_batch_texts"], "_count")
    assert total(read["nv_inference_exec_count"], "_total", **version) == batches <= REQUESTS


def test_the_stages_sum_to_the_whole(loaded):
    read = families(loaded[0])
    whole = total(read["penstock_request_duration_seconds"], "_sum")
    stages = {s.labels["stage"]: s.value for s in samples(read["penstock_stage_duration_seconds"], "_sum")}
    assert set(stages) == {"tokenize", "queue", "execute", "respond"}
    assert math.isclose(sum(stages.values()), whole, rel_tol=0.01), (stages, whole)


def histogram_quantile(q: float, family) -> float:
    """As Prometheus computes it: linear inside the bucket."""
    buckets = sorted((float(s.labels["le"]), s.value) for s in samples(family, "_bucket"))
    rank = q * buckets[-1][1]
    lower = below = 0.0
    for bound, count in buckets:
        if count >= rank:
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    raise AssertionError("no bucket holds the rank")


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_the_servers_quantiles_are_the_clients(loaded, q):
    _, read, latencies = loaded
    client = latencies[math.ceil(q * len(latencies)) - 1]
    from_buckets = histogram_quantile(q, read["penstock_request_duration_seconds"])
    assert client * (1 - SLACK) - WAY <= from_buckets <= client * 1.05, (from_buckets, client)
    live = live_quantile(read, q)
    assert live, "the load is less than a minute old"
    assert math.isclose(live, from_buckets, rel_tol=0.06), (live, from_buckets)


def test_names_from_input_are_no_labels(launch):
    server = launch(models=MODELS)
    with grpc.InferenceServerClient(server.grpc) as client:
        tensor = grpc.InferInput("text", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([b"x"], dtype=np.object_))
        for i in range(5):
            with pytest.raises(grpc.InferenceServerException):
                client.infer(f"stranger-{i}", [tensor])
    assert "stranger" not in page(server)
    requests = families(server)["penstock_requests"]
    assert total(requests, "_total", model="(unknown)", outcome="not_found") == 5


def test_health(loaded):
    with urllib.request.urlopen(f"http://{loaded[0].metrics}/health") as response:
        assert response.status == 200
