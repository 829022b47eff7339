"""Which threads the server starts, and on which CPUs they may run."""

import os
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import SENTIMENT

MODELS = {"sentiment": SENTIMENT}


def cpus_of_threads(server) -> dict[str, list[str]]:
    """The CPUs that each thread may run on, by the name of its kind."""
    found: dict[str, list[str]] = {}
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        status = (task / "status").read_text()
        name = re.search(r"^Name:\t(\S+)", status, re.MULTILINE)[1]
        cpus = re.search(r"^Cpus_allowed_list:\t(\S+)", status, re.MULTILINE)[1]
        found.setdefault(name.split("-")[0], []).append(cpus)
    return found


@contextmanager
def confined_to(cpus: set[int]):
    """Processes started inside may use these CPUs only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def test_compute_threads_are_pinned_where_that_is_asked_for(launch):
    mine = sorted(os.sched_getaffinity(0))
    server = launch('[server]\ndevice = "cpu"\npin_threads = true\n', MODELS)
    threads = cpus_of_threads(server)
    # The executors compute too: on the first CPU.
    assert threads["execute"] == threads["urgent"] == [str(mine[0])]
    assert sorted(threads.get("compute", [])) == sorted(str(cpu) for cpu in mine[1:])
    everywhere = cpus_of_threads(launch('[server]\ndevice = "cpu"\n', MODELS))["execute"]
    assert threads["tokenize"] + threads["io"] == everywhere * len(threads["tokenize"] + threads["io"])


def test_a_process_confined_to_one_cpu_computes_with_one_thread(launch):
    with confined_to({min(os.sched_getaffinity(0))}):
        threads = cpus_of_threads(launch('[server]\ndevice = "cpu"\n', MODELS))
    assert "compute" not in threads and len(threads["execute"]) == len(threads["urgent"]) == 1


def test_more_pinned_threads_than_cpus_are_refused(launch):
    threads = len(os.sched_getaffinity(0)) + 1
    with pytest.raises(pytest.fail.Exception, match=f"cannot start {threads} compute threads: they cannot be pinned"):
        launch(f'[server]\ndevice = "cpu"\npin_threads = true\nthreads = {threads}\n', MODELS)
