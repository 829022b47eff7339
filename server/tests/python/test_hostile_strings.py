"""Strings that are no texts, and calls that never end: bounded, and refused in few words."""

import gzip
import json
import struct
import urllib.error
import urllib.request

import grpc
import pytest
from test_hostile_sizes import MIB, NAME, SERVICE, UNLIMITED, Connection, Memory, field, limited, valid

assert limited

LONG = b"\x7f" * (60 * MIB)
# Longest message of an answer, and what is around it.
ANSWER_MAX = 4096


def send(connection, method, message):
    """Sends a whole compressed message, without the end of the call."""
    packed = gzip.compress(message, 1)
    stream = connection.call(method, b"\1" + struct.pack(">I", len(packed)), encoding="gzip")
    for begin in range(0, len(packed), 16384):
        chunk = packed[begin : begin + 16384]
        while connection.h2.local_flow_control_window(stream) < len(chunk):
            connection.h2.receive_data(connection.socket.recv(65536))
        connection.h2.send_data(stream, chunk)
        connection.flush()
    return stream


def test_a_whole_message_without_an_end_stays_counted(limited):
    message = NAME + field(7, bytes(63 * MIB))
    connections = [Connection(limited.grpc) for _ in range(2)]
    for _ in range(30):
        for connection in connections:
            connection_alive(connection)
            send(connection, "ModelInfer", message)
    for connection in connections:
        connection.socket.close()
    with grpc.insecure_channel(limited.grpc) as channel:
        infer = channel.unary_unary(SERVICE + "ModelInfer")
        assert infer(valid().SerializeToString(), timeout=60, wait_for_ready=True)


def connection_alive(connection):
    """Takes what the server has sent, without waiting for more."""
    connection.socket.settimeout(0.01)
    try:
        connection.h2.receive_data(connection.socket.recv(65536))
    except TimeoutError:
        pass
    connection.socket.settimeout(20)


def test_a_call_ends_soon_after_its_message(limited):
    connection = Connection(limited.grpc)
    stream = send(connection, "ModelInfer", valid().SerializeToString())
    trailers = connection.trailers(stream)
    assert trailers["grpc-status"] == "4" and "has not ended" in trailers["grpc-message"]
    connection.socket.close()


def test_a_unary_call_has_one_message(limited):
    connection = Connection(limited.grpc)
    stream = send(connection, "ModelInfer", valid().SerializeToString())
    connection.h2.send_data(stream, b"\0" + bytes(4))
    connection.flush()
    trailers = connection.trailers(stream)
    assert trailers["grpc-status"] == "3" and "several%20messages" in trailers["grpc-message"].replace(" ", "%20")
    connection.socket.close()


MESSAGES = {
    "ModelInfer": [field(1, LONG), NAME + field(3, LONG), NAME + field(2, LONG), NAME + field(5, field(1, LONG))],
    "ModelMetadata": [field(1, LONG)],
    "ModelStatistics": [field(1, LONG)],
    "RepositoryModelLoad": [field(2, LONG), field(1, LONG)],
}


def test_a_long_name_is_refused_in_few_words(limited):
    with grpc.insecure_channel(limited.grpc, options=UNLIMITED, compression=grpc.Compression.Gzip) as channel:
        calls = [(channel.unary_unary(SERVICE + method), one) for method, all in MESSAGES.items() for one in all]
        scores = channel.unary_unary("/penstock.v1.TextService/ScoreBatch")
        calls.append((scores, field(1, field(1, LONG))))
        calls.append((scores, field(1, NAME) + field(2, field(1, LONG) + field(2, b"a"))))
        for call, message in calls:
            memory = Memory(limited)
            with pytest.raises(grpc.RpcError) as refused:
                call(message, timeout=60)
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT, refused.value
            assert "only texts may have more" in refused.value.details()
            memory.check()


BODIES = {
    "/v1/embeddings": ['{"model":"L","input":"a"}', '{"model":"sentiment","input":"a","dimensions":"L"}', '{"L":1}'],
    "/embed": ['{"inputs":"a","prompt_name":"L"}', '{"inputs":"a","truncate":"L"}', '{"inputs":{"L":1}}'],
    "/v2/models/sentiment/infer": ['{"id":"L","inputs":[]}', '{"inputs":"L"}', '{"inputs":[{"name":"L"}]}'],
    "/v2/repository/models/sentiment/load": ['{"parameters":{"L":1}}'],
    "/v2/repository/index": ['{"ready":"L"}'],
}


@pytest.mark.parametrize("path", BODIES)
def test_a_long_string_in_a_body_is_refused_in_few_words(limited, path):
    for body in BODIES[path]:
        data = body.encode().replace(b"L", LONG)
        memory = Memory(limited)
        request = urllib.request.Request(f"http://{limited.http}{path}", data=data)
        request.add_header("content-type", "application/json")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        answer = refused.value.read()
        assert refused.value.code == 400 and len(answer) < ANSWER_MAX, body
        assert "only texts may have more" in str(json.loads(answer))
        memory.check(3 * len(data) + MIB + 16 * MIB)
