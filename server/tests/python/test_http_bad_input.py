"""Refusals over HTTP: their status, their form, and messages that name the thing and the value."""

import json

import pytest

from test_http_kserve import call

INFER = "/v2/models/minilm/infer"


def body(**changes):
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]} | changes
    return json.dumps({"inputs": [tensor]})


def with_top(**more):
    return json.dumps(json.loads(body()) | more)


def binary(size, raw, **headers):
    head = json.dumps(
        {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}]}
    ).encode()
    return head + raw, {"Inference-Header-Content-Length": str(len(head))} | headers


TEXT = b"\x01\x00\x00\x00a"

CASES = {
    "nothing": ("", 400, ["not JSON", "EOF"]),
    "no JSON": ("{]", 400, ["not JSON", "line 1 column 2"]),
    "half a JSON": (body()[:-5], 400, ["EOF"]),
    "another JSON": ("[]", 400, ["not what this route takes"]),
    "not UTF-8": (body(data=["@"]).replace("@", "\udcff").encode("utf-8", "surrogateescape"), 400, ["unicode"]),
    "half a surrogate": (body(data=["@"]).replace("@", "\\ud800"), 400, ["hex escape"]),
    "nested too deep": (body(data="@").replace('"@"', "[" * 10_000), 400, ["recursion limit"]),
    "no inputs": ("{}", 400, ["inputs"]),
    "empty inputs": ('{"inputs": []}', 400, ["no input", '"text"']),
    "wrong tensor name": (body(name="sentence"), 400, ["sentence", '"text"']),
    "wrong dtype": (body(datatype="INT32", data=[1]), 400, ["INT32", "BYTES"]),
    "numbers for texts": (body(data=[1]), 400, ["element 0", "a number"]),
    "shape of two columns": (body(shape=[1, 2], data=["a", "b"]), 400, ["[1, 2]", "[n] or [n,1]"]),
    "shape that does not fit": (body(shape=[3]), 400, ["1 elements", "says 3"]),
    "negative shape": (body(shape=[-1]), 400, ["[-1]"]),
    "shape of a fraction": (body(shape=[0.5]), 400, ["0.5"]),
    "empty batch": (body(shape=[0], data=[]), 400, ["no text"]),
    "no data": (json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1]}]}), 400, ["no BYTES"]),
    "too many texts": (body(shape=[8193], data=[""] * 8193), 400, ["8193", "max_request_texts = 8192"]),
    "unknown parameter": (with_top(parameters={"prio": 1}), 400, ["prio", "priority"]),
    "parameter of a wrong kind": (with_top(parameters={"truncate": [1]}), 400, ["string, a number or a bool"]),
    "wrong timeout": (with_top(parameters={"timeout": "1s"}), 400, ["1s", "microseconds"]),
    "too many dimensions": (with_top(parameters={"dimensions": 385}), 400, ["385", "384"]),
    "unknown output": (with_top(outputs=[{"name": "score"}]), 400, ["score", "embedding"]),
    "wrong binary_data": (with_top(outputs=[{"name": "embedding", "parameters": {"binary_data": 1}}]), 400, ["bool"]),
    "text over the window": (
        with_top(inputs=[{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["word " * 600]}],
                 parameters={"truncate": False}), 400, ["256"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_request_gets_the_reason(server, name):
    sent, status, words = CASES[name]
    got, headers, answer = call(server, "POST", INFER, sent)
    assert got == status, answer
    error = json.loads(answer)
    assert list(error) == ["error"] and headers["Content-Type"] == "application/json"
    for word in words:
        assert word in error["error"], error
    assert len(error["error"]) < 500
    assert "Retry-After" not in headers, "the same request will never work"


BINARY = {
    "size beyond the body": (binary(6, TEXT), ["5 bytes follow"]),
    "size short of the body": (binary(4, TEXT), ["belong to no input"]),
    "negative size": (binary(-1, TEXT), ["does not fit"]),
    "length beyond the body": (binary(5, TEXT, **{"Inference-Header-Content-Length": "100000"}), ["100000"]),
    "length that is no number": (binary(5, TEXT, **{"Inference-Header-Content-Length": "x"}), ['"x"']),
    "element cut off": (binary(5, b"\x09\x00\x00\x00a"), ["element 0", "9 bytes", "1 follow"]),
    "not UTF-8": (binary(5, b"\x01\x00\x00\x00\xff"), ["element 0", "UTF-8"]),
    "more elements than the shape": (binary(10, TEXT * 2), ["bytes more"]),
}


@pytest.mark.parametrize("name", BINARY)
def test_bad_binary_data_gets_the_reason(server, name):
    (sent, headers), words = BINARY[name]
    status, _, answer = call(server, "POST", INFER, sent, headers)
    assert status == 400, answer
    for word in words:
        assert word in json.loads(answer)["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/v2/models/nobody/infer", 404, ["nobody", "minilm", "sentiment"]),
        ("POST", "/v2/models/minilm/versions/9/infer", 404, ["9"]),
        ("POST", "/v2/models/minilm/versions/new/infer", 400, ["new", "latest"]),
        ("GET", "/v2/models/nobody", 404, ["nobody"]),
        ("GET", "/v2/models/nobody/stats", 404, ["nobody"]),
        ("GET", "/v2/models/%ff", 400, ["UTF-8"]),
        ("GET", "/v2/nothing", 404, ["/v2/nothing"]),
        ("GET", INFER, 405, ["method"]),
        ("POST", "/v2/health/live", 405, ["method"]),
        ("GET", "/v1/nothing", 404, ["/v1/nothing"]),
        ("GET", "/nothing", 404, ["/nothing"]),
        ("DELETE", "/embed", 405, ["method"]),
    ],
)
def test_an_unknown_place_is_told_in_the_dialect_of_its_route(server, method, path, status, words):
    got, headers, answer = call(server, method, path, body() if method == "POST" else None)
    assert got == status, answer
    error = json.loads(answer)
    message = error["error"]["message"] if path.startswith("/v1") else error["error"]
    for word in words:
        assert word in message
    if not path.startswith(("/v1", "/v2")):
        assert error["error_type"] == "Validation"
    if status == 405:
        assert headers["Allow"], "which methods there are"


def test_an_unknown_encoding_is_refused(server):
    status, _, answer = call(server, "POST", INFER, body(), {"Content-Encoding": "br"})
    assert status == 415 and "gzip, deflate" in json.loads(answer)["error"]


def test_a_deadline_that_cannot_be_met_is_504(server):
    sent = json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [500], "data": ["word " * 200] * 500}],
                       "parameters": {"timeout": 1}})
    status, headers, answer = call(server, "POST", INFER, sent)
    assert status == 504 and "deadline" in json.loads(answer)["error"]
    assert "Retry-After" not in headers
