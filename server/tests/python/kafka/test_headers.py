"""Headers that the protocol takes and most clients cannot make: their names are any bytes."""

import ctypes
from pathlib import Path

import confluent_kafka

from streaming.topics import until

RECORDS = 100


class Memory(ctypes.Structure):
    """Name, place and size of a part of a record; the name is a header's."""

    _fields_ = [("first", ctypes.c_void_p), ("second", ctypes.c_void_p), ("third", ctypes.c_ssize_t)]


class Part(ctypes.Structure):
    """librdkafka's `rd_kafka_vu_t`."""

    _fields_ = [("kind", ctypes.c_int), ("of", Memory), ("_rest", ctypes.c_char * (64 - ctypes.sizeof(Memory)))]


TOPIC, VALUE, HEADER = 1, 4, 9


def address(data: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value


def produce(bootstrap: str, topic: bytes, value: bytes, header: bytes) -> None:
    """One record, through librdkafka itself: its Python takes names in UTF-8 alone."""
    libraries = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    kafka = ctypes.CDLL(str(next(libraries.glob("librdkafka*.so*"))))
    for name in ("conf_new", "new", "produceva"):
        getattr(kafka, f"rd_kafka_{name}").restype = ctypes.c_void_p
    said = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(kafka.rd_kafka_conf_new())
    assert kafka.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), said, len(said)) == 0, said.value
    producer = ctypes.c_void_p(kafka.rd_kafka_new(0, conf, said, len(said)))
    assert producer, said.value
    parts = (Part * 3)(
        Part(TOPIC, Memory(address(topic))),
        Part(VALUE, Memory(address(value), len(value))),
        Part(HEADER, Memory(address(header), address(b"value"), 5)),
    )
    assert not kafka.rd_kafka_produceva(producer, parts, ctypes.c_size_t(len(parts)))
    assert kafka.rd_kafka_flush(producer, 30_000) == 0
    kafka.rd_kafka_destroy(producer)


def test_a_record_with_a_header_that_cannot_be_read_is_a_dead_letter_and_the_stream_goes_on(stage):
    stream = stage.stream("unread-header")
    produce(stream.cluster.bootstrap(), stream.input.encode(), b'{"text": "a"}', b"\xff\xfe")
    stream.make(RECORDS)
    stream.feed()
    one = stream.instance()
    until(lambda: len(stream.topics.read(stream.output)) == RECORDS, "all others scored")
    (letter,) = stream.topics.read(stream.dead)
    assert letter.header("penstock-error-code") == b"INVALID_ARGUMENT"
    assert letter.value == b'{"text": "a"}'
    # Counted, and not printed: whoever writes to the topic would fill the log.
    assert one.metric("penstock_dead_letters_total", reason="header") == 1
    assert "panicked" not in one.said()
