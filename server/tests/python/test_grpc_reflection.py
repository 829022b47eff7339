"""Health and reflection, asked with grpcurl: a client that knows nothing of the server beforehand."""

import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

GRPCURL = Path(sys.executable).parent / "grpcurl"
SERVICES = ["", "inference.GRPCInferenceService", "penstock.v1.TextService"]


def grpcurl(server, *arguments, data=None):
    before = ["-plaintext"] + (["-d", json.dumps(data)] if data is not None else [])
    return subprocess.run([GRPCURL, *before, server.grpc, *arguments], capture_output=True, text=True, timeout=60)


def test_the_services_are_listed(server):
    listed = grpcurl(server, "list").stdout.split()
    for name in [*SERVICES[1:], "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]:
        assert name in listed


def test_a_method_is_described_with_its_comments(server):
    described = grpcurl(server, "describe", "penstock.v1.TextService.Score").stdout
    assert "rpc Score ( stream .penstock.v1.ScoreRequest ) returns ( stream .penstock.v1.ScoreResponse )" in described
    assert "Scores a stream of texts" in described


def test_a_text_is_scored_by_reflection_alone(server):
    data = {"options": {"model": "sentiment"}, "texts": [{"id": "a", "text": "A wonderful film."}]}
    scored = json.loads(grpcurl(server, "penstock.v1.TextService/ScoreBatch", data=data).stdout)
    (result,) = scored["results"]
    assert result["id"] == "a"
    assert result["classification"]["label"] in scored["model"]["labels"]


def test_the_newer_reflection_answers_too(server):
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        list_services = b"\x3a\x01*"
        (answer,) = call(iter([list_services]))
    assert all(name.encode() in answer for name in SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_served_names_have_a_health(server, name):
    answer = grpcurl(server, "grpc.health.v1.Health/Check", data={"service": name})
    assert json.loads(answer.stdout) == {"status": "SERVING"}


def test_other_names_have_no_health(server):
    for method in ("Check", "Watch"):
        answer = grpcurl(server, f"grpc.health.v1.Health/{method}", data={"service": "nobody"})
        assert answer.returncode != 0
        assert "NotFound" in answer.stderr and "nobody" in answer.stderr
