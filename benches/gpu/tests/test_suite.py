"""The suite's own promises: no part ends another, measured figures survive, and a wrong output is a failure."""

import argparse
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from gpu import cuda, kernel_tests, plan, report, roofline, run, workload
from gpu.part import Part, read
from gpu.parts import fidelity, forward, serving
from harness import place
from harness.contenders import Contender

# Stands in for tools/gpu-check: each part does here as its name says.
PARTS = """
import json, os, pathlib, sys, time
name, work = sys.argv[2], pathlib.Path(sys.argv[4])
(work / "parts").mkdir(exist_ok=True)
def write(status, **data):
    (work / "parts" / f"{name}.json").write_text(json.dumps({"status": status, "reason": "", "data": data}))
if name == "ceilings":
    write("running", copy_tbps=4.0)
    if os.fork() == 0:
        (work / "grandchild").write_text(str(os.getpid()))
    time.sleep(600)
elif name == "kernels":
    write("running", passed=3)
    sys.exit("no such kernel")
else:
    write("ok")
"""


def suite(tmp_path: Path, monkeypatch, **changed) -> run.Run:
    program = tmp_path / "parts.py"
    program.write_text(PARTS)
    monkeypatch.setattr(run, "PROGRAM", program)
    options = {"dry_run": False, "no_torch": True, "only": None, "budget": float(plan.BUDGET), "results": tmp_path / "results"}
    work = tmp_path / "work"
    work.mkdir()
    return run.Run(work, argparse.Namespace(**options | changed))


class Hangs(subprocess.Popen):
    """A part's process whose time runs out as soon as it hangs, however slow this machine is."""

    def wait(self, timeout=None):
        if timeout is None or "ceilings" not in self.args:
            return super().wait(timeout)
        hanging = Path(self.args[-1]) / "grandchild"
        until = time.monotonic() + 60
        while not (hanging.exists() and hanging.read_text()) and time.monotonic() < until:
            time.sleep(0.05)
        raise subprocess.TimeoutExpired(self.args, timeout)


def part(tmp_path: Path, name: str = "fidelity", dry: bool = False) -> Part:
    (tmp_path / "settings.json").write_text(json.dumps({"dry": dry, "torch": False}))
    return Part(tmp_path, name)


def test_parts_that_hang_or_die_end_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", Hangs)
    running = suite(tmp_path, monkeypatch)
    running.all()
    status = {name: outcome["status"] for name, outcome in running.outcomes.items()}
    assert set(status) == {step.name for step in plan.STEPS}
    assert {name for name, how in status.items() if how == "failed"} == {"ceilings", "kernels"}
    assert "cut off after" in running.outcomes["ceilings"]["reason"]
    assert "no such kernel" in running.outcomes["kernels"]["reason"]
    written = json.loads(running.stem.with_suffix(".json").read_text())
    assert written["parts"]["ceilings"]["copy_tbps"] == 4.0, "figures of a part survive it"
    grandchild = int((running.work / "grandchild").read_text())
    until = time.monotonic() + 60
    while alive(grandchild) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(grandchild), "processes of a part end with it"


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_without_time_every_part_says_that_it_was_skipped(tmp_path, monkeypatch):
    running = suite(tmp_path, monkeypatch, budget=float(plan.RESERVE))
    running.all()
    assert {(o["status"], o["reason"]) for o in running.outcomes.values()} == {("skipped", "no time was left")}


def test_what_others_took_of_the_time_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", Hangs)
    running = suite(tmp_path, monkeypatch, only="ceilings", budget=plan.RESERVE + 100.0)
    running.all()
    assert running.outcomes["ceilings"]["status"] == "skipped"
    assert running.outcomes["ceilings"]["reason"].startswith("no time was left: cut off after 100 s")


def test_the_plan_fits_with_any_one_part_at_its_limit():
    there = plan.BUDGET - plan.RESERVE
    assert plan.seconds(lambda step: step.expected) <= 0.8 * there
    for slow in plan.STEPS[:-1]:
        assert plan.seconds(lambda step: step.limit if step is slow else step.expected) <= there, slow.name
    assert all(step.expected < step.limit for step in plan.STEPS)


def test_a_page_that_cannot_be_written_ends_no_part(tmp_path, monkeypatch):
    def broken(*_):
        raise KeyError("a figure")

    monkeypatch.setattr(report, "write", broken)
    running = suite(tmp_path, monkeypatch, only="machine,memcheck")
    running.all()
    assert {name: outcome["status"] for name, outcome in running.outcomes.items()} == {"machine": "ok", "memcheck": "ok"}


# Names itself, then answers each line by its name.
CONTENDER = """
import json, sys, time
print(json.dumps({"ready": "it"}), flush=True)
for line in sys.stdin:
    how = json.loads(line)["how"]
    if how == "hangs":
        time.sleep(600)
    print(json.dumps({"error": "no kernel"} if how == "fails" else {"rate": 1}), flush=True)
"""


def test_a_burst_that_fails_is_left_out_and_ends_no_other(tmp_path):
    one = part(tmp_path, "forward")
    contender = Contender([sys.executable, "-c", CONTENDER], patience=60)
    bursts = {f"torch | {how}": lambda how=how: contender.burst({"how": how}) for how in ("works", "fails")}
    measured = forward.in_turn(one, "model", bursts)
    assert measured == {"torch | works": [{"rate": 1}] * one.sizes.rounds}
    assert "no kernel" in one.data["notes"][0] and "checks" not in one.data
    # A hanging peer takes its process with it. A hanging program of ours is a failure.
    contender.patience = 0.2
    assert forward.in_turn(one, "model", {("hangs", "ours"): lambda: contender.burst({"how": "hangs"})}) == {}
    assert [check["name"] for check in one.data["checks"]] == ["model, hangs, ours: runs"]
    contender.close()


# Answers working requests, and ends at one that loses the device.
PEER = """
import json, sys
print(json.dumps({"ready": "it"}), flush=True)
for line in sys.stdin:
    wanted = json.loads(line)
    how = wanted["ways"][0] if "check" in wanted else "burst"
    if how == sys.argv[1]:
        sys.exit("a sticky error")
    print(json.dumps({how: [[1.0]]}), flush=True)
"""


@pytest.mark.parametrize(
    ("loses", "ways", "tried"),
    [("nothing", ["padded", "varlen"], 0), ("varlen", ["padded"], 2), ("padded", [], 3)],
)
def test_a_peer_that_dies_is_left_out_and_nested_is_tried_only_for_want_of_varlen(tmp_path, loses, ways, tried):
    one = part(tmp_path, "forward")
    peer = Contender([sys.executable, "-c", PEER, loses], patience=60)
    assert forward.working(one, "model", "model", peer) == ways
    assert len([note for note in one.data["notes"] if "left out" in note]) == tried
    peer.close()


def test_our_figures_are_there_whatever_the_peer_does(tmp_path, monkeypatch):
    one = part(tmp_path, "forward")
    commands = {"model, f16, penstock": [sys.executable, "-c", CONTENDER], "model, f16, torch": ["no-such-program"]}
    monkeypatch.setattr(forward, "ours_bursts", lambda _: {"S=16": {"how": "works"}})
    figures = {"rate": 1, "tokens_per_second": 1.0, "texts_per_second": 1.0, "batch_ms_p50": 1.0}
    monkeypatch.setattr(Contender, "burst", lambda self, wanted: figures)
    with ExitStack() as closing:
        contenders = forward.started(one, closing, commands)
        rows = forward.one(one, closing, "model", "f16", commands, contenders)
    assert [(row["who"], row["how"]) for row in rows] == [("penstock", "S=16")]
    assert "model, f16, torch did not start" in one.data["notes"][0]


def test_a_test_is_named_when_it_begins(tmp_path, monkeypatch):
    hangs = tmp_path / "gpu-kernel-tests"
    hangs.write_text("#!/bin/sh\nprintf 'test gpu_pool ... ok\\ntest gpu_hangs ... '\nexec sleep 600\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(kernel_tests, "BINARY", hangs)
    one = part(tmp_path, "kernels")

    class Named(Exception):
        pass

    def save(**figures):
        if "gpu_hangs" in figures.get("begun", []):
            raise Named

    monkeypatch.setattr(one, "save", save)
    monkeypatch.setattr(subprocess.Popen, "__exit__", lambda self, *_: self.kill())
    with pytest.raises(Named):
        kernel_tests.test(one)


def test_a_second_run_of_a_day_keeps_the_first_page(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "short_name", lambda: cuda.slug("NVIDIA H100 80GB HBM3"))
    first = report.stem(tmp_path, False)
    assert first.name.endswith("-gpu-h100-80gb-hbm3")
    first.with_suffix(".md").touch()
    second = report.stem(tmp_path, False)
    assert second != first and second.name.startswith(first.name)


def test_what_fails_inside_a_part_is_said_and_the_part_goes_on(tmp_path):
    one = part(tmp_path, "serving")
    for model in ("first", "second"):
        with one.guarded(model):
            if model == "first":
                raise SystemExit("the server ended with 75")
            one.save(rows=[model])
    assert one.data["rows"] == ["second"]
    assert "75" in one.data["notes"][0] and not one.data["checks"][0]["ok"]


def test_the_library_of_products_is_found_where_torch_brings_it(tmp_path, monkeypatch):
    torch, own = tmp_path / "site-packages/nvidia/cu13/lib" / cuda.LIBRARY, tmp_path / "own.so"
    torch.parent.mkdir(parents=True)
    for library in (torch, own):
        library.touch()
    monkeypatch.setattr(cuda, "TOOLKITS", ())
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site-packages")])
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    for the_linkers, wanted in ((str(own), own), ("", torch)):
        monkeypatch.setattr(cuda, "loaded", lambda name, found=the_linkers: found)
        assert cuda.environment(tmp_path)["LD_LIBRARY_PATH"] == f"{tmp_path}/lib:{wanted.parent}:/somewhere"
        assert (tmp_path / "lib/libcublasLt.so").resolve() == wanted
    torch.unlink()
    assert cuda.environment(tmp_path)["LD_LIBRARY_PATH"] == "/somewhere"


def test_a_library_is_named_by_its_file():
    file = cuda.loaded("libc.so.6")
    assert Path(file).exists() and "libc" in file
    assert cuda.loaded("libno-such-thing.so.1") == ""


def test_parts_asked_for_bring_what_they_need():
    assert [step.name for step in run.wanted("forward")] == ["models", "reference", "ceilings", "forward"]
    with pytest.raises(SystemExit, match="no such part: fowrard"):
        run.wanted("fowrard")


@pytest.mark.parametrize(
    ("dtype", "row", "labels", "broken"),
    [
        ("f32", [0.7, 0.2, 0.1], [0], 0),
        ("f32", [0.7002, 0.1998, 0.1], [0], 1),
        ("f32", [0.7, 0.2, 0.1], [1], 1),
        ("bf16", [0.7002, 0.1998, 0.1], [0], 0),
        ("bf16", [0.6, 0.3, 0.1], [0], 1),
    ],
)
def test_a_wrong_output_is_not_held(tmp_path, dtype, row, labels, broken):
    one = part(tmp_path)
    fidelity.compare(one, "distilbert", dtype, ([row], labels), [[0.7, 0.2, 0.1]])
    assert sum(not check["ok"] for check in read(tmp_path, "fidelity")["data"]["checks"]) == broken


def test_labels_of_a_random_network_count_only_where_it_decides(tmp_path):
    one = part(tmp_path)
    undecided, decided = [0.34, 0.33, 0.33], [0.5, 0.3, 0.2]
    fidelity.compare(one, "distilbert", "bf16", ([undecided, decided], [1, 0]), [undecided, decided])
    assert "of 1 texts" in one.data["checks"][-1]["name"] and one.data["checks"][-1]["ok"]
    # A trained model has no such excuse.
    fidelity.compare(one, "sentiment", "bf16", ([undecided, decided], [1, 0]), [undecided, decided])
    assert "of 2 texts" in one.data["checks"][-1]["name"] and not one.data["checks"][-1]["ok"]


@pytest.mark.parametrize(
    ("said", "code", "ok"),
    [
        ("test gpu_pool ... ok\ntest result: ok. 9 passed; 0 failed; 0 ignored", 0, True),
        ("test result: FAILED. 8 passed; 1 failed; 0 ignored", 101, False),
        ("SKIPPED, this test needs a GPU\ntest result: ok. 9 passed; 0 failed", 0, False),
        ("test result: ok. 9 passed; 0 failed\n========= ERROR SUMMARY: 2 errors", 86, False),
        ("", 0, False),
    ],
)
def test_kernel_tests_hold_only_where_they_ran_and_passed(tmp_path, said, code, ok):
    one = part(tmp_path, "kernels")
    kernel_tests.verdict(one, said, code)
    assert all(check["ok"] for check in one.data["checks"]) == ok


def test_the_server_has_room_for_every_load():
    for texts, requests in plan.FULL.loads:
        assert serving.queue_tokens(plan.FULL) >= 512 * texts * max(requests)


def test_equal_texts_have_exactly_so_many_tokens():
    vocabulary = json.loads((workload.TOKENIZER / "tokenizer.json").read_text())["model"]["vocab"]
    for text in workload.equal(50, 20):
        words = text.split()
        assert len(words) == 48 and all(word in vocabulary for word in words)


def test_flops_of_one_layer_by_hand():
    shape = plan.Shape("Bert", 4, 1, 1, 8, 10, 10)
    # Per token 2 · (4·16 + 2·32) = 256; two texts of 3 and 1 tokens have 9 + 1 pairs of 4 · 4 each.
    assert roofline.flops(shape, [3, 1]) == 4 * 256 + 10 * 16
    # 128 weights, and per token 18 · 4 + 4 · 8 numbers, two bytes each.
    assert roofline.bytes_moved(shape, 4, 1) == 2 * (128 + 4 * 104)


def test_the_arithmetic_is_that_of_the_documentation():
    page = (place.ROOT / "docs/performance.md").read_text(encoding="utf-8")
    for model, length, mflop, kilobytes, ratio in report.arithmetic_rows():
        assert f"| {length} | {mflop:.1f} | {kilobytes:.0f} | {ratio:.0f} |" in page, model


def figures(rate: float, who: str, how: str, dtype: str = "bf16", **more) -> dict:
    return {"model": "bert-base", "dtype": dtype, "who": who, "how": how, "tokens_per_second": rate, **more}


def test_targets_are_what_was_measured():
    parts = {step.name: {} for step in plan.STEPS}
    missing = report.targets(parts)
    assert all(goal["reached"] == "not measured" and goal["verdict"] == "" for goal in missing)
    padded = "mixed, padded, 32 in arrival order"
    forward = [figures(100.0, "penstock", "S=512", matmul_share=0.46), figures(100.0, "penstock", "S=50", matmul_share=0.2)]
    forward += [figures(30.0, "penstock", "mixed, packed"), figures(10.0, "torch", padded)]
    parts["forward"] = {"rows": forward}
    parts["serving"] = {"rows": [{"model": "bert-base", "how": "S=512", "concurrency": 64, "dtype": "bf16", "tokens_per_second": 90.0, "p50_ms": 9.0}]}
    without = [figures(100.0, "penstock", "S=512")]
    unknown = {goal["name"]: goal["reached"] for goal in report.targets(parts | {"forward": {"rows": without}})}
    assert unknown["BERT-base, forward at S=512, of the matmul ceiling"] == "not measured", "no ceiling, no share"
    said = {goal["name"]: (goal["reached"], goal["verdict"]) for goal in report.targets(parts)}
    assert said["BERT-base, forward at S=512, of the matmul ceiling"] == ("46.0 %", "reached")
    assert said["BERT-base, forward at S=50, of the matmul ceiling"] == ("20.0 %", "**missed**")
    assert said["bert-base, over gRPC at S=512, of the forward"] == ("90.0 %", "reached")
    assert said["bert-base, packed mixed lengths, times PyTorch's padded, 32 in arrival order"] == ("3.00", "reached")
    assert said["BERT-base, one text of 128 tokens, p50 ms"] == ("not measured", "")
