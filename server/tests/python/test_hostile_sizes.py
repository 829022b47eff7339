"""Messages that are small on the wire and large in memory: refused before they are decoded, and nothing is kept."""

import json
import re
import resource
import socket
import struct
import threading
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from conftest import SENTIMENT, eventually

MIB = 1 << 20
ADDRESS_SPACE = 4 << 30
# One request inflates to 64 MiB; its buffer grows by quarters, and the rest is the server's own.
PEAK_MAX = 3 * 64 * MIB + MIB
# Memory that the allocator keeps after it was freed.
KEPT_MAX = 48 * MIB

SERVICE = "/inference.GRPCInferenceService/"
UNLIMITED = [("grpc.max_send_message_length", -1)]


@pytest.fixture
def limited(launch):
    """A server that 4 GiB of addresses are all there are for."""
    server = launch("", {"sentiment": SENTIMENT})
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    return server


class Memory:
    """Resident memory from now on."""

    def __init__(self, server):
        self.process = Path(f"/proc/{server.process.pid}")
        (self.process / "clear_refs").write_text("5")
        self.before = self.now("VmRSS")

    def now(self, name):
        return int(re.search(rf"{name}:\s+(\d+) kB", (self.process / "status").read_text())[1]) * 1024

    def check(self, peak_max=PEAK_MAX):
        peak = self.now("VmHWM") - self.before
        assert peak <= peak_max, f"{peak / MIB:.0f} MiB"
        eventually(lambda: self.now("VmRSS") - self.before <= KEPT_MAX, "the memory to come back")


def varint(number):
    bytes_ = bytearray()
    while number >= 0x80:
        bytes_.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(bytes_ + bytes([number]))


def field(number, contents):
    return bytes([number << 3 | 2]) + varint(len(contents)) + contents


def valid():
    message = service_pb2.ModelInferRequest(model_name="sentiment")
    message.inputs.add(name="text", datatype="BYTES", shape=[1])
    message.raw_input_contents.append(struct.pack("<I", 14) + b"a lovely thing")
    return message


NAME = field(1, b"sentiment")
FILL = 31 * MIB
HOSTILE = {
    "inputs": NAME + field(5, b"") * FILL,
    "outputs": NAME + field(6, b"") * FILL,
    "raw_input_contents": NAME + field(7, b"") * FILL,
    "shape": NAME + field(5, field(3, b"\1" * FILL)),
    "int64_contents": NAME + field(5, field(5, field(3, b"\1" * FILL))),
    "bytes_contents": NAME + field(5, field(5, field(8, b"") * FILL)),
}


@pytest.fixture
def requests_beside(limited):
    """Valid requests, one after the other while the test runs. All must be answered."""
    over, failures, done = threading.Event(), [], 0

    def run():
        nonlocal done
        with grpc.insecure_channel(limited.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not over.is_set():
                try:
                    stub.ModelInfer(valid(), timeout=60)
                    done += 1
                except grpc.RpcError as error:
                    failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    over.set()
    thread.join()
    assert not failures and done > 0, failures


@pytest.mark.usefixtures("requests_beside")
def test_millions_of_elements_in_a_few_kilobytes(limited):
    with grpc.insecure_channel(limited.grpc, options=UNLIMITED, compression=grpc.Compression.Gzip) as channel:
        unary = channel.unary_unary(SERVICE + "ModelInfer")
        stream = channel.stream_stream(SERVICE + "ModelStreamInfer")
        text = channel.unary_unary("/penstock.v1.TextService/ScoreBatch")
        texts = field(1, field(1, b"sentiment")) + field(2, b"") * FILL
        calls = [(name, lambda m=message: unary(m, timeout=60)) for name, message in HOSTILE.items()]
        calls += [("inputs", lambda: next(stream(iter([HOSTILE["inputs"]]), timeout=60)))]
        calls += [("texts", lambda: text(texts, timeout=60))]
        for name, call in calls:
            memory = Memory(limited)
            with pytest.raises(grpc.RpcError) as refused:
                call()
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT, refused.value
            assert f'"{name}"' in refused.value.details()
            memory.check()


def test_as_many_values_as_a_json_body_holds(limited):
    one = b'{"name":"","datatype":"","shape":[]},'
    bodies = [
        b'{"inputs":[' + b"{}," * (5 * MIB) + b"{}]}",
        b'{"inputs":[' + one * (5 * MIB // 4) + one[:-1] + b"]}",
        b'{"inputs":[{"name":"text","datatype":"BYTES","shape":[' + b"1," * (8 * MIB) + b'1],"data":[]}]}',
        b'{"inputs":[],"parameters":{' + b'"":0,' * (4 * MIB) + b'"":0}}',
    ]
    for path in ("/v2/models/sentiment/infer", "/predict", "/v1/embeddings"):
        for body in bodies:
            memory = Memory(limited)
            request = urllib.request.Request(f"http://{limited.http}{path}", data=body)
            request.add_header("content-type", "application/json")
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=60)
            assert refused.value.code == 400
            assert "too many values" in str(json.loads(refused.value.read()))
            memory.check(3 * len(body) + MIB + 16 * MIB)


class Connection:
    """HTTP/2 by hand: half a message, which no client library sends."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def call(self, method, data, end=False, encoding="identity"):
        stream = self.h2.get_next_available_stream_id()
        headers = {":method": "POST", ":scheme": "http", ":path": SERVICE + method, ":authority": "penstock"}
        headers |= {"content-type": "application/grpc", "te": "trailers", "grpc-encoding": encoding}
        self.h2.send_headers(stream, headers.items())
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()
        return stream

    def trailers(self, stream):
        """Until the call ends: its trailers."""
        while True:
            for event in self.h2.receive_data(self.socket.recv(65536)):
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, (h2.events.TrailersReceived, h2.events.ResponseReceived)):
                    headers = dict(event.headers)
                    if "grpc-status" in headers:
                        return headers
            self.flush()


@pytest.mark.usefixtures("requests_beside")
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_a_claimed_length_takes_no_memory(limited, method):
    claim = b"\0" + struct.pack(">I", 64 * MIB)
    memory = Memory(limited)
    connection = Connection(limited.grpc)
    streams = [connection.call(method, claim) for _ in range(99)]
    # The calls are there, and wait for the rest of their messages.
    last = connection.call("ServerLive", b"\0" + bytes(4), end=True)
    assert connection.trailers(last)["grpc-status"] == "0"
    memory.check(16 * MIB)
    for stream in streams:
        connection.h2.end_stream(stream)
    connection.flush()
    assert connection.trailers(streams[-1])["grpc-status"] == "13"
    connection.socket.close()


def test_a_claim_beyond_the_limit_is_refused_at_its_header(limited):
    connection = Connection(limited.grpc)
    trailers = connection.trailers(connection.call("ModelInfer", b"\0" + struct.pack(">I", 64 * MIB + 1)))
    assert trailers["grpc-status"] == "11"
    connection.socket.close()


def test_health_and_reflection_take_no_large_message(limited):
    large = field(1, b"x" * 70_000)
    with grpc.insecure_channel(limited.grpc) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/grpc.health.v1.Health/Check")(large, timeout=20)
        assert refused.value.code() == grpc.StatusCode.OUT_OF_RANGE
        # tonic's reflection ends its stream where a request cannot be read, and says nothing.
        reflection = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        assert list(reflection(iter([large]), timeout=20)) == []


def test_an_idle_stream_keeps_nothing_of_its_messages(limited):
    # An unknown field, so that all of it is received and nothing of it means anything.
    large = valid().SerializeToString() + field(15, bytes(63 * MIB))
    memory = Memory(limited)
    with grpc.insecure_channel(limited.grpc, options=UNLIMITED, compression=grpc.Compression.Gzip) as channel:
        method = channel.stream_stream(SERVICE + "ModelStreamInfer")
        over, streams = threading.Event(), []

        def one_and_then_silence():
            yield large
            over.wait()

        for _ in range(16):
            streams.append(method(one_and_then_silence()))
            answer = service_pb2.ModelStreamInferResponse.FromString(next(streams[-1]))
            assert not answer.error_message and answer.infer_response.model_name == "sentiment"
        memory.check()
        over.set()
        for stream in streams:
            assert list(stream) == []


def test_more_calls_than_streams_max_wait_in_the_client(launch):
    server = launch("[limits]\nstreams_max = 2\n", {"sentiment": SENTIMENT})
    with grpc.insecure_channel(server.grpc) as channel:
        method = channel.stream_stream(SERVICE + "ModelStreamInfer")
        over = threading.Event()

        def one_and_then_silence():
            yield valid().SerializeToString()
            over.wait()

        streams = [method(one_and_then_silence()) for _ in range(2)]
        for stream in streams:
            next(stream)
        waiting = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(valid())
        with pytest.raises(grpc.FutureTimeoutError):
            waiting.result(0.5)
        over.set()
        assert waiting.result(30).model_name == "sentiment"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_messages_compressed_by_the_call(limited, encoding):
    compression = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}[encoding]
    with grpc.insecure_channel(limited.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(valid(), compression=compression).model_name == "sentiment"
