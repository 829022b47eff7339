"""The most that a processor can do with a model: its multipliers' peak over the cost of a token.

Only the products with weights are counted. Attention, a few percent at the lengths of the workload, and the
passes between products come on top, so that no forward reaches this limit.
"""

import json
from functools import partial
from pathlib import Path

from .contenders import Contender
from .place import RELEASE

FIGURE = "giga_per_second"
BEST = f"{FIGURE}_best"
SECONDS = 0.3


def products(threads: int) -> Contender:
    """The program that measures peaks and products."""
    # The crates that use rayon take their threads from its pool.
    return Contender([RELEASE / "gemm", "--threads", threads], {"RAYON_NUM_THREADS": str(threads)})


def peaks(program: Contender, formats: set[str]) -> dict:
    """Bursts to interleave with the others, so that the limit is of the same minutes."""
    return {
        f"peak {name}": partial(program.burst, {"subject": f"peak {name}", "seconds": SECONDS}) for name in formats
    }


def operations_per_token(model: Path) -> float:
    """Multiplications and additions of the products: query, key, value and output, then up and down."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    hidden, between = config["hidden_size"], config["intermediate_size"]
    return 2 * config["num_hidden_layers"] * (4 * hidden * hidden + 2 * hidden * between)


def limit(peak: list[dict]) -> float:
    """The fastest call of all: the hardware's rate, whatever slowed the others down."""
    return max(burst[BEST] for burst in peak)


def tokens_per_second(model: Path, peak: list[dict]) -> float:
    return 1e9 * limit(peak) / operations_per_token(model)
