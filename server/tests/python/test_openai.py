"""OpenAI's embeddings API by OpenAI's own client."""

import asyncio
import base64
import json

import numpy as np
import openai
import pytest

from test_http_kserve import call, call_json

TEXTS = ["the cat sat on the mat", "ein Satz auf Deutsch", ""]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0) as client:
        yield client


def vectors(response):
    assert [row.index for row in response.data] == list(range(len(response.data)))
    return np.array([row.embedding for row in response.data], dtype=np.float32)


def test_base64_and_floats_agree(client):
    default = client.embeddings.create(model="minilm", input=TEXTS)
    floats = client.embeddings.create(model="minilm", input=TEXTS, encoding_format="float")
    assert vectors(default).shape == (3, 384)
    np.testing.assert_allclose(vectors(default), vectors(floats), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors(default), axis=1), 1.0, atol=1e-5)
    assert default.model == "minilm" and default.object == "list"


def test_base64_is_little_endian_f32(server):
    body = {"model": "minilm", "input": "a", "encoding_format": "base64"}
    status, answer = call_json(server, "POST", "/v1/embeddings", body)
    assert status == 200
    vector = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), dtype="<f4")
    assert vector.shape == (384,)
    np.testing.assert_allclose(np.linalg.norm(vector), 1.0, atol=1e-5)


def test_usage_counts_real_tokens(client):
    """Two special tokens a text, and a token for each of these words."""
    one = client.embeddings.create(model="minilm", input="hello world").usage
    assert one.prompt_tokens == one.total_tokens == 4
    both = client.embeddings.create(model="minilm", input=["hello world", "cat"]).usage
    assert both.prompt_tokens == 4 + 3


def test_dimensions_cut_and_normalise(client):
    whole = vectors(client.embeddings.create(model="minilm", input="a cat"))[0]
    cut = vectors(client.embeddings.create(model="minilm", input="a cat", dimensions=32, user="somebody"))[0]
    np.testing.assert_allclose(cut, whole[:32] / np.linalg.norm(whole[:32]), atol=1e-5)


def test_models_are_listed(client):
    listed = client.models.list().data
    assert sorted(model.id for model in listed) == ["minilm", "sentiment"]
    model = client.models.retrieve("minilm")
    assert model.id == "minilm" and model.object == "model" and model.created > 1_700_000_000
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_the_asyncio_client(server):
    async def main():
        async with openai.AsyncOpenAI(base_url=f"http://{server.http}/v1", api_key="none") as client:
            requests = [client.embeddings.create(model="minilm", input=f"text {i}") for i in range(16)]
            answers = await asyncio.gather(*requests)
            assert all(vectors(answer).shape == (1, 384) for answer in answers)

    asyncio.run(main())


def test_errors_are_the_clients_own(client):
    with pytest.raises(openai.NotFoundError) as error:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert error.value.code == "model_not_found" and error.value.param == "model"
    assert error.value.type == "invalid_request_error" and "minilm" in error.value.message
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model="minilm", input=[[1, 2, 3]])
    assert "token ids" in error.value.message
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model="minilm", input=[1, 2, 3])
    assert "token ids" in error.value.message
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model="minilm", input=[])
    assert error.value.param == "input"
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model="minilm", input="a", dimensions=385)
    assert error.value.param == "dimensions" and "384" in error.value.message
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model="sentiment", input="a")
    assert error.value.param == "model" and "sequence-classification" in error.value.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{]", ["not JSON"]),
        (b'{"model": "minilm"}', ["missing field `input`"]),
        (b'{"model": "minilm", "input": "a", "dimension": 3}', ["unknown field `dimension`", "`dimensions`"]),
        (b'{"model": "minilm", "input": "a", "encoding_format": "hex"}', ["hex", "base64"]),
        (b'{"model": "minilm", "input": "a", "dimensions": -1}', ["-1"]),
        (b'{"model": "minilm", "input": ["a", null]}', ["null", "string", "line 1 column"]),
        (b'{"model": "minilm", "input": "\xff"}', ["unicode"]),
    ],
)
def test_a_bad_body_gets_the_reason(server, body, words):
    status, _, answer = call(server, "POST", "/v1/embeddings", body)
    error = json.loads(answer)["error"]
    assert status == 400 and set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    for word in words:
        assert word in error["message"]
