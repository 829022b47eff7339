"""Bounds over gRPC: a full queue, a client that leaves, a client that never reads."""

import itertools
import struct
import threading
import time

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from conftest import MINILM, eventually
from penstock_v1 import pb, rpc

LONG = b"a word or two " * 40


def request(texts):
    message = service_pb2.ModelInferRequest(model_name="minilm")
    message.inputs.add(name="text", datatype="BYTES", shape=[len(texts)])
    message.raw_input_contents.append(b"".join(struct.pack("<I", len(t)) + t for t in texts))
    return message


def inference(server):
    channel = grpc.insecure_channel(server.grpc)
    return channel, service_pb2_grpc.GRPCInferenceServiceStub(channel)


def batches(stub):
    """How many have run; one of them holds some 60 texts like `LONG`."""
    (one,) = stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name="minilm")).model_stats
    return one.execution_count


def test_a_full_queue_is_unavailable_and_says_when_to_come_back(launch):
    server = launch("[limits]\nqueue_texts_max = 4\n", {"minilm": MINILM})
    channel, stub = inference(server)
    with channel:
        # Larger than the queue: it enters piece by piece, and keeps the queue full meanwhile.
        large = stub.ModelInfer.future(request([LONG] * 400))

        def refused():
            try:
                stub.ModelInfer(request([b"a"]))
                return None
            except grpc.RpcError as error:
                return error

        error = eventually(refused, "a refusal from a full queue")
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "full" in error.details()
        assert int(dict(error.trailing_metadata())["retry-after"]) >= 1
        assert len(large.result(120).raw_output_contents[0]) == 400 * 384 * 4, "what was accepted is answered"
        stub.ModelInfer(request([b"a"]))


def test_a_stream_waits_where_a_single_request_is_refused(launch):
    server = launch("[limits]\nqueue_texts_max = 4\n", {"minilm": MINILM})
    with grpc.insecure_channel(server.grpc) as channel:
        sent = [pb.ScoreRequest(options=pb.ScoreOptions(model="minilm"))]
        sent += [pb.ScoreRequest(texts=[pb.Text(id=str(i), text=f"text {i}")]) for i in range(500)]
        results = [r for response in rpc.TextServiceStub(channel).Score(iter(sent)) for r in response.results]
    assert sorted(int(r.id) for r in results) == list(range(500))
    assert not any(r.HasField("error") for r in results)


def test_a_client_that_leaves_costs_no_more_compute(launch):
    server = launch(models={"minilm": MINILM})
    channel, stub = inference(server)
    with channel:
        call = stub.ModelInfer.future(request([LONG] * 8000))
        eventually(lambda: batches(stub) > 0, "the first batch")
        call.cancel()
        stub.ModelInfer(request([b"a"]), timeout=30)  # no longer behind 8000 texts
        count = batches(stub)
        assert count < 8000 / 64 / 2
        stub.ModelInfer(request([b"a"]), timeout=30)
        assert batches(stub) == count + 1, "nothing of what was cancelled still runs"


def test_a_client_that_vanishes_from_a_stream(launch):
    server = launch(models={"minilm": MINILM})
    channel, stub = inference(server)
    with channel:
        with grpc.insecure_channel(server.grpc) as other:
            endless = (
                pb.ScoreRequest(
                    options=pb.ScoreOptions(model="minilm") if i == 0 else None,
                    texts=[pb.Text(id=str(i), text=LONG.decode())],
                )
                for i in itertools.count()
            )
            responses = rpc.TextServiceStub(other).Score(endless)
            next(responses)
        # The other channel is closed now, its stream with it.
        stub.ModelInfer(request([b"a"]), timeout=30)

        def quiet():
            before = batches(stub)
            time.sleep(0.5)
            return batches(stub) == before

        eventually(quiet, "an idle server")


@pytest.mark.parametrize("texts_per_message", [1, 16])
def test_a_client_that_never_reads_is_not_read_from(launch, texts_per_message):
    server = launch("[limits]\nstream_in_flight_max = 16\n", {"minilm": MINILM})
    pulled = 0

    def endless():
        nonlocal pulled
        yield pb.ScoreRequest(options=pb.ScoreOptions(model="minilm"))
        # Two kilobytes of which the model reads a few tokens: the wire fills, not the model's time.
        text = pb.Text(id="x" * 2000, text="a")
        while True:
            pulled += 1
            yield pb.ScoreRequest(texts=[text] * texts_per_message)

    small = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * 1024)]
    with grpc.insecure_channel(server.grpc, options=small) as channel:
        responses = rpc.TextServiceStub(channel).Score(endless())
        next(responses)
        seen = -1

        def stopped():
            nonlocal seen
            before, seen = seen, pulled
            time.sleep(1)
            return before == pulled

        eventually(stopped, "the server to stop reading", timeout=60)
        stuck, resident = pulled, server.resident_bytes()
        time.sleep(2)
        assert pulled == stuck
        assert server.resident_bytes() - resident < 8 * 2**20, "nothing grows while it waits"
        # Others are served, and reading on lets it go on.
        other, stub = inference(server)
        with other:
            stub.ModelInfer(request([b"a"]), timeout=30)
        for _ in itertools.islice(responses, 3 * stuck):
            pass
        assert pulled > stuck
        responses.cancel()


def test_more_clients_than_connections_wait_their_turn(launch):
    server = launch("[limits]\nconnections_max = 2\n", {"minilm": MINILM})
    unshared = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(server.grpc, options=unshared) for _ in range(3)]
    stubs = [service_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in channels]
    for stub in stubs[:2]:
        stub.ModelInfer(request([b"a"]), timeout=30)
    waiting = stubs[2].ModelInfer.future(request([b"a"]), timeout=30, wait_for_ready=True)
    with pytest.raises(grpc.FutureTimeoutError):
        waiting.result(0.5)
    channels[0].close()
    assert waiting.result(30).model_name == "minilm"
    for channel in channels[1:]:
        channel.close()


def test_many_clients_at_once(server):
    """64 threads on their own connections: every request is answered with its own texts."""
    wrong = []

    def run(k):
        channel, stub = inference(server)
        with channel:
            for i in range(5):
                texts = [f"client {k} text {i} {j}".encode() for j in range(k % 5 + 1)]
                response = stub.ModelInfer(request(texts), timeout=120)
                if response.outputs[0].shape[0] != len(texts):
                    wrong.append(k)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
