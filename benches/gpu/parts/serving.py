"""The server over gRPC: throughput with many requests on their way, and one text at a time."""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from harness.server import Server, load_command

from .. import plan, workload
from ..part import Part
from .forward import benched

FIGURES = ("tokens_per_second", "texts_per_second", "p50_ms", "p99_ms", "errors")


def run(part: Part) -> None:
    folder = part.work / "served"
    sizes = part.sizes
    texts = {f"S={n}": workload.write(folder, f"s{n}", workload.equal(n)) for n in sizes.lengths}
    texts["mixed"] = workload.write(folder, "mixed", workload.mixed())
    single = workload.write(folder, "single", workload.equal(sizes.single_tokens))
    rows: list[dict] = []

    def served(name: str, model: Path, dtype: str, executors: int, bursts: list[tuple[str, Path, tuple]]) -> None:
        beside = f", {executors} executors" if executors > 1 else ""
        chosen = [*options(part, dtype), "--batching-executors", executors]
        with part.guarded(f"{name}, {dtype}, served{beside}"), closing(Server(model, threads(part), chosen, name="bench", log=sys.stderr)) as server:
            for how, file, load in bursts:
                rows.extend(loaded(part, server, name, dtype, how + beside, file, load))
                part.save(rows=rows)

    one = (f"one text of {sizes.single_tokens} tokens", single, (1, (1,)))
    first, *others = sizes.dtypes
    most = [(how, file, sizes.loads[-1]) for how, file in texts.items()]
    for name, model in benched(part).items():
        served(name, model, first, 1, [one, *((how, file, load) for how, file in texts.items() for load in sizes.loads)])
        for dtype in others:
            served(name, model, dtype, 1, [burst for burst in most if burst[0] in sizes.other_served])
    # The smallest model, where starting kernels weighs most.
    served(name, model, first, 2, [burst for burst in most if burst[0] in sizes.executors_served])
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
    return 2 * max(sizes.lengths) * max(texts * max(requests) for texts, requests in sizes.loads)


def loaded(part: Part, server: Server, name: str, dtype: str, how: str, texts: Path, load: tuple[int, tuple[int, ...]]) -> list[dict]:
    """A burst for each number of requests on their way. One client with several threads: a single thread is no match
    for a GPU, and the windows of several clients would not be the same."""
    per_request, concurrencies = load
    single = concurrencies == (1,)
    chosen = ["--texts-per-request", per_request, "--concurrency", ",".join(map(str, concurrencies))]
    chosen += ["--warm", part.sizes.warm_seconds, "--connections", 1 if single else 4 * part.sizes.client_threads]
    chosen += ["--threads", 1 if single else part.sizes.client_threads]
    # The small model has the same tokenizer and is read in no time.
    command = load_command(server.targets()["kserve-grpc"], part.models()["small"], texts, part.sizes.served_seconds, chosen)
    measured = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)["rows"]
    rows = []
    for concurrency, burst in zip(concurrencies, (one["median"] for one in measured), strict=True):
        if burst["errors"]:
            part.note(f"{name}, {how}: {burst['errors']} requests failed, the first: {burst['error']}")
        row = {"model": name, "dtype": dtype, "how": how, "texts_per_request": per_request, "concurrency": concurrency}
        rows.append(row | {key: burst[key] for key in FIGURES})
    return rows
