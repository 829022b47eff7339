"""How much memory a server of all-MiniLM-L6-v2 holds, idle and after requests of many lengths."""

import json
import urllib.request

import pytest

from conftest import MINILM

MIB = 1 << 20


def embed(server, texts: list[str]) -> int:
    body = json.dumps({"inputs": texts}).encode()
    request = urllib.request.Request(f"http://{server.http}/embed", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return len(json.load(answer))


@pytest.mark.parametrize(("dtype", "mib_max"), [("f32", 250), ("int8", 120)])
def test_resident_memory_stays_within_its_bound(launch, dtype, mib_max):
    server = launch(f'[server]\ndevice = "cpu"\ndtype = "{dtype}"\n', {"minilm": MINILM})
    assert server.resident_bytes() < mib_max * MIB
    for words in (1, 30, 250):
        texts = [f"text {number} " + "and so on " * (words // 3) for number in range(64)]
        assert embed(server, texts) == len(texts)
    assert server.resident_bytes() < mib_max * MIB
