"""Cost of a forward in FLOPs and bytes, and its least time under the two ceilings."""

from .plan import Shape


def weights(shape: Shape) -> int:
    """Weights of the matrix products of all layers: query, key, value, output, up, down."""
    return shape.layers * (4 * shape.hidden**2 + 2 * shape.hidden * shape.inner)


def flops(shape: Shape, lengths: list[int]) -> float:
    """A multiply and an add for each weight and token; for each pair of tokens of a text, one of each for
    every component of the query-key product and of the sum over values. All else is left out."""
    tokens, pairs = sum(lengths), sum(n * n for n in lengths)
    return 2.0 * weights(shape) * tokens + 4.0 * shape.layers * shape.hidden * pairs


def bytes_moved(shape: Shape, tokens: int, batches: int, width: int = 2) -> float:
    """Weights read once a batch; and the bytes that the kernels of a layer read and write of each token, with the bias inside
    the products and the exact GELU, which these models have, a kernel of its own."""
    h, inner = shape.hidden, shape.inner
    # In this order: query-key-value, attention, output product, residual and norm, up, GELU, down, residual and norm.
    read = h + 3 * h + h + 2 * h + h + inner + inner + 2 * h
    written = 3 * h + h + h + h + inner + inner + h + h
    between = shape.layers * (read + written)
    return width * (float(weights(shape)) * batches + float(between) * tokens)


def bound_seconds(shape: Shape, lengths: list[int], batches: int, ceilings: dict) -> float:
    """Whichever limit is met first."""
    compute = flops(shape, lengths) / (ceilings["matmul_tflops"] * 1e12)
    memory = bytes_moved(shape, sum(lengths), batches) / (ceilings["copy_tbps"] * 1e12)
    return max(compute, memory)
