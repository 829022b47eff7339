"""KServe v2 over gRPC with an unmodified tritonclient: what it answers when all is well."""

import asyncio

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
import grpc

from conftest import MINILM

TEXTS = ["A wonderful, warm film.", "Dull, dull, dull.", "", "é 漢字 🙂", "word " * 700]


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


def text_input(texts, shape=None, name="text", module=triton):
    shape = shape or [len(texts)]
    tensor = module.InferInput(name, shape, "BYTES")
    tensor.set_data_from_numpy(np.array([t.encode() for t in texts], dtype=object).reshape(shape))
    return tensor


def infer(client, model, texts, **more):
    return client.infer(model, [text_input(texts)], **more)


def names(result):
    return [output.name for output in result.get_response().outputs]


def test_the_server_and_its_models_are_alive_and_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    for model in ("sentiment", "minilm"):
        assert client.is_model_ready(model)
        assert client.is_model_ready(model, "1")
        assert client.is_model_ready(model, "latest")
        assert not client.is_model_ready(model, "2")
    assert not client.is_model_ready("nobody")


def ids_inputs(ids, mask, module=triton):
    tensors = []
    for name, rows in (("input_ids", ids), ("attention_mask", mask)):
        rows = np.array(rows, dtype=np.int64)
        tensor = module.InferInput(name, list(rows.shape), "INT64")
        tensor.set_data_from_numpy(rows)
        tensors.append(tensor)
    return tensors


def test_token_ids_score_as_their_text(client):
    expected = infer(client, "minilm", [""]).as_numpy("embedding")
    padded = client.infer("minilm", ids_inputs([[101, 102, 0]], [[1, 1, 0]])).as_numpy("embedding")
    np.testing.assert_array_equal(padded, expected)
    for ids, mask, words in (
        ([[101, 99999]], [[1, 1]], "vocabulary"),
        ([[101, 102]], [[0, 1]], "ones and then zeros"),
        ([[101, 102]], [[0, 0]], "empty"),
    ):
        with pytest.raises(triton.InferenceServerException, match=words):
            client.infer("minilm", ids_inputs(ids, mask))


def test_metadata_names_every_tensor(client):
    assert client.get_server_metadata().name == "penstock"
    sentiment = client.get_model_metadata("sentiment")
    assert list(sentiment.versions) == ["1"]
    assert [(t.name, t.datatype, list(t.shape)) for t in sentiment.inputs] == [("text", "BYTES", [-1])]
    outputs = {t.name: (t.datatype, list(t.shape)) for t in sentiment.outputs}
    labels = outputs["logits"][1][1]
    assert labels >= 2
    assert outputs == {
        "label": ("BYTES", [-1]),
        "score": ("FP32", [-1]),
        "probabilities": ("FP32", [-1, labels]),
        "logits": ("FP32", [-1, labels]),
    }
    minilm = client.get_model_metadata("minilm")
    assert [(t.name, t.datatype, list(t.shape)) for t in minilm.outputs] == [("embedding", "FP32", [-1, 384])]


def test_the_config_agrees_with_the_metadata(client):
    config = client.get_model_config("minilm").config
    assert (config.name, config.backend, config.max_batch_size) == ("minilm", "penstock", 0)
    assert [(t.name, list(t.dims)) for t in config.input] == [("text", [-1])]
    assert [(t.name, list(t.dims)) for t in config.output] == [("embedding", [-1, 384])]
    assert not config.model_transaction_policy.decoupled
    assert config.parameters["task"].string_value == "embedding"


def test_a_classification_is_consistent(client):
    result = infer(client, "sentiment", TEXTS, request_id="4711")
    assert result.get_response().id == "4711"
    assert result.get_response().model_version == "1"
    assert names(result) == ["label", "score", "probabilities"], "logits come only when asked for"
    probabilities = result.as_numpy("probabilities")
    assert probabilities.shape[0] == len(TEXTS)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(result.as_numpy("score"), probabilities.max(axis=1))
    labels = client.get_model_config("sentiment").config.parameters["labels"].string_value.split(",")
    best = [labels[i].encode() for i in probabilities.argmax(axis=1)]
    assert result.as_numpy("label").tolist() == best


def test_outputs_come_as_they_were_asked_for(client):
    asked = [triton.InferRequestedOutput(name) for name in ("LOGITS", "Label")]
    result = infer(client, "sentiment", TEXTS, outputs=asked)
    assert names(result) == ["LOGITS", "Label"]
    logits = result.as_numpy("LOGITS").astype(np.float64)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities = infer(client, "sentiment", TEXTS).as_numpy("probabilities")
    np.testing.assert_allclose(softmax, probabilities, atol=1e-5)


def test_an_embedding_is_shaped_as_asked(client):
    unit = infer(client, "minilm", TEXTS).as_numpy("embedding")
    assert unit.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    raw = infer(client, "minilm", TEXTS, parameters={"normalize": False}).as_numpy("embedding")
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(lengths - 1).max() > 0.01, "the model's own vectors are not of unit length"
    np.testing.assert_allclose(raw / lengths, unit, atol=1e-5)
    short = infer(client, "minilm", TEXTS, parameters={"dimensions": 64}).as_numpy("embedding")
    assert short.shape == (len(TEXTS), 64)
    cut = unit[:, :64] / np.linalg.norm(unit[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(short, cut, atol=1e-5)


def test_a_text_scores_the_same_alone_and_among_others(client):
    together = infer(client, "minilm", TEXTS).as_numpy("embedding")
    for i, text in enumerate(TEXTS):
        alone = infer(client, "minilm", [text]).as_numpy("embedding")
        np.testing.assert_allclose(alone[0], together[i], atol=1e-5)


def test_shape_n_1_and_names_in_capitals(client):
    tensor = text_input(TEXTS, [len(TEXTS), 1], "TEXT")
    result = client.infer("minilm", [tensor], model_version="latest")
    expected = infer(client, "minilm", TEXTS)
    np.testing.assert_allclose(result.as_numpy("embedding"), expected.as_numpy("embedding"), atol=1e-5)


def test_bytes_contents_instead_of_raw(server, client):
    request = service_pb2.ModelInferRequest(model_name="minilm", id="7")
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[len(TEXTS)])
    tensor.contents.bytes_contents.extend(t.encode() for t in TEXTS)
    with grpc.insecure_channel(server.grpc) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert response.id == "7"
    got = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(len(TEXTS), 384)
    np.testing.assert_allclose(got, infer(client, "minilm", TEXTS).as_numpy("embedding"), atol=1e-5)


def test_parameters_that_tritons_clients_send(client):
    infer(client, "minilm", ["a"], priority=1)
    infer(client, "minilm", ["a"], priority=2**63)
    infer(client, "minilm", ["a"], sequence_id=3, sequence_start=True, sequence_end=True)
    infer(client, "minilm", ["a"], timeout=20_000_000)
    infer(client, "minilm", ["a"], compression_algorithm="gzip")


@pytest.mark.parametrize("class_", ["interactive", "bulk"])
def test_priority_by_name(server, class_):
    request = service_pb2.ModelInferRequest(model_name="minilm")
    request.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a")
    request.parameters["priority"].string_param = class_
    with grpc.insecure_channel(server.grpc) as channel:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)


def test_more_texts_than_any_batch_holds(client):
    texts = [f"text {i % 10}" for i in range(5000)]
    got = infer(client, "minilm", texts).as_numpy("embedding")
    assert got.shape == (5000, 384)
    np.testing.assert_allclose(got, np.tile(got[:10], (500, 1)), atol=1e-5)


def test_a_text_of_ten_megabytes_is_truncated_or_refused_as_asked(client):
    huge = "abc def " * (10 * 1024 * 1024 // 8)
    got = infer(client, "minilm", [huge]).as_numpy("embedding")
    np.testing.assert_allclose(got, infer(client, "minilm", [huge[:40_000]]).as_numpy("embedding"), atol=1e-5)
    with pytest.raises(triton.InferenceServerException) as refused:
        infer(client, "minilm", [huge], parameters={"truncate": False})
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_aio_scores_many_at_once(server, client):
    async def run():
        async with triton_aio.InferenceServerClient(server.grpc) as aio:
            calls = [aio.infer("minilm", [text_input([t], module=triton_aio)]) for t in TEXTS * 20]
            return [r.as_numpy("embedding")[0] for r in await asyncio.gather(*calls)]

    expected = infer(client, "minilm", TEXTS).as_numpy("embedding")
    np.testing.assert_allclose(asyncio.run(run()), np.tile(expected, (20, 1)), atol=1e-5)


def test_statistics_count_texts_and_batches(client):
    def read():
        (one,) = client.get_inference_statistics("minilm").model_stats
        return one

    before = read()
    infer(client, "minilm", TEXTS)
    after = read()
    assert after.inference_count - before.inference_count == len(TEXTS)
    assert 1 <= after.execution_count - before.execution_count <= len(TEXTS)
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        one = getattr(after.inference_stats, part)
        assert one.count - getattr(before.inference_stats, part).count == 1, part
        assert one.ns > 0, part
    assert after.last_inference > 1.5e12, "milliseconds since the epoch"
    everything = client.get_inference_statistics().model_stats
    assert {one.name for one in everything} == {"sentiment", "minilm"}


def test_models_are_controlled_only_where_that_is_switched_on(client):
    for control in (client.load_model, client.unload_model):
        with pytest.raises(triton.InferenceServerException) as refused:
            control("minilm")
        assert refused.value.status() == "StatusCode.PERMISSION_DENIED"
        assert "--model-control on" in refused.value.message()
    assert client.is_model_ready("minilm")


def test_the_repository_loads_and_unloads(launch):
    server = launch('[server]\nmodel_control = "on"\n', {"minilm": MINILM})
    with triton.InferenceServerClient(server.grpc) as client:
        (entry,) = client.get_model_repository_index().models
        assert (entry.name, entry.version, entry.state) == ("minilm", "1", "READY")
        client.load_model("minilm")
        assert client.is_model_ready("minilm")
        client.unload_model("minilm")
        assert not client.is_model_ready("minilm")
        assert not client.is_server_ready()
        with pytest.raises(triton.InferenceServerException) as unloaded:
            infer(client, "minilm", ["a"])
        assert unloaded.value.status() == "StatusCode.UNAVAILABLE"
        assert "READY" not in [m.state for m in client.get_model_repository_index().models]
        client.load_model("minilm")
        assert client.is_server_ready()
        infer(client, "minilm", ["a"])
        with pytest.raises(triton.InferenceServerException) as unknown:
            client.load_model("nobody")
        assert unknown.value.status() == "StatusCode.NOT_FOUND"
        with pytest.raises(triton.InferenceServerException) as overridden:
            client.load_model("minilm", config="{}")
        assert overridden.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_absent_features_are_reported_as_absent(client):
    for call in (client.get_system_shared_memory_status, client.get_cuda_shared_memory_status,
                 client.get_trace_settings, client.get_log_settings):
        with pytest.raises(triton.InferenceServerException) as absent:
            call()
        assert absent.value.status() == "StatusCode.UNIMPLEMENTED"
        assert "penstock has no" in absent.value.message()
