"""One broker for all tests of Kafka, which takes in who comes openly and who proves who they are."""

import pytest

from streaming.broker import PORTS_EACH, Cluster, free_ports


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("kafka") / "broker", free_ports(PORTS_EACH), secure=True)
    try:
        yield cluster.up()
    finally:
        cluster.down()
