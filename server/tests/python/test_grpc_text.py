"""`penstock.v1.TextService`: typed streams and batches, ids, order, errors of single texts."""

import grpc
import numpy as np
import pytest

from penstock_v1 import pb, rpc

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield rpc.TextServiceStub(channel)


def options(model="minilm", **more):
    return pb.ScoreOptions(model=model, **more)


def texts(*pairs):
    return [pb.Text(id=id, text=text) for id, text in pairs]


def messages(head, pairs, size=1):
    yield pb.ScoreRequest(options=head)
    for i in range(0, len(pairs), size):
        yield pb.ScoreRequest(texts=texts(*pairs[i : i + size]))


def score(stub, head, pairs, size=1):
    responses = list(stub.Score(messages(head, pairs, size)))
    assert (responses[0].model.name, responses[0].model.version) == (head.model, "1")
    assert not any(response.HasField("model") for response in responses[1:])
    return [result for response in responses for result in response.results]


def pairs(n):
    return [(f"id-{i}", f"text number {i} " * (i * 7 % 40 + 1)) for i in range(n)]


@pytest.mark.parametrize("size", [1, 8, 1000])
def test_every_text_comes_back_once_under_its_id(stub, size):
    sent = pairs(300)
    results = score(stub, options(), sent, size)
    assert sorted(r.id for r in results) == sorted(id for id, _ in sent)
    assert all(len(r.embedding.values) == 384 for r in results)


def test_input_order_on_request(stub):
    sent = pairs(150)
    results = score(stub, options(order=pb.ORDER_INPUT), sent)
    assert [r.id for r in results] == [id for id, _ in sent]


@pytest.mark.parametrize(("order", "first"), [(pb.ORDER_COMPLETION, True), (pb.ORDER_INPUT, False)])
def test_complete_answers_overtake_unless_input_order_is_asked_for(stub, order, first):
    work = [(str(i), "word " * 200) for i in range(60)]
    too_long = ("too long", "word " * 5000)  # refused before it is computed
    results = score(stub, options(order=order, truncate=False), [*work, too_long])
    assert {r.id for r in results if r.HasField("error")} == {"too long"}
    assert (results[-1].id != "too long") == first


def test_stream_batch_and_tensors_agree(stub, server):
    import tritonclient.grpc as triton

    sent = pairs(20)
    streamed = score(stub, options("sentiment", order=pb.ORDER_INPUT, logits=True, timings=True), sent, 5)
    batch = stub.ScoreBatch(pb.ScoreBatchRequest(options=options("sentiment", logits=True), texts=texts(*sent)))
    with triton.InferenceServerClient(server.grpc) as client:
        tensor = triton.InferInput("text", [20], "BYTES")
        tensor.set_data_from_numpy(np.array([t.encode() for _, t in sent], dtype=object))
        outputs = [triton.InferRequestedOutput(n) for n in ("label", "score", "probabilities", "logits")]
        tensors = client.infer("sentiment", [tensor], outputs=outputs)
    assert list(batch.model.labels) == batch.model.labels and len(batch.model.labels) >= 2
    for results in (streamed, batch.results):
        got = [r.classification for r in results]
        assert [c.label.encode() for c in got] == tensors.as_numpy("label").tolist()
        np.testing.assert_allclose([c.score for c in got], tensors.as_numpy("score"), atol=1e-5)
        np.testing.assert_allclose([c.probabilities for c in got], tensors.as_numpy("probabilities"), atol=1e-5)
        np.testing.assert_allclose([c.logits for c in got], tensors.as_numpy("logits"), atol=1e-5)
    assert all(r.HasField("timings") and r.timings.execute.ToNanoseconds() > 0 for r in streamed)
    assert not any(r.HasField("timings") for r in batch.results)


def test_embeddings_are_shaped_by_the_options(stub):
    request = pb.ScoreBatchRequest(options=options(dimensions=8, normalize=False), texts=texts(("", "a")))
    (raw,) = stub.ScoreBatch(request).results
    request.options.normalize = True
    (unit,) = stub.ScoreBatch(request).results
    raw, unit = np.array(raw.embedding.values), np.array(unit.embedding.values)
    assert raw.shape == (8,)
    np.testing.assert_allclose(raw / np.linalg.norm(raw), unit, atol=1e-5)


def test_one_bad_text_does_not_disturb_the_others(stub):
    sent = [("a", "short"), ("b", "word " * 5000), ("c", "short")]
    results = {r.id: r for r in score(stub, options(truncate=False), sent, size=3)}
    assert results["b"].error.code == pb.CODE_INVALID_ARGUMENT
    assert results["b"].error.message and not results["b"].error.HasField("retry_after")
    assert results["a"].embedding.values == results["c"].embedding.values


def test_a_timeout_counts_per_text(stub):
    head = options()
    head.timeout.FromMicroseconds(1)
    results = score(stub, head, pairs(10))
    assert {r.error.code for r in results} == {pb.CODE_DEADLINE_EXCEEDED}


def test_a_client_that_only_opens_and_half_closes(stub):
    assert list(stub.Score(iter([]))) == []
    (hello,) = stub.Score(iter([pb.ScoreRequest(options=options("sentiment"))]))
    assert hello.model.name == "sentiment" and not hello.results


@pytest.mark.parametrize(
    ("requests", "code", "word"),
    [
        ([pb.ScoreRequest(texts=texts(("a", "a")))], INVALID, "options"),
        ([pb.ScoreRequest(options=options())] * 2, INVALID, "first request"),
        ([pb.ScoreRequest(options=options("nobody"))], grpc.StatusCode.NOT_FOUND, "nobody"),
        ([pb.ScoreRequest(options=options(version="9"))], grpc.StatusCode.NOT_FOUND, "9"),
        ([pb.ScoreRequest(options=options(dimensions=1000))], INVALID, "1 to 384"),
        ([pb.ScoreRequest(options=options("sentiment", normalize=True))], INVALID, "normalize"),
        ([pb.ScoreRequest(options=options(logits=True))], INVALID, "logits"),
        ([pb.ScoreRequest(options=pb.ScoreOptions(model="minilm", order=77))], INVALID, "order 77"),
    ],
)
def test_an_error_ends_the_stream_with_its_reason(stub, requests, code, word):
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.Score(iter(requests)))
    assert refused.value.code() == code
    assert word in refused.value.details()


def test_a_batch_without_texts_or_options(stub):
    for request in (pb.ScoreBatchRequest(options=options()), pb.ScoreBatchRequest(texts=texts(("a", "a")))):
        with pytest.raises(grpc.RpcError) as refused:
            stub.ScoreBatch(request)
        assert refused.value.code() == INVALID


def test_requests_before_an_error_are_answered(stub):
    def requests():
        yield from messages(options(), pairs(10))
        yield pb.ScoreRequest(options=options())

    answered = []
    with pytest.raises(grpc.RpcError) as refused:
        for response in stub.Score(requests()):
            answered += [r.id for r in response.results]
    assert refused.value.code() == INVALID
    assert sorted(answered) == sorted(id for id, _ in pairs(10))


def test_text_that_is_not_utf8_is_the_clients_fault(server):
    bad = pb.ScoreBatchRequest(options=options(), texts=texts(("a", "XX"))).SerializeToString()
    with grpc.insecure_channel(server.grpc) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/penstock.v1.TextService/ScoreBatch")(bad.replace(b"XX", b"\xff\xfe"))
        assert refused.value.code() == INVALID
