"""Refusals over gRPC: their codes, and messages that name the thing and the value."""

import struct

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(model="minilm", name="text", datatype="BYTES", shape=(1,), texts=(b"a",), **more):
    message = service_pb2.ModelInferRequest(model_name=model, **more)
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    message.raw_input_contents.append(b"".join(struct.pack("<I", len(t)) + t for t in texts))
    return message


def with_raw(raw):
    message = request()
    message.raw_input_contents[0] = raw
    return message


def with_parameter(name, **value):
    message = request()
    message.parameters[name].MergeFrom(service_pb2.InferParameter(**value))
    return message


def with_output(name, **parameters):
    message = request()
    output = message.outputs.add(name=name)
    for key, value in parameters.items():
        output.parameters[key].int64_param = value
    return message


def without_inputs():
    return service_pb2.ModelInferRequest(model_name="minilm")


def two_inputs():
    message = request()
    message.inputs.add(name="text", datatype="BYTES", shape=[1])
    message.raw_input_contents.append(message.raw_input_contents[0])
    return message


def in_shared_memory():
    message = request()
    message.inputs[0].parameters["shared_memory_region"].string_param = "region"
    return message


INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND

CASES = {
    "wrong tensor name": (request(name="sentence"), INVALID, ["sentence", '"text"']),
    "wrong dtype": (request(datatype="FP32"), INVALID, ["FP32", "BYTES"]),
    "shape of two columns": (request(shape=[1, 2]), INVALID, ["[1, 2]", "[n] or [n,1]"]),
    "negative shape": (request(shape=[-1]), INVALID, ["[-1]"]),
    "shape that does not fit": (request(shape=[3]), INVALID, ["1 elements", "says 3"]),
    "empty batch": (request(shape=[0], texts=()), INVALID, ["no text"]),
    "no input": (without_inputs(), INVALID, ["no input", '"text"']),
    "input given twice": (two_inputs(), INVALID, ["twice"]),
    "not UTF-8": (request(shape=[2], texts=(b"a", b"\xff\xfe")), INVALID, ["element 1", "UTF-8"]),
    "cut off": (with_raw(b"\x09\x00\x00\x00abc"), INVALID, ["element 0", "9 bytes", "3 follow"]),
    "too many texts": (request(shape=[8193], texts=[b""] * 8193), INVALID, ["8193", "max_request_texts = 8192"]),
    "unknown model": (request(model="nobody"), NOT_FOUND, ["nobody", "minilm", "sentiment"]),
    "unknown version": (request(model_version="9"), NOT_FOUND, ["9"]),
    "version that is no number": (request(model_version="new"), INVALID, ["new", "latest"]),
    "unknown parameter": (with_parameter("prio", int64_param=1), INVALID, ["prio", "priority"]),
    "wrong priority": (with_parameter("priority", string_param="urgent"), INVALID, ["urgent", "bulk"]),
    "wrong timeout": (with_parameter("timeout", string_param="1s"), INVALID, ["1s", "microseconds"]),
    "negative timeout": (with_parameter("timeout", int64_param=-1), INVALID, ["-1"]),
    "wrong dimensions": (with_parameter("dimensions", int64_param=385), INVALID, ["385", "1 to 384"]),
    "unknown output": (with_output("logits"), INVALID, ["logits", "embedding"]),
    "classification strings": (with_output("embedding", classification=3), INVALID, ["classification"]),
    "shared memory": (in_shared_memory(), INVALID, ["shared memory"]),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_with_its_reason(stub, case):
    message, code, words = CASES[case]
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(message)
    assert refused.value.code() == code, refused.value.details()
    for word in words:
        assert word in refused.value.details()


def test_the_model_still_answers_after_all_of_it(stub):
    assert len(stub.ModelInfer(request()).raw_output_contents[0]) == 384 * 4


def test_garbage_is_the_clients_fault(server):
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for garbage in (b"\xff\xff\xff", b"\x0a\xffabc", b"\x0a\x02\xff\xfe"):
            with pytest.raises(grpc.RpcError) as refused:
                call(garbage)
            assert refused.value.code() == INVALID


def test_a_method_that_is_not_there(server):
    with grpc.insecure_channel(server.grpc) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/inference.GRPCInferenceService/ModelTrain")(b"")
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_message_larger_than_the_limit(launch):
    server = launch('[limits]\nmax_request_bytes = "1MiB"\n')
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.ModelInfer(request(texts=[b"a" * 1_000_000]))
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request(texts=[b"a" * 1_100_000]))
        assert refused.value.code() == grpc.StatusCode.OUT_OF_RANGE
        assert "1048576" in refused.value.details()


def test_a_deadline_that_has_passed(stub):
    # Enough texts that no machine has scored them before a timer can tell that time is over.
    message = request(shape=[2000], texts=[b"a word or two " * 40] * 2000)
    timed = service_pb2.ModelInferRequest()
    timed.CopyFrom(message)
    timed.parameters["timeout"].int64_param = 1
    for message, options in ((timed, {}), (message, {"timeout": 0.0001})):
        with pytest.raises(grpc.RpcError) as late:
            stub.ModelInfer(message, **options)
        assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_deadline_is_answered_by_the_server_itself(server):
    """Clients end a call at their deadline by themselves; this one only says it has one."""
    message = request(shape=[2000], texts=[b"a word or two " * 40] * 2000)
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as late:
            call(message.SerializeToString(), metadata=[("grpc-timeout", "50m")])
        assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "deadline exceeded: " in late.value.details()
