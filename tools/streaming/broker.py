"""A real Apache Kafka on this machine: one broker or several, each a process in KRaft combined mode."""

import base64
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import certificates, properties, runtime
from .properties import PASSWORD, USER

# Below what systems hand out to outgoing connections: a client that tries a stopped broker's port again and again
# could otherwise be given that very port, and talk to itself.
# PENSTOCK_PORTS=FIRST-LAST names others.
PORTS = range(*map(int, os.environ.get("PENSTOCK_PORTS", "20000-32000").split("-")))
# Ports of one broker: open, controller, SASL without TLS, SASL over TLS, TLS with a client certificate.
PORTS_EACH = 5
START_TIMEOUT = 180.0
STOP_TIMEOUT = 60.0

# The small compiler alone and the serial collector: a broker is up in a few seconds and leaves the cores to others.
JVM = "-Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData"
LOGGING = """status = error
appender.file.type = File
appender.file.name = file
appender.file.fileName = {log}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""


@dataclass
class Cluster:
    """Brokers whose settings and processes are noted in `folder`, so that any process can go on with them."""

    folder: Path
    port: int
    brokers: int = 1
    secure: bool = False
    min_insync: int = 1
    settings: dict[str, str] = field(default_factory=dict)

    # Where clients reach it.

    def ports(self, number: int) -> range:
        first = self.port + PORTS_EACH * (number - 1)
        return range(first, first + PORTS_EACH)

    def bootstrap(self, listener: int = 0) -> str:
        return ",".join(f"127.0.0.1:{self.ports(number)[listener]}" for number in self.numbers())

    def numbers(self) -> range:
        return range(1, self.brokers + 1)

    def client(self, how: str = "plaintext", password: str = PASSWORD) -> dict[str, str]:
        """librdkafka's properties for a way in: plaintext, sasl_plaintext, sasl_ssl (SCRAM), or ssl."""
        listener = {"plaintext": 0, "sasl_plaintext": 2, "sasl_ssl": 3, "ssl": 4}[how]
        made = {"bootstrap.servers": self.bootstrap(listener), "security.protocol": how}
        if how.startswith("sasl"):
            mechanism = "PLAIN" if how == "sasl_plaintext" else "SCRAM-SHA-512"
            made |= {"sasl.mechanism": mechanism, "sasl.username": USER, "sasl.password": password}
        if how.endswith("ssl"):
            made["ssl.ca.location"] = str(self.secrets / "ca.pem")
        if how == "ssl":
            made["ssl.certificate.location"] = str(self.secrets / "client.pem")
            made["ssl.key.location"] = str(self.secrets / "client.key")
        return made

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    # Its life.

    def up(self) -> "Cluster":
        """Formats, starts and waits until clients are answered."""
        if any(self.alive(number) for number in self.numbers()):
            raise SystemExit(f"a broker of {self.folder} runs already")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if self.secure:
            certificates.make(self.secrets)
        self.note()
        self.format()
        for number in self.numbers():
            self.spawn(number)
        self.wait_ready()
        return self

    def down(self, keep: bool = False) -> None:
        """Stops every broker; all at once, for the last ones of a cluster cannot hand their partitions over.

        Whose data is removed need not put it in order first, which takes the last of three a minute.
        """
        running = [number for number in self.numbers() if self.alive(number)]
        for number in running:
            os.kill(self.pid(number), signal.SIGTERM if keep else signal.SIGKILL)
        for number in running:
            self.wait_gone(number)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, number: int = 1) -> None:
        if self.alive(number):
            raise SystemExit(f"broker {number} runs already")
        self.spawn(number)
        self.wait_ready()

    def stop(self, number: int = 1) -> None:
        if self.alive(number):
            os.kill(self.pid(number), signal.SIGTERM)
            self.wait_gone(number)

    def kill(self, number: int = 1) -> None:
        """SIGKILL: nothing is handed over, nothing flushed."""
        if self.alive(number):
            os.kill(self.pid(number), signal.SIGKILL)
            self.wait_gone(number)

    def fill_disk(self, number: int = 1, room: int = 0) -> None:
        """No file of this broker may grow beyond `room` bytes any more: its writes fail as on a full disk."""
        _, most = resource.prlimit(self.pid(number), resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid(number), resource.RLIMIT_FSIZE, (room, most))

    # Its processes.

    def home(self, number: int) -> Path:
        return self.folder / f"broker-{number}"

    def log(self, number: int = 1) -> Path:
        return self.home(number) / "broker.log"

    def pid(self, number: int) -> int:
        note = self.home(number) / "pid"
        return int(note.read_text()) if note.exists() else 0

    def alive(self, number: int) -> bool:
        """Whether the noted process is there and is this broker: numbers of processes are given again."""
        pid = self.pid(number)
        reap(pid)
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            return False
        return str(self.home(number)) in command

    def spawn(self, number: int) -> None:
        home = self.home(number)
        options = os.environ.get("PENSTOCK_KAFKA_JVM", JVM).split()
        options.append(f"-Dlog4j2.configurationFile={home / 'log4j2.properties'}")
        command = [runtime.java(), *options, "-cp", f"{runtime.jars()}/*", "kafka.Kafka", home / "server.properties"]
        with (home / "stderr.log").open("a") as said:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        (home / "pid").write_text(str(process.pid))

    def wait_gone(self, number: int) -> None:
        end = time.monotonic() + STOP_TIMEOUT
        while self.alive(number):
            if time.monotonic() > end:
                os.kill(self.pid(number), signal.SIGKILL)
                end += STOP_TIMEOUT
            time.sleep(0.05)

    def wait_ready(self) -> None:
        """Until every broker that runs tells a client of all of them."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        end = time.monotonic() + START_TIMEOUT
        running = {number for number in self.numbers() if self.alive(number)}
        for number in sorted(running):
            quiet = {"log_level": 0, "reconnect.backoff.max.ms": 200}
            admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.ports(number)[0]}"} | quiet)
            known: set[int] = set()
            while not known >= running:
                if not self.alive(number) or time.monotonic() > end:
                    what = f"was not ready after {START_TIMEOUT:.0f} s" if self.alive(number) else "ended"
                    words = self.last_words(number)
                    raise SystemExit(f"broker {number} {what}; the end of {self.log(number)}:\n{words}")
                try:
                    known = set(admin.list_topics(timeout=2).brokers)
                except KafkaException:
                    known = set()
                time.sleep(0.05)

    def last_words(self, number: int) -> str:
        texts = [
            path.read_text(errors="replace")
            for path in (self.log(number), self.home(number) / "stderr.log")
            if path.exists()
        ]
        return "\n".join("\n".join(text.splitlines()[-15:]) for text in texts)

    # Its properties.

    def note(self) -> None:
        noted = asdict(self) | {"folder": str(self.folder)}
        (self.folder / "cluster.json").write_text(json.dumps(noted, indent=1))

    def format(self) -> None:
        """Writes each broker's settings and makes its log folder, all under one cluster id."""
        # An id never begins with a dash, which base64 could give it.
        cluster = "p" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        formats = []
        for number in self.numbers():
            home = self.home(number)
            home.mkdir()
            lines = [f"{key}={value}" for key, value in properties.of(self, number).items()]
            (home / "server.properties").write_text("\n".join(lines) + "\n")
            (home / "log4j2.properties").write_text(LOGGING.format(log=self.log(number)))
            command = [runtime.java(), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{runtime.jars()}/*"]
            command += ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", home / "server.properties"]
            if self.secure:
                command += ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
            formats.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        for one in formats:
            said, _ = one.communicate()
            if one.returncode:
                raise SystemExit(f"a broker's folder could not be made:\n{said}")


def noted(folder: Path) -> Cluster:
    """The cluster that some process started in `folder`."""
    note = folder / "cluster.json"
    if not note.exists():
        raise SystemExit(f"no broker was started in {folder}")
    read = json.loads(note.read_text())
    return Cluster(**(read | {"folder": Path(read["folder"])}))


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    for _ in range(1000):
        first = random.choice(PORTS[:-count])
        if all(is_free(port) for port in range(first, first + count)):
            return first
    raise SystemExit(f"no {count} free ports in a row between {PORTS.start} and {PORTS.stop}")


def is_free(port: int) -> bool:
    with socket.socket() as tried:
        # As a broker does: what is left of closed connections is not in its way.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def reap(pid: int) -> None:
    """Takes note of the end of a child of this process; a dead one would otherwise look alive."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG) if pid else None
