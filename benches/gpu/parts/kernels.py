"""The kernels' tests on the device."""

from ..kernel_tests import test
from ..part import Part


def run(part: Part) -> None:
    test(part)
