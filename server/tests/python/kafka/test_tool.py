"""tools/kafka from one end to the other, as somebody who develops against it uses it."""

import json
import subprocess
import uuid

import pytest

from streaming import ROOT
from streaming.broker import PORTS_EACH, free_ports

RECORDS = 40


class Tool:
    """tools/kafka with a cluster of its own."""

    def __init__(self, brokers: int):
        self.name, self.brokers = f"test-{uuid.uuid4().hex[:12]}", brokers
        self.port = free_ports(brokers * PORTS_EACH)

    def ask(self, *command: str, given: str = "") -> subprocess.CompletedProcess:
        full = [ROOT / "tools/kafka", "--cluster", self.name, *command]
        return subprocess.run(full, input=given, capture_output=True, text=True, timeout=120)

    def __call__(self, *command: str, given: str = "") -> str:
        done = self.ask(*command, given=given)
        assert done.returncode == 0, f"tools/kafka {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self) -> str:
        return self("up", "--port", str(self.port), "--brokers", str(self.brokers))

    def consume(self, topic: str) -> list[dict]:
        return [json.loads(line) for line in self("consume", topic).splitlines()]

    def folder(self):
        return ROOT / ".cache/kafka/clusters" / self.name


@pytest.fixture
def tool(request):
    tool = Tool(request.param)
    try:
        yield tool
    finally:
        if tool.folder().exists():
            tool("down")


@pytest.mark.parametrize("tool", [1], indirect=True)
def test_a_broker_comes_takes_and_gives_records_and_goes(tool):
    assert f"is up: 127.0.0.1:{tool.port} " in tool.up()
    tool("topic", "reviews", "--partitions", "3")
    tool("topic", "spare")
    assert tool("topic").split() == ["reviews", "spare"]
    tool("topic", "spare", "--delete")
    assert tool("topic").split() == ["reviews"]
    # The records of somebody's standard input.
    assert tool("produce", "reviews", "--separator", ":", given="a:one\nb:two\na:three\n") == "3 records\n"
    found = tool.consume("reviews")
    assert sorted((one["key"], one["value"]) for one in found) == [("a", "one"), ("a", "three"), ("b", "two")]
    of_a = [one for one in found if one["key"] == "a"]
    assert len({one["partition"] for one in of_a}) == 1 and [one["value"] for one in of_a] == ["one", "three"]
    # And made-up ones, of which some are poison.
    said = tool("produce", "reviews", "--numbered", str(RECORDS), "--poison", "0.2", "--seed", "3")
    assert said.startswith(f"{RECORDS} records, ") and said.endswith(" of them poison, seed 3\n")
    numbered = [one for one in tool.consume("reviews") if "id" in one["headers"]]
    assert sorted(int(one["headers"]["id"]) for one in numbered) == list(range(RECORDS))
    assert f"topic reviews: 3 partitions, offsets up to {RECORDS + 3}" in tool("status")
    # Written records outlive a kill.
    tool("kill", "1")
    down = tool.ask("status")
    assert down.returncode == 1 and f"broker 1 at 127.0.0.1:{tool.port}: down" in down.stdout
    tool("start", "1")
    assert len(tool.consume("reviews")) == RECORDS + 3
    tool("down")
    assert not tool.folder().exists()
    gone = tool.ask("status")
    assert gone.returncode == 1 and "no broker was started" in gone.stderr


@pytest.mark.parametrize("tool", [3], indirect=True)
def test_three_brokers_keep_records_that_one_of_them_loses(tool):
    assert tool.up().count("127.0.0.1:") == 3
    taken = tool.ask("up", "--port", str(tool.port))
    assert taken.returncode == 1 and f"port {tool.port} is taken" in taken.stderr
    tool("topic", "reviews", "--partitions", "3")
    tool("produce", "reviews", "--numbered", str(RECORDS))
    tool("kill", "2")
    # Two of three replicas must have a record, so the topic accepts records without the third.
    tool("produce", "reviews", given="one more\n")
    assert len(tool.consume("reviews")) == RECORDS + 1
    lines = tool("status").splitlines()
    assert [line.split(": ")[1][:4] for line in lines[:3]] == ["up, ", "down", "up, "]
