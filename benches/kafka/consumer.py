"""The consumer that people write today: polls a batch, has it scored over gRPC, writes the outputs, then commits.

At least once: what breaks between the outputs and the commit is written again.
"""

import argparse
import json

import numpy as np
import tritonclient.grpc as triton
from confluent_kafka import Consumer, Producer

OUTPUTS = ("label", "score", "probabilities")


def score(client: triton.InferenceServerClient, model: str, texts: list[str]) -> list[bytes]:
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=object))
    answer = client.infer(model, [tensor])
    rows = zip(*(answer.as_numpy(name) for name in OUTPUTS), strict=True)
    return [
        json.dumps({"label": label.decode(), "score": float(best), "probabilities": every.tolist()}).encode()
        for label, best, every in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("brokers", "group", "input", "output", "grpc", "model"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    brokers = {"bootstrap.servers": given.brokers}
    reading = {"group.id": given.group, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer, producer = Consumer(brokers | reading), Producer(brokers | {"enable.idempotence": True})
    consumer.subscribe([given.input])
    client = triton.InferenceServerClient(given.grpc)
    while True:
        records = [one for one in consumer.consume(given.batch, 0.1) if not one.error()]
        if not records:
            continue
        values = score(client, given.model, [json.loads(one.value())["text"] for one in records])
        for one, value in zip(records, values, strict=True):
            producer.produce(
                given.output, value, one.key(), one.partition(), timestamp=one.timestamp()[1], headers=one.headers()
            )
        if left := producer.flush(30):
            raise SystemExit(f"{left} records were not acknowledged")
        consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main()
