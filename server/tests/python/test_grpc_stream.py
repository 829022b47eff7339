"""ModelStreamInfer with an unmodified tritonclient: order, errors inside the stream, half-close."""

import asyncio
import queue

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

N = 200


def text_input(text, name="text", module=triton):
    tensor = module.InferInput(name, [1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode()], dtype=object))
    return tensor


@pytest.fixture
def streaming(server):
    """A client with an open stream, and the queue of what comes back."""
    answers = queue.Queue()
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        yield client, answers


def test_answers_come_in_order_with_their_ids(streaming):
    client, answers = streaming
    texts = [f"text number {i} " * (i % 37 + 1) for i in range(N)]
    for i, text in enumerate(texts):
        client.async_stream_infer("minilm", [text_input(text)], request_id=str(i))
    client.stop_stream()  # half-closes and waits: what was sent is answered
    got = [answers.get_nowait() for _ in range(N)]
    assert answers.empty()
    assert [error for _, error in got if error] == []
    assert [result.get_response().id for result, _ in got] == [str(i) for i in range(N)]
    with_unary = client.infer("minilm", [text_input(texts[-1])]).as_numpy("embedding")
    np.testing.assert_allclose(got[-1][0].as_numpy("embedding"), with_unary, atol=1e-5)


def test_a_bad_request_is_answered_and_the_stream_goes_on(streaming):
    client, answers = streaming
    client.async_stream_infer("minilm", [text_input("a")], request_id="good")
    client.async_stream_infer("minilm", [text_input("a", "sentence")], request_id="wrong input")
    client.async_stream_infer("nobody", [text_input("a")], request_id="wrong model")
    client.async_stream_infer("sentiment", [text_input("a")], request_id="another model")
    (good, none), *wrong, (other, nothing) = [answers.get(timeout=20) for _ in range(4)]
    assert none is None and nothing is None
    assert good.get_response().id == "good" and other.get_response().id == "another model"
    assert [("sentence" in str(wrong[0][1])), ("nobody" in str(wrong[1][1]))] == [True, True]


def test_an_empty_stream_ends_well(streaming):
    client, answers = streaming
    client.stop_stream()
    assert answers.empty()


def test_the_final_response_is_marked_on_request(streaming):
    client, answers = streaming
    client.async_stream_infer("minilm", [text_input("a")], enable_empty_final_response=True)
    result, error = answers.get(timeout=20)
    assert error is None
    assert result.get_response().parameters["triton_final_response"].bool_param


def test_aio_streams_too(server):
    async def run():
        async def requests():
            for i in range(N):
                yield {
                    "model_name": "minilm",
                    "inputs": [text_input(f"text {i}", module=triton_aio)],
                    "request_id": str(i),
                }

        async with triton_aio.InferenceServerClient(server.grpc) as client:
            ids = []
            async for result, error in client.stream_infer(requests()):
                assert error is None
                ids.append(result.get_response().id)
            return ids

    assert asyncio.run(run()) == [str(i) for i in range(N)]
