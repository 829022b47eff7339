"""One stream under test: its topics, its group, the instances that serve it, and the verdict at its end."""

import itertools
import json
import random
from pathlib import Path

from . import records, verify
from .broker import Cluster
from .instance import TINY, Instance, table
from .records import Sent
from .topics import PATIENCE, Group, TooLong, Topics, until

PARTITIONS = 12
MODEL = "tiny"
FIELDS = frozenset({"label", "score"})
# Short, so that a member that was killed is missed after seconds; three heartbeats fit into it all the same.
SESSION = 6.0
CLIENT = {"session.timeout.ms": f"{SESSION * 1000:.0f}", "heartbeat.interval.ms": "1500"}
TRANSACTION = "5s"
numbers = itertools.count(1)


class Stream:
    """Topics and group have names of their own, so that many can share a broker."""

    def __init__(self, cluster: Cluster, folder: Path, name: str, seed: int = 1, output: bool = True, **route):
        self.cluster, self.topics = cluster, Topics(cluster)
        self.name, self.seed = f"{name}-{next(numbers)}", seed
        self.folder = folder / self.name
        self.input, self.output, self.dead = (f"{self.name}-{part}" for part in ("in", "out", "dead"))
        self.rng = random.Random(f"{name} {seed}")
        self.route = route
        self.models = {MODEL: TINY}
        self.sent: list[Sent] = []
        # Sent records that came out and are no longer in the input, because it was deleted or truncated.
        self.gone = 0
        self.instances: list[Instance] = []
        for topic in [self.input, self.dead] + [self.output] * output:
            self.topics.make(topic, PARTITIONS)
        self.group = Group(self.topics, self.name, self.input)

    # Input.

    def make(self, count: int, poison_share: float = 0.0, **more) -> list[Sent]:
        self.sent = records.make(self.seed, count, PARTITIONS, poison_share, **more)
        return self.sent

    def feed(self, sent: list[Sent] | None = None) -> None:
        records.produce(self.topics.bootstrap, self.input, self.sent if sent is None else sent)

    def remake(self, partitions: int = PARTITIONS) -> None:
        """The input, deleted and made anew, with nothing in it."""
        self.topics.remove(self.input)
        self.topics.make(self.input, partitions)
        self.group.close()
        self.group = Group(self.topics, self.name, self.input)

    # Servers.

    def config(self, instance: str, **route) -> str:
        client = CLIENT | self.route.get("client", {}) | route.get("client", {})
        made = (
            {
                "name": "route",
                "brokers": self.cluster.bootstrap(),
                "group": self.name,
                "input": [self.input],
                "output": self.output,
                "dead_letter": self.dead,
                "model": MODEL,
                "field": "text",
                "transaction_timeout": TRANSACTION,
            }
            | self.route
            | route
        )
        apart = ("client", "client_files", "client_env")
        secrets = {part: made[part] for part in apart[1:] if part in made}
        made = {key: value for key, value in made.items() if key not in apart and value is not None}
        # Two threads that compute would only take the second core from the broker.
        server = {"threads": 1, "drain_timeout": "60s"} | ({"instance": instance} if instance else {})
        parts = [table("[server]", server)]
        parts += [table("[[model]]", {"name": name, "path": str(path)}) for name, path in self.models.items()]
        parts += [
            table("[[kafka]]", made),
            table("[kafka.client]", {json.dumps(key): value for key, value in client.items()}),
            *(
                table(f"[kafka.{part}]", {json.dumps(key): value for key, value in values.items()})
                for part, values in secrets.items()
            ),
        ]
        return "\n".join(parts)

    def instance(self, named: bool = True, name: str = "", **route) -> Instance:
        """A new one, started. A named one has its partitions back at once when it is started again; one without a
        name has a new name each time, and its partitions wait until the old one is missed. Two of one name fence each
        other."""
        number = len(self.instances) + 1
        name = name or (f"i{number}" if named else "")
        one = Instance(self.folder / f"instance-{number}", self.config(name, **route))
        self.instances.append(one)
        return one.start()

    def running(self) -> list[Instance]:
        return [one for one in self.instances if one.process is not None]

    # How it goes.

    def wait_committed(self, total: int, patience: float = PATIENCE) -> None:
        """Until so many records are done with; who ended by itself is started again meanwhile."""

        def so_far() -> bool:
            self.keep_up()
            return self.group.total() >= total

        until(so_far, f"{total} of {len(self.sent)} records of {self.name} committed", patience, 0.01)

    def wait_end(self, patience: float = PATIENCE) -> None:
        """Until all are done with. Patience is for standing still, not for being slow."""
        while left := self.left():
            self.wait_committed(len(self.sent) - self.gone - left + 1, patience)

    def keep_up(self) -> None:
        """Starts again who ended by itself."""
        for one in self.instances:
            one.keep_up()

    def left(self) -> int:
        """Records that are not done with."""
        return len(self.sent) - self.gone - self.committed()

    def committed(self) -> int:
        """Records that are done with."""
        # A total of nothing is an answer too.
        (total,) = until(lambda: (self.group.total(),), f"what {self.name} has committed")
        return total

    def came_out(self, sent: list[Sent]) -> list[Sent]:
        """Those of them that have an output."""
        out = {verify.number(record) for record in self.topics.read(self.output)}
        return [one for one in sent if one.id in out]

    # Results.

    def verdict(self, twice_allowed: bool = False) -> verify.Verdict:
        outputs, dead = self.topics.read(self.output), self.topics.read(self.dead)
        return verify.check(
            self.sent,
            outputs,
            dead,
            offsets=records.offsets(self.sent),
            topic=self.input,
            model=MODEL,
            fields=FIELDS,
            twice_allowed=twice_allowed,
        )

    def hidden(self) -> int:
        """Outputs of transactions that were aborted: readers of committed records never see them."""
        return len(self.topics.read(self.output, committed=False)) - len(self.topics.read(self.output))

    def gave_up(self) -> int:
        """Times that an instance ended by itself and was started again."""
        return sum(one.gave_up for one in self.instances)

    def stop(self) -> None:
        """SIGTERM to all, each of which must drain."""
        for one in self.running():
            one.wait_live()
            if code := one.stop():
                raise TooLong(f"an instance ended with {code} after SIGTERM; its log is {one.log}")

    def end(self) -> None:
        """Every process gone, whatever it does."""
        for one in self.instances:
            one.end()
        self.group.close()
