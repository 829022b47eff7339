"""What a run does, in which order and for how long, and what it must reach."""

from dataclasses import dataclass

# Seconds of the whole run, report included: with the start and the unpacking, under nine minutes.
BUDGET = 525
# What the last part must leave for the report.
RESERVE = 10
PACK_BYTES_MAX = 60_000_000


@dataclass(frozen=True)
class Step:
    """A part of the run: its name, its time limit, the parts whose files it reads."""

    name: str
    limit: int
    needs: tuple[str, ...] = ()
    # On the host's cores alone: runs beside the parts that only want the GPU.
    background: bool = False
    torch: bool = False
    gpu: bool = False


# In the order of what is missed most if the time runs out.
STEPS = [
    Step("models", 90, background=True),
    Step("reference", 120, needs=("models",), background=True, torch=True),
    Step("machine", 40),
    Step("ceilings", 60, torch=True),
    Step("kernels", 90, gpu=True),
    Step("memcheck", 90, gpu=True),
    Step("fidelity", 120, needs=("models", "reference")),
    Step("forward", 170, needs=("models", "reference")),
    Step("serving", 140, needs=("models",)),
    Step("small", 90, needs=("models",)),
    Step("compiled", 90, needs=("models",), torch=True),
    Step("racecheck", 90, gpu=True),
]


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    dtypes: tuple[str, ...]
    lengths: tuple[int, ...]
    batch_tokens: int
    seconds: float
    rounds: int
    clients: int
    single_tokens: int
    # (texts a request, requests on their way)
    loads: tuple[tuple[int, int], ...]
    # Texts of the fidelity checks: mixed ones, and so many of each length.
    mixed: int
    equal: int
    matrix: int
    copy_bytes: int


FULL = Sizes(
    dtypes=("bf16", "f16"),
    lengths=(16, 50, 128, 512),
    batch_tokens=16_384,
    seconds=0.5,
    rounds=3,
    clients=4,
    single_tokens=128,
    loads=((1, 64), (1, 512), (32, 64), (32, 128)),
    mixed=128,
    equal=4,
    matrix=8192,
    copy_bytes=4 << 30,
)

# The same code on a CPU, in seconds: it shows that every part runs, and measures nothing.
DRY = Sizes(
    dtypes=("f32",),
    lengths=(16, 50),
    batch_tokens=256,
    seconds=0.1,
    rounds=1,
    clients=2,
    single_tokens=50,
    loads=((1, 4), (8, 2)),
    mixed=24,
    equal=2,
    matrix=256,
    copy_bytes=1 << 20,
)


@dataclass(frozen=True)
class Shape:
    """An encoder, as its family's configuration in transformers names it."""

    kind: str
    hidden: int
    layers: int
    heads: int
    inner: int
    words: int
    positions: int
    labels: int = 0
    normalize: bool = False

    def small(self) -> "Shape":
        """The same family with next to nothing to compute; heads of 32."""
        return Shape(self.kind, 64, 2, 2, 128, self.words, self.positions, self.labels, self.normalize)


BENCHED = ("bert-base", "minilm")
SHAPES = {
    "bert-base": Shape("Bert", 768, 12, 12, 3072, 30_522, 512),
    "minilm": Shape("Bert", 384, 6, 12, 1536, 30_522, 512, normalize=True),
    "distilbert": Shape("DistilBert", 768, 6, 12, 3072, 30_522, 512, labels=3),
    "roberta": Shape("Roberta", 768, 12, 12, 3072, 50_265, 514, labels=3),
}

# Texts and their length in the batches that graphs are for.
SMALL = ((1, 16), (1, 128), (32, 16), (10, 50))

# What an H200 must reach, in shares of what the same run measured as the limit.
FORWARD_SHARE = {512: 0.45, 50: 0.30}
SERVED_SHARE = 0.85
PACKED_RATIO = 1.5
SINGLE_P50_MS = 2.0

# The project's tolerances. f32 against f32; half precision against f32.
F32_ERROR_MAX = 1e-4
HALF_COSINE_MIN = 0.999
LABELS_MIN = {"f32": 1.0, "bf16": 0.995, "f16": 0.995}
ALONE_ERROR_MAX = 1e-5
# Two labels of a random network that are nearly as likely decide nothing; texts with a smaller lead
# in the reference are not counted for such a network, all are for a trained one.
RANDOM_LEAD_MIN = 0.05
