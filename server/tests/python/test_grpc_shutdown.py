"""SIGTERM under load: what was accepted is answered, what was not is told so, and the exit code is 0."""

import signal
import threading
import time

import grpc
from tritonclient.grpc import service_pb2

from conftest import MINILM, eventually
from penstock_v1 import pb, rpc
from test_grpc_limits import LONG, batches, inference, request

MODELS = {"minilm": MINILM}


def test_no_accepted_request_is_lost(launch):
    server = launch('[server]\ndrain_timeout = "5m"\n', MODELS)
    channel, stub = inference(server)
    with channel:
        large = stub.ModelInfer.future(request([LONG] * 200))
        eventually(lambda: batches(stub) > 0, "the large request at work")
        server.signal(signal.SIGTERM)
        eventually(lambda: not_ready(stub), "readiness to turn false")
        assert not large.done(), "the server had work left when it was told to stop"
        assert len(large.result(300).raw_output_contents[0]) == 200 * 384 * 4
    assert server.wait() == 0, server.log.read_text()


def not_ready(stub):
    """True once the server says so, or takes no calls any more."""
    try:
        return not stub.ServerReady(service_pb2.ServerReadyRequest()).ready
    except grpc.RpcError as error:
        return error.code() == grpc.StatusCode.UNAVAILABLE


def test_a_load_of_single_requests(launch):
    server = launch(models=MODELS)
    answered, refused = [], []
    stop = threading.Event()

    def run():
        channel, stub = inference(server)
        with channel:
            while not stop.is_set():
                try:
                    answered.append(stub.ModelInfer(request([b"some text"] * 4), timeout=60))
                except grpc.RpcError as error:
                    refused.append((error.code(), error.details()))
                    return

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(answered) > 100, "a steady load", timeout=60)
    server.signal(signal.SIGTERM)
    code = server.wait()
    stop.set()
    for thread in threads:
        thread.join()
    assert code == 0, server.log.read_text()
    # A connection that is cut is UNAVAILABLE too, and would be a loss.
    assert {code for code, _ in refused} == {grpc.StatusCode.UNAVAILABLE}, refused
    assert all("shutting down" in why or "failed to connect" in why for _, why in refused), refused


def test_an_open_stream_ends_with_unavailable_after_its_answers(launch):
    server = launch(models=MODELS)
    sent = 0

    def endless():
        nonlocal sent
        yield pb.ScoreRequest(options=pb.ScoreOptions(model="minilm", order=pb.ORDER_INPUT))
        while True:
            yield pb.ScoreRequest(texts=[pb.Text(id=str(sent), text=f"text {sent}")])
            sent += 1

    answered, refused = [], []
    with grpc.insecure_channel(server.grpc) as channel:
        responses = rpc.TextServiceStub(channel).Score(endless())
        try:
            for response in responses:
                for result in response.results:
                    (refused if result.HasField("error") else answered).append(int(result.id))
                if len(answered) == 200:
                    server.signal(signal.SIGTERM)
        except grpc.RpcError as error:
            ended = error
    assert ended.code() == grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in ended.details()
    assert answered == list(range(len(answered))), "no gap: everything that was read was answered, in order"
    assert refused == list(range(len(answered), len(answered) + len(refused)))
    assert len(answered) >= 200
    assert server.wait() == 0, server.log.read_text()


def test_an_idle_stream_and_a_health_watch_do_not_hold_the_server(launch):
    server = launch(models=MODELS)
    wait = threading.Event()

    def idle():
        yield pb.ScoreRequest(options=pb.ScoreOptions(model="minilm"))
        wait.wait(60)

    with grpc.insecure_channel(server.grpc) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert next(watch) == b"\x08\x01"
        responses = rpc.TextServiceStub(channel).Score(idle())
        next(responses)
        started = time.monotonic()
        server.signal(signal.SIGTERM)
        assert list(watch) == [b"\x08\x02"], "NOT_SERVING, and the end"
        assert server.wait() == 0, server.log.read_text()
        assert time.monotonic() - started < 10
        wait.set()
