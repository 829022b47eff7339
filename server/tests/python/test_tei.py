"""The routes of text-embeddings-inference, plain and by Hugging Face's own client."""

import json

import numpy as np
import pytest
from huggingface_hub import InferenceClient

from conftest import MINILM
from test_http_kserve import call, call_json

TEXTS = ["a wonderful film", "what a waste of time"]


def post(server, path, **body):
    status, answer = call_json(server, "POST", path, body, {"Content-Type": "application/json"})
    return status, answer


def test_embed(server):
    status, many = post(server, "/embed", inputs=TEXTS)
    assert status == 200 and np.array(many).shape == (2, 384)
    status, one = post(server, "/embed", inputs=TEXTS[0])
    assert status == 200 and np.array(one).shape == (1, 384), "one text is an array of one"
    np.testing.assert_allclose(one[0], many[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1.0, atol=1e-5)
    _, raw = post(server, "/embed", inputs=TEXTS[0], normalize=False)
    assert abs(np.linalg.norm(raw[0]) - 1.0) > 1e-3
    _, cut = post(server, "/embed", inputs=TEXTS[0], dimensions=8, truncation_direction="Right")
    np.testing.assert_allclose(cut[0], np.array(raw[0][:8]) / np.linalg.norm(raw[0][:8]), atol=1e-5)


def test_token_ids_of_a_text_embed_as_the_text(server):
    # [CLS] and [SEP] are the tokens of an empty text.
    _, expected = post(server, "/embed", inputs=["", TEXTS[0]])
    status, mixed = post(server, "/embed", inputs=[[101, 102], TEXTS[0]])
    assert status == 200 and mixed == expected
    assert post(server, "/embed", inputs=[101, 102]) == (200, expected[:1])


def test_predict(server):
    status, single = post(server, "/predict", inputs=TEXTS[0])
    assert status == 200
    scores = [prediction["score"] for prediction in single]
    assert scores == sorted(scores, reverse=True) and abs(sum(scores) - 1) < 1e-5
    assert post(server, "/predict", inputs=[TEXTS[0]])[1][0]["label"] == single[0]["label"], "one string in an array"
    status, batch = post(server, "/predict", inputs=[[text] for text in TEXTS])
    assert status == 200 and len(batch) == 2
    assert {p["label"] for p in batch[1]} == {p["label"] for p in single}
    _, raw = post(server, "/predict", inputs=TEXTS[0], raw_scores=True)
    logits = np.array([prediction["score"] for prediction in raw])
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), scores, atol=1e-5)


def test_timing_headers(server):
    status, headers, _ = call(server, "POST", "/embed", json.dumps({"inputs": ["hello world", "naïve"]}))
    assert status == 200 and headers["x-compute-type"] == "cpu"
    assert int(headers["x-compute-characters"]) == 11 + 5
    assert int(headers["x-compute-tokens"]) == 4 + 3
    parts = sum(int(headers[f"x-{part}-time"]) for part in ("tokenization", "queue", "inference"))
    assert parts <= int(headers["x-total-time"]) == int(headers["x-compute-time"])


def test_info_and_health(server):
    status, _, body = call(server, "GET", "/health")
    assert status == 200 and body == b""
    status, info = call_json(server, "GET", "/info?model=sentiment")
    assert status == 200 and info["served_model_name"] == "sentiment"
    labels = info["model_type"]["classifier"]["id2label"]
    assert set(labels) == {str(i) for i in range(len(labels))} and len(labels) >= 2
    _, info = call_json(server, "GET", "/info")
    assert info["model_id"] == "minilm" and info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_client_batch_size"] == 8192 and info["max_input_length"] == 256
    assert call(server, "GET", "/info?model=nobody")[0] == 404


def test_the_query_chooses_among_several(launch):
    server = launch("", {"b": MINILM, "a": MINILM})
    assert call_json(server, "GET", "/info")[1]["model_id"] == "a"
    assert call_json(server, "GET", "/info?model=b")[1]["model_id"] == "b"
    for path in ("/embed", "/embed?model=a", "/embed?model=b"):
        assert post(server, path, inputs="a")[0] == 200
    status, error = post(server, "/predict", inputs="a")
    assert status == 424 and error["error_type"] == "Backend" and "sequence-classification" in error["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "words"),
    [
        ("/embed", {"inputs": []}, 400, "Empty", ["inputs"]),
        ("/predict", {"inputs": []}, 400, "Empty", ["inputs"]),
        ("/embed", {"inputs": [[101, 99999]]}, 400, "Validation", ["99999", "vocabulary"]),
        ("/embed", {"inputs": [101, "a"]}, 400, "Validation", ["token ids", "[[1, 2], [3]]"]),
        ("/embed", {"inputs": [[101] * 600], "truncate": False}, 400, "Validation", ["600", "256"]),
        ("/embed", {}, 400, "Validation", ["missing field `inputs`"]),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, 400, "Validation", ["query"]),
        ("/embed", {"inputs": "a", "truncation_direction": "left"}, 400, "Validation", ["left", "right"]),
        ("/embed", {"inputs": "a", "dimensions": 0}, 400, "Validation", ["0", "384"]),
        ("/embed", {"inputs": "word " * 600, "truncate": False}, 400, "Validation", ["256"]),
        ("/embed?model=sentiment", {"inputs": "a"}, 424, "Backend", ["sentiment", "sequence-classification"]),
        ("/embed?model=nobody", {"inputs": "a"}, 404, "Validation", ["nobody"]),
        ("/predict", {"inputs": ["a", "b"]}, 400, "Validation", ["pairs", '[["first"], ["second"]]']),
        ("/predict", {"inputs": [["a", "b"]]}, 400, "Validation", ["pairs"]),
        ("/predict?model=minilm", {"inputs": "a"}, 424, "Backend", ["minilm"]),
        ("/rerank", {"query": "a", "texts": ["b"]}, 424, "Backend", ["re-ranker"]),
        ("/embed_sparse", {"inputs": "a"}, 424, "Backend", ["sparse"]),
    ],
)
def test_a_bad_request_gets_the_reason(server, path, body, status, kind, words):
    got, error = post(server, path, **body)
    assert got == status, error
    assert set(error) == {"error", "error_type"} and error["error_type"] == kind
    for word in words:
        assert word in error["error"]


def test_hugging_faces_client_extracts_features(server):
    client = InferenceClient(model=f"http://{server.http}/embed")
    vector = client.feature_extraction(TEXTS[0], normalize=True, truncate=True, truncation_direction="right")
    assert vector.shape == (1, 384) and vector.dtype == np.float32
    np.testing.assert_allclose(vector[0], post(server, "/embed", inputs=TEXTS[0])[1][0], atol=1e-5)
