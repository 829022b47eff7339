"""Plan of a run: its parts, their order and duration, and the targets."""

from dataclasses import dataclass

# Seconds of the whole run, report included: with the start and the unpacking, under nine minutes.
BUDGET = 525
# Time that the last part must leave for the report.
RESERVE = 10
PACK_BYTES_MAX = 60_000_000


@dataclass(frozen=True)
class Step:
    """A part of the run: its name, the seconds that it should take and those that it gets, the parts whose files it
    reads."""

    name: str
    expected: int
    limit: int
    needs: tuple[str, ...] = ()
    # Nothing in it is timed: the lanes run side by side, each in its own order, before the parts that have none.
    lane: str = ""
    torch: bool = False
    gpu: bool = False


# The timed parts stand in the order of their value, should the time run out. No GPU has shown their times yet; by
# `seconds` below the whole should take 405 of the 515 s that there are, so that any one part may run to its limit.
STEPS = [
    # Importing torch 20, four models of random numbers 15.
    Step("models", 35, 60, lane="models"),
    # Importing 8; 8,300 tokens one text at a time are 1.4 TFLOP for BERT-base: four models 35, beside other parts.
    Step("reference", 45, 90, needs=("models",), lane="models", torch=True),
    # Five models side by side, four times `score` each: 4 x 5, and comparing.
    Step("fidelity", 25, 70, needs=("models", "reference"), lane="models"),
    Step("machine", 5, 40, lane="kernels"),
    # Five sources side by side, the largest 10 on one core.
    Step("assembled", 15, 60, lane="kernels", gpu=True),
    # The slow references 25 on one core, of which texts of 8192 tokens 15; the kernels nothing beside that.
    Step("kernels", 35, 80, lane="kernels", gpu=True),
    # The checker's start 10, the slow references 10, kernels some ten times slower.
    Step("memcheck", 45, 100, lane="kernels", gpu=True),
    Step("racecheck", 60, 120, lane="races", gpu=True),
    # Importing 8, products and copies 4.
    Step("ceilings", 12, 120, torch=True),
    # All processes start at once: 15. Then four times 13 bursts in 3 rounds of 0.25 s: 39, and 8 for their first batches.
    Step("forward", 90, 160, needs=("models", "reference", "ceilings")),
    # Five starts of 5; each of two models 15 bursts of 1.2 and 10 starts of the client of 0.4, in the second type 3 of 1.6,
    # a single text 1.6; with two executors 2 of 1.6.
    Step("serving", 90, 150, needs=("models",)),
    # Two models: starts of 3 and 5; 10 bursts in 3 rounds of 0.25 s; two single texts of 1.6.
    Step("small", 38, 80, needs=("models",)),
    # The first model: 10 to start, three graphs of 20. The second takes the rest.
    Step("compiled", 70, 150, needs=("models", "reference", "ceilings"), torch=True),
]


def seconds(of) -> float:
    """How long the whole run takes where a step takes `of(step)`: the longest lane, then the parts without one."""
    lanes: dict[str, float] = {}
    for step in STEPS:
        lanes[step.lane] = lanes.get(step.lane, 0.0) + of(step)
    return lanes.pop("") + max(lanes.values())


@dataclass(frozen=True)
class Sizes:
    """Amounts: texts, rounds, seconds."""

    # Measurements in a single type use the first.
    dtypes: tuple[str, ...]
    lengths: tuple[int, ...]
    batch_tokens: int
    # Seconds of a burst of the bare forward, and of one over gRPC without its warm-up.
    seconds: float
    served_seconds: float
    warm_seconds: float
    rounds: int
    client_threads: int
    single_tokens: int
    # Texts a request, and how many requests are on their way, one after the other.
    loads: tuple[tuple[int, tuple[int, ...]], ...]
    # The other types are served with the last load alone, and these workloads.
    other_served: tuple[str, ...]
    # The last model is also served by two executors, with the last load and these.
    executors_served: tuple[str, ...]
    # Texts of the fidelity checks: mixed ones, and so many of each length.
    mixed: int
    equal: int
    matrix: int
    copy_bytes: int


FULL = Sizes(
    # The default on a GPU comes first.
    dtypes=("f16", "bf16"),
    lengths=(16, 50, 128, 512),
    batch_tokens=16_384,
    seconds=0.25,
    served_seconds=1.0,
    warm_seconds=0.2,
    rounds=3,
    client_threads=4,
    single_tokens=128,
    loads=((1, (64, 512)), (32, (128,))),
    other_served=("S=50", "S=512", "mixed"),
    executors_served=("S=50", "mixed"),
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
    served_seconds=0.2,
    warm_seconds=0.05,
    rounds=1,
    client_threads=2,
    single_tokens=50,
    loads=((1, (2, 4)), (8, (2,))),
    other_served=(),
    executors_served=("S=50",),
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

# Targets of an H200, as shares of the limit that the same run measured.
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
