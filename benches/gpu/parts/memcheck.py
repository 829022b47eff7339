"""The kernels' tests under compute-sanitizer's memcheck."""

from ..kernel_tests import sanitize
from ..part import Part


def run(part: Part) -> None:
    sanitize(part, "memcheck")
