"""The server over gRPC: throughput with many requests on their way, and one text at a time."""

import json
import os
import statistics
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from harness.server import Server, load_command

from .. import plan, workload
from ..part import Part
from .forward import benched

WARM_SHARE = 0.5


def run(part: Part) -> None:
    folder = part.work / "served"
    texts = {f"S={n}": workload.write(folder, f"s{n}", workload.equal(n)) for n in part.sizes.lengths}
    texts["mixed"] = workload.write(folder, "mixed", workload.mixed())
    single = workload.write(folder, "single", workload.equal(part.sizes.single_tokens))
    rows: list[dict] = []
    # The first type alone: a server computes in one, and the forward shows what the other changes.
    dtype = part.sizes.dtypes[0]
    for name, model in benched(part).items():
        with part.guarded(f"{name}, {dtype}, served"), closing(Server(model, threads(part), options(part, dtype), name="bench", log=sys.stderr)) as server:
            rows.append(one(part, server, name, dtype, f"one text of {part.sizes.single_tokens} tokens", single, (1, 1)))
            for how, file in texts.items():
                for load in part.sizes.loads:
                    rows.append(one(part, server, name, dtype, how, file, load))
                    part.save(rows=rows)
    errors = sum(row["errors"] for row in rows)
    part.check("requests that failed", errors, "0", errors == 0)


def threads(part: Part) -> int:
    return 2 if part.dry else len(os.sched_getaffinity(0))


def options(part: Part, dtype: str) -> list:
    if part.dry:
        return ["--log", "warn"]
    cores = len(os.sched_getaffinity(0))
    # On a GPU tokenizing is most of the host's work; the clients take a quarter of the cores.
    chosen = ["--tokenizer-threads", max(1, cores // 2), "--io-threads", max(1, cores // 4), "--log", "info"]
    room = ["--queue-tokens-max", queue_tokens(part.sizes)]
    return [*part.on_device(dtype), "--batching-tokens-max", part.sizes.batch_tokens, *room, *chosen]


def queue_tokens(sizes: plan.Sizes) -> int:
    """Room for all that is on its way at once, twice: a text counts as up to the longest until it is tokenized, and
    one that is refused is no figure of throughput."""
    return 2 * max(sizes.lengths) * max(texts * requests for texts, requests in sizes.loads)


def one(part: Part, server: Server, name: str, dtype: str, how: str, texts: Path, load: tuple[int, int]) -> dict:
    """One burst from several clients at once: a client is one thread, and one of them is no match for a GPU."""
    per_request, concurrency = load
    clients = min(part.sizes.clients, concurrency)
    chosen = ["--texts-per-request", per_request, "--concurrency", concurrency // clients]
    chosen += ["--connections", 1 if concurrency == 1 else 4, "--warm", part.sizes.seconds * WARM_SHARE]
    # The small model has the same tokenizer and is read in no time.
    counter = part.models()["small"]
    command = load_command(server.targets()["kserve-grpc"], counter, texts, 2 * part.sizes.seconds, chosen)
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(clients)]
    bursts = []
    for client in running:
        said, _ = client.communicate()
        if client.returncode:
            raise SystemExit(f"load ended with {client.returncode}")
        bursts.append(json.loads(said)["rows"][0]["median"])
    for burst in bursts:
        if burst["errors"]:
            part.note(f"{name}, {how}: {burst['errors']} requests failed, the first: {burst['error']}")
    row = {"model": name, "dtype": dtype, "how": how, "texts_per_request": per_request, "concurrency": concurrency}
    row |= {key: sum(burst[key] for burst in bursts) for key in ("tokens_per_second", "texts_per_second", "errors")}
    return row | {
        "p50_ms": statistics.median(burst["p50_ms"] for burst in bursts),
        # Of the client that saw the worst: no quantile of one histogram, and never better than that.
        "p99_ms": max(burst["p99_ms"] for burst in bursts),
        "clients": clients,
    }
