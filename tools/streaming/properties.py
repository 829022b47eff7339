"""Properties of a broker: small, quick to notice a missing member, and quick to find a missing topic."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .broker import Cluster

USER, PASSWORD = "penstock", "s3cret-of-the-tests"


def of(cluster: "Cluster", number: int) -> dict[str, str]:
    """Properties of broker `number`."""
    opened, controller, *_ = cluster.ports(number)
    replicas = str(min(3, cluster.brokers))
    listeners = [f"PLAINTEXT://127.0.0.1:{opened}", f"CONTROLLER://127.0.0.1:{controller}"]
    made = {
        "process.roles": "broker,controller",
        "node.id": str(number),
        "controller.quorum.voters": ",".join(f"{one}@127.0.0.1:{cluster.ports(one)[1]}" for one in cluster.numbers()),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(cluster.home(number) / "data"),
        # A missing topic must be seen as missing.
        "auto.create.topics.enable": "false",
        "num.partitions": "12",
        "default.replication.factor": replicas,
        "min.insync.replicas": str(cluster.min_insync),
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": str(cluster.min_insync),
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": str(cluster.min_insync),
        # Remains of a dead member or producer are found after seconds, not minutes.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
        "broker.session.timeout.ms": "6000",
        "broker.heartbeat.interval.ms": "1000",
        # Records may carry any time, and none may go while a test still reads.
        "log.retention.ms": "-1",
        "log.segment.bytes": str(16 << 20),
        "log.cleaner.threads": "1",
        "log.cleaner.dedupe.buffer.size": str(2 << 20),
        "num.network.threads": "2",
        "num.io.threads": "4",
    }
    if cluster.secure:
        listeners += secured(cluster, number, made)
    made["listeners"] = ",".join(listeners)
    protocols = [
        "CONTROLLER:PLAINTEXT",
        *(f"{name}:{name}" for name in ("PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL", "SSL")),
    ]
    made["listener.security.protocol.map"] = ",".join(protocols)
    return made | cluster.settings


def secured(cluster: "Cluster", number: int, made: dict[str, str]) -> list[str]:
    """Adds to the settings what the three listeners need that let in only who proves who they are."""
    _, _, sasl, sasl_ssl, ssl = cluster.ports(number)
    module = "org.apache.kafka.common.security"
    plain = f'{module}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
    made |= {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(cluster.secrets / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(cluster.secrets / "ca.pem"),
        "listener.name.ssl.ssl.client.auth": "required",
        # Rights are asked of those who come in by a secured listener; the open one is for brokers and tests.
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "true",
    }
    for listener in ("sasl_plaintext", "sasl_ssl"):
        made[f"listener.name.{listener}.plain.sasl.jaas.config"] = plain
        made[f"listener.name.{listener}.scram-sha-512.sasl.jaas.config"] = f"{module}.scram.ScramLoginModule required;"
    return [f"SASL_PLAINTEXT://127.0.0.1:{sasl}", f"SASL_SSL://127.0.0.1:{sasl_ssl}", f"SSL://127.0.0.1:{ssl}"]
