"""The kernels' tests under compute-sanitizer's racecheck."""

from ..kernel_tests import sanitize
from ..part import Part


def run(part: Part) -> None:
    sanitize(part, "racecheck")
