"""Bounds, and clients that misbehave: large bodies, bombs, overload, disconnects, half-sent and never-read messages."""

import concurrent.futures
import gzip
import http.client
import json
import signal
import socket
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import MINILM, eventually
from test_http_kserve import call

MIB = 1 << 20


def infer_body(texts, **parameters):
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    return json.dumps({"inputs": [tensor], "parameters": parameters}).encode()


def infer(server, texts, **parameters):
    return call(server, "POST", "/v2/models/minilm/infer", infer_body(texts, **parameters))


def address(server):
    host, port = server.http.rsplit(":", 1)
    return host, int(port)


def counted(server, outcome):
    """Requests over HTTP that ended so."""
    connection = http.client.HTTPConnection(server.metrics, timeout=30)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    connection.close()
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "penstock_requests_total"
        and sample.labels["source"] == "http"
        and sample.labels["outcome"] == outcome
    )


def test_a_text_of_ten_megabytes_is_cut_not_refused(server):
    text = "word " * (2 * MIB)
    status, _, answer = infer(server, [text, "short"])
    assert status == 200, answer
    assert json.loads(answer)["outputs"][0]["shape"] == [2, 384]


def test_a_body_over_the_limit_is_413(launch):
    server = launch("[limits]\nmax_request_bytes = 1048576\n")
    fits, too_large = infer_body(["x" * (MIB - 1000)]), infer_body(["x" * MIB])
    assert call(server, "POST", "/v2/models/minilm/infer", fits)[0] == 200
    status, _, answer = call(server, "POST", "/v2/models/minilm/infer", too_large)
    assert status == 413 and "max_request_bytes = 1048576" in json.loads(answer)["error"]
    status, _, answer = call(server, "POST", "/v1/embeddings", too_large)
    assert status == 413 and json.loads(answer)["error"]["type"] == "invalid_request_error"
    # Without a length that could be checked at once.
    status, _, answer = call(server, "POST", "/embed", iter([too_large[:500_000], too_large[500_000:]]))
    assert status == 413 and json.loads(answer)["error_type"] == "Validation"


def test_a_gzip_bomb_is_refused_without_being_unpacked(launch):
    server = launch("[limits]\nmax_request_bytes = 8388608\n")
    call(server, "GET", "/v2/health/ready")
    bomb = gzip.compress(b"\0" * (256 * MIB))
    assert len(bomb) < 8388608
    before = server.resident_bytes()
    status, _, answer = call(server, "POST", "/v2/models/minilm/infer", bomb, {"Content-Encoding": "gzip"})
    assert status == 413, answer
    assert server.resident_bytes() - before < 64 * MIB
    half = gzip.compress(infer_body(["a"]))[:-4]
    status, _, answer = call(server, "POST", "/v2/models/minilm/infer", half, {"Content-Encoding": "gzip"})
    assert status == 400 and "gzip" in json.loads(answer)["error"]


def test_overload_is_503_on_v2_and_429_elsewhere(launch):
    server = launch("[limits]\nqueue_texts_max = 64\n")
    slow = ["word " * 100] * 64
    routes = {
        "/v2/models/minilm/infer": (infer_body(slow), 503, lambda e: e["error"]),
        "/v1/embeddings": (json.dumps({"model": "minilm", "input": slow}), 429, lambda e: e["error"]["message"]),
        "/embed": (json.dumps({"inputs": slow}), 429, lambda e: e["error"]),
    }
    for path, (body, status, message) in routes.items():
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: call(server, "POST", path, body), range(8)))
        statuses = {answer[0] for answer in answers}
        assert statuses == {200, status}, "some are served, the others are told to come back"
        for got, headers, answer in answers:
            if got == status:
                assert int(headers["Retry-After"]) >= 1
                assert "full" in message(json.loads(answer))
    assert call(server, "GET", "/v2/health/ready")[0] == 200


@pytest.mark.parametrize("half", [False, True], ids=["closing", "half-closing"])
def test_a_client_that_leaves_cancels_its_texts(launch, half):
    server = launch()
    body = infer_body(["word " * 250] * 4000)
    head = f"POST /v2/models/minilm/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(address(server)) as client:
        client.sendall(head + body)
        eventually(lambda: depth(server) > 0, "the texts are queued")
        if half:
            client.shutdown(socket.SHUT_WR)
            client.settimeout(15)
            assert client.recv(4096) == b"", "half-closed is gone: no answer, and the connection ends"
    # Computing them all would take a minute and more.
    eventually(lambda: depth(server) == 0, "the queue is empty again", timeout=15)
    eventually(lambda: counted(server, "cancelled") == 1, "the request is counted as cancelled")
    status, _, _ = infer(server, ["after"])
    assert status == 200


def depth(server):
    connection = http.client.HTTPConnection(server.metrics, timeout=30)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    connection.close()
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "penstock_queue_depth" and sample.labels["model"] == "minilm"
    )


def test_half_sent_requests_delay_no_other(server):
    body = infer_body(["a"])
    halves = [
        b"POST /v2/models/minilm/in",
        b"POST /v2/models/minilm/infer HTTP/1.1\r\nhost: x\r\nconte",
        b"POST /v2/models/minilm/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body[:-3]),
        b"POST /v2/models/minilm/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    open_sockets = [socket.create_connection(address(server)) for _ in range(10) for _ in halves]
    for half, client in zip(halves * 10, open_sockets):
        client.sendall(half)
    assert infer(server, ["meanwhile"])[0] == 200
    for client in open_sockets[::2]:
        client.close()
    for client in open_sockets[1::2]:
        client.shutdown(socket.SHUT_WR)
    assert infer(server, ["meanwhile"])[0] == 200
    for client in open_sockets[1::2]:
        client.settimeout(20)
        answer = b""
        try:
            while piece := client.recv(4096):
                answer += piece
        except ConnectionResetError:
            pass
        assert b" 200 " not in answer
        client.close()


def test_a_client_that_never_reads_grows_nothing(server):
    """Answers of 1.5 MB each, none of them read: the kernel's buffers fill, the server waits, others are served."""
    body = infer_body(["a"] * 400)
    head = f"POST /v2/models/minilm/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    infer(server, ["a"] * 400)
    before = server.resident_bytes()
    clients = [socket.create_connection(address(server)) for _ in range(4)]
    for client in clients:
        client.settimeout(5)
        try:
            # Pipelined: without a bound, every one of them would be answered into memory.
            for _ in range(50):
                client.sendall(head + body)
        except TimeoutError:
            pass
    assert infer(server, ["meanwhile"])[0] == 200
    assert server.resident_bytes() - before < 100 * MIB
    for client in clients:
        client.close()


def test_a_body_that_is_not_chunked_as_it_says_is_400(server):
    head = b"POST /v2/models/minilm/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.create_connection(address(server), timeout=20) as client:
        client.sendall(head + infer_body(["a"]))
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 400 "), answer


def test_one_connection_carries_many_requests(server):
    connection = http.client.HTTPConnection(server.http, timeout=30)
    connection.connect()
    socket_before = connection.sock
    for body, status in ((infer_body(["a"]), 200), (b"{]", 400), (infer_body(["b"]), 200)):
        connection.request("POST", "/v2/models/minilm/infer", body)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    assert connection.sock is socket_before, "an error does not end the connection"
    connection.close()


def test_refusals_are_counted(launch):
    server = launch()
    assert call(server, "POST", "/v2/models/nobody/infer", infer_body(["a"]))[0] == 404
    assert call(server, "POST", "/v2/models/minilm/infer", b"{]")[0] == 400
    assert call(server, "POST", "/embed", b"{]")[0] == 400
    assert infer(server, ["a"])[0] == 200
    assert counted(server, "not_found") == 1
    assert counted(server, "invalid") == 2
    assert counted(server, "ok") == 1


def test_a_shutdown_answers_requests_that_were_read(launch):
    server = launch()
    body = infer_body(["word " * 250] * 20)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(call, server, "POST", "/v2/models/minilm/infer", body) for _ in range(4)]
        eventually(lambda: depth(server) > 0, "the texts are queued")
        server.signal(signal.SIGTERM)
        answers = [future.result() for future in waiting]
    for status, headers, answer in answers:
        # Requests after the signal are sent elsewhere; earlier ones are answered.
        assert status == 200 or (status == 503 and int(headers["Retry-After"]) >= 1), answer
    assert any(status == 200 for status, _, _ in answers)
    assert server.wait() == 0


def test_readiness_turns_false_while_work_is_inside(launch):
    """The probes of a load balancer answer 503 before the last answer is out, on both ports."""
    server = launch('[server]\ndrain_timeout = "5m"\n')
    probes = (server.http, "/v2/health/ready"), (server.http, "/health"), (server.metrics, "/health")
    assert [probe(*one) for one in probes] == [200, 200, 200]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        body = infer_body(["word " * 250] * 200)
        waiting = pool.submit(call, server, "POST", "/v2/models/minilm/infer", body)
        eventually(lambda: depth(server) > 0, "the texts are queued")
        server.signal(signal.SIGTERM)
        for one in probes:
            eventually(lambda: probe(*one) == 503, f"503 from {one}")
        assert probe(server.http, "/v2/health/live") == 200, "not ready, yet alive"
        assert not waiting.done(), "the server had work left when it was asked"
        status, _, answer = waiting.result()
    assert status == 200, answer
    assert json.loads(answer)["outputs"][0]["shape"] == [200, 384]
    assert server.wait() == 0, server.log.read_text()


def test_the_metrics_port_has_its_bounds_too(launch):
    """A scraper that opens connections and says nothing takes no more of them than allowed, and holds up no shutdown."""
    server = launch("[limits]\nconnections_max = 1\n", {"minilm": MINILM})
    host, port = server.metrics.split(":")
    silent = socket.create_connection((host, int(port)))
    silent.sendall(b"GET /metrics HTTP/1.1\r\n")
    waiting = socket.create_connection((host, int(port)))
    waiting.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    waiting.settimeout(0.5)
    with pytest.raises(TimeoutError):
        waiting.recv(1)
    silent.close()
    waiting.settimeout(30)
    assert waiting.recv(100).startswith(b"HTTP/1.1 200")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    waiting.close()


def probe(host, path):
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_slow_request_does_not_delay_a_small_one(server):
    """Four thousand embeddings as JSON are many megabytes of digits; the thread that writes them is shared."""
    large = infer_body(["a"] * 4000)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, server, "POST", "/v2/models/minilm/infer", large)
        worst = 0.0
        while not waiting.done():
            start = time.monotonic()
            assert call(server, "GET", "/v2/health/live")[0] == 200
            worst = max(worst, time.monotonic() - start)
        assert waiting.result()[0] == 200
    assert worst < 5.0, worst
