"""The v2 REST API by Triton's own clients, sync and asyncio, and by plain HTTP as Flink's provider sends it."""

import asyncio
import gzip
import http.client
import json
import zlib

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

from conftest import SENTIMENT

TEXTS = ["a wonderful film", "what a waste of time", "", "naïve café 🎬"]


def text_input(texts, shape=None, binary=True, name="text"):
    data = np.array([t.encode() for t in texts], dtype=np.object_)
    tensor = triton.InferInput(name, shape or [len(texts)], "BYTES")
    tensor.set_data_from_numpy(data.reshape(shape or [len(texts)]), binary_data=binary)
    return tensor


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.http) as client:
        yield client


def call(server, method, path, body=None, headers=None):
    """One request on a connection of its own: status, headers, body."""
    connection = http.client.HTTPConnection(server.http, timeout=60)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def call_json(server, method, path, body=None, headers=None):
    status, _, answer = call(server, method, path, None if body is None else json.dumps(body), headers)
    return status, json.loads(answer) if answer else None


@pytest.mark.parametrize("binary", [True, False])
def test_token_ids_score_as_their_text(client, binary):
    expected = client.infer("minilm", [text_input([""])]).as_numpy("embedding")
    tensors = []
    for name, row in (("input_ids", [101, 102, 0]), ("attention_mask", [1, 1, 0])):
        tensor = triton.InferInput(name, [1, 3], "INT64")
        tensor.set_data_from_numpy(np.array([row], dtype=np.int64), binary_data=binary)
        tensors.append(tensor)
    np.testing.assert_array_equal(client.infer("minilm", tensors).as_numpy("embedding"), expected)


def test_server_and_models_describe_themselves(client):
    assert client.is_server_live() and client.is_server_ready()
    server = client.get_server_metadata()
    assert server["name"] == "penstock"
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(server["extensions"])
    for model in ("minilm", "sentiment"):
        assert client.is_model_ready(model) and client.is_model_ready(model, "1") and client.is_model_ready(model, "latest")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("minilm", "9")
    metadata = client.get_model_metadata("minilm")
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert metadata["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]
    names = [output["name"] for output in client.get_model_metadata("sentiment", "1")["outputs"]]
    assert names == ["label", "score", "probabilities", "logits"]
    config = client.get_model_config("minilm")
    assert config["name"] == "minilm" and config["max_batch_size"] == 0
    assert config["input"][0]["data_type"] == "TYPE_STRING"
    assert config["parameters"]["hidden"]["string_value"] == "384"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_embeddings_are_the_same_in_every_form(client, binary_in, binary_out):
    outputs = [triton.InferRequestedOutput("embedding", binary_data=binary_out)]
    result = client.infer("minilm", [text_input(TEXTS, binary=binary_in)], outputs=outputs, request_id="r 1")
    embedding = result.as_numpy("embedding")
    assert embedding.shape == (4, 384) and embedding.dtype == np.float32
    assert result.get_response()["id"] == "r 1"
    assert result.get_response()["model_name"] == "minilm" and result.get_response()["model_version"] == "1"
    reference = client.infer("minilm", [text_input(TEXTS)]).as_numpy("embedding")
    np.testing.assert_allclose(embedding, reference, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1.0, atol=1e-5)
    assert np.abs(embedding[0] - embedding[1]).max() > 0.01, "different texts differ"


def test_a_json_number_is_the_very_float(client):
    """Shortest round-trip digits: what is read back is the f32 that was computed."""
    text = [text_input(["exact"])]
    for _ in range(5):
        json_form = [triton.InferRequestedOutput("embedding", binary_data=False)]
        raw_form = [triton.InferRequestedOutput("embedding", binary_data=True)]
        a = client.infer("minilm", text, outputs=json_form).as_numpy("embedding")
        b = client.infer("minilm", text, outputs=raw_form).as_numpy("embedding")
        if np.array_equal(a, b):
            return
    pytest.fail("the JSON form never equalled the binary form")


def test_classification_outputs(client):
    names = ["logits", "label", "score", "probabilities"]
    asked = [triton.InferRequestedOutput(n, binary_data=i % 2 == 0) for i, n in enumerate(names)]
    result = client.infer("sentiment", [text_input(TEXTS, [4, 1])], outputs=asked)
    assert [output["name"] for output in result.get_response()["outputs"]] == names
    label, score = result.as_numpy("label"), result.as_numpy("score")
    probabilities, logits = result.as_numpy("probabilities"), result.as_numpy("logits")
    assert label.shape == score.shape == (4,)
    assert probabilities.shape == logits.shape and probabilities.shape[0] == 4
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(probabilities.max(axis=1), score, atol=0)
    default = client.infer("sentiment", [text_input(TEXTS)]).get_response()["outputs"]
    assert [output["name"] for output in default] == ["label", "score", "probabilities"], "logits only when asked for"


def test_parameters_of_a_request(client):
    ask = lambda **parameters: client.infer("minilm", [text_input(["one two"])], parameters=parameters)
    raw = ask(normalize=False).as_numpy("embedding")
    cut = ask(dimensions=16).as_numpy("embedding")
    assert cut.shape == (1, 16)
    expected = raw[:, :16] / np.linalg.norm(raw[:, :16])
    np.testing.assert_allclose(cut, expected, atol=1e-5)
    client.infer("minilm", [text_input(["a"])], priority=1, timeout=60_000_000)
    client.infer("minilm", [text_input(["a"])], parameters={"truncate": True})


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_by_tritons_client(client, algorithm):
    result = client.infer(
        "minilm",
        [text_input(TEXTS * 20)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert result.as_numpy("embedding").shape == (80, 384)


def test_statistics_count_served_requests(client, launch):
    server = launch()
    with triton.InferenceServerClient(server.http) as fresh:
        before = fresh.get_inference_statistics("minilm")["model_stats"][0]
        fresh.infer("minilm", [text_input(TEXTS)])
        with pytest.raises(triton.InferenceServerException):
            fresh.infer("minilm", [text_input(TEXTS, name="wrong")])
        after = fresh.get_inference_statistics("minilm", "1")["model_stats"][0]
        assert after["inference_count"] - before["inference_count"] == 4
        assert after["execution_count"] > before["execution_count"]
        success = after["inference_stats"]["success"]
        assert success["count"] == before["inference_stats"]["success"]["count"] + 1 and success["ns"] > 0
        assert after["inference_stats"]["fail"]["count"] == before["inference_stats"]["fail"]["count"] + 1
        names = [entry["name"] for entry in fresh.get_inference_statistics()["model_stats"]]
        assert sorted(names) == ["minilm", "sentiment"]


def test_models_are_controlled_only_where_that_is_switched_on(server):
    for action in ("load", "unload"):
        status, _, answer = call(server, "POST", f"/v2/repository/models/minilm/{action}", b"{}")
        assert status == 403 and "--model-control on" in json.loads(answer)["error"]
    with triton.InferenceServerClient(server.http) as client:
        assert client.is_model_ready("minilm")
        assert client.get_model_repository_index()


def test_a_page_of_another_site_controls_no_model(launch):
    server = launch('[server]\nmodel_control = "on"\n', {"sentiment": SENTIMENT})
    unload = "/v2/repository/models/sentiment/unload"
    foreign = {"Content-Type": "text/plain", "Origin": "http://evil.example"}
    status, _, answer = call(server, "POST", unload, b"", foreign)
    assert status == 403 and "evil.example" in json.loads(answer)["error"]
    assert call(server, "GET", "/v2/models/sentiment/ready")[0] == 200
    assert call(server, "POST", unload, b"", {"Origin": f"http://{server.http}"})[0] == 200


def test_the_repository_is_controlled(launch):
    server = launch('[server]\nmodel_control = "on"\n')
    with triton.InferenceServerClient(server.http) as client:
        index = {entry["name"]: entry for entry in client.get_model_repository_index()}
        assert index["minilm"] == {"name": "minilm", "version": "1", "state": "READY", "reason": ""}
        client.unload_model("minilm")
        assert not client.is_model_ready("minilm") and client.is_model_ready("sentiment")
        assert not client.is_server_ready(), "a configured model does not serve"
        with pytest.raises(triton.InferenceServerException) as refused:
            client.infer("minilm", [text_input(["a"])])
        assert refused.value.status() == "503"
        assert call_json(server, "POST", "/v2/repository/index", {"ready": True})[1][0]["name"] == "sentiment"
        client.load_model("minilm")
        assert client.is_model_ready("minilm") and client.is_server_ready()
        client.infer("minilm", [text_input(["a"])])
        with pytest.raises(triton.InferenceServerException) as refused:
            client.load_model("minilm", config='{"backend": "python"}')
        assert refused.value.status() == "400"
        with pytest.raises(triton.InferenceServerException) as refused:
            client.load_model("nobody")
        assert refused.value.status() == "404"


def test_the_asyncio_client(server):
    async def main():
        async with triton_aio.InferenceServerClient(server.http) as client:
            assert await client.is_server_ready()
            requests = [client.infer("minilm", [text_input([f"text {i}"] * (i % 3 + 1))]) for i in range(32)]
            for i, result in enumerate(await asyncio.gather(*requests)):
                assert result.as_numpy("embedding").shape == (i % 3 + 1, 384)

    asyncio.run(main())


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
def test_flinks_provider_fits(server, encoding):
    """One record a request, the column's name in capitals, shape [1] or [1,1], `latest`, an optional gzip body."""
    for shape, data in (([1], ["good"]), ([1, 1], ["good"]), ([1, 1], [["good"]])):
        body = {
            "id": "flink-1",
            "inputs": [{"name": "TEXT", "shape": shape, "datatype": "BYTES", "data": data}],
            "outputs": [{"name": "LABEL"}],
            "parameters": {"priority": 1},
        }
        body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        if encoding:
            body = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
            headers["Content-Encoding"] = encoding
        status, headers, answer = call(server, "POST", "/v2/models/sentiment/versions/latest/infer", body, headers)
        assert status == 200 and headers["Content-Type"] == "application/json"
        (output,) = json.loads(answer)["outputs"]
        assert output["name"] == "LABEL" and output["datatype"] == "BYTES" and output["shape"] == [1]
        assert isinstance(output["data"][0], str)


def test_more_texts_than_a_batch_holds_come_back_in_order(client):
    texts = [f"{'word ' * (i % 40)}{i}" for i in range(1000)]
    many = client.infer("minilm", [text_input(texts)]).as_numpy("embedding")
    assert many.shape == (1000, 384)
    for i in (0, 499, 999):
        alone = client.infer("minilm", [text_input([texts[i]])]).as_numpy("embedding")[0]
        np.testing.assert_allclose(many[i], alone, atol=1e-5)
