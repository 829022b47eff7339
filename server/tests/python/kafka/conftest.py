"""One broker for all tests of Kafka, which takes in who comes openly and who proves who they are."""

import pytest

from streaming.broker import PORTS_EACH, Cluster, free_ports
from streaming.stage import Stage


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("kafka") / "broker", free_ports(PORTS_EACH), secure=True)
    try:
        yield cluster.up()
    finally:
        cluster.down()


@pytest.fixture
def stage(cluster, tmp_path, request):
    """Where streams run, of as many records as the test's file says."""
    stage = Stage(tmp_path, request.module.RECORDS, 7, cluster)
    try:
        yield stage
    finally:
        stage.end()
