"""f32 matrix products by a library that is not Rust, as a contender of compare_gemm: JSON in, JSON out, by line.

    {"rows": 512, "inputs": 384, "outputs": 1536, "seconds": 0.1}

    openblas   cblas_sgemm of PyPI's scipy-openblas32, called through ctypes
    mkl        cblas_sgemm_compute of PyPI's mkl through ctypes, the weights packed once by cblas_sgemm_pack
    onednn     torch.ops.mkldnn._linear_pointwise, the weights laid out once by _reorder_linear_weight; torch
               brings oneDNN, and its plain linear would be MKL's
"""

import argparse
import ctypes
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112
PACKED, PART_B = 151, 162


def operands(rows: int, inputs: int, outputs: int):
    noise = np.random.default_rng(1)
    shapes = (rows, inputs), (outputs, inputs)
    return [noise.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class OpenBlas:
    def __init__(self, threads: int):
        import scipy_openblas32

        folder = Path(scipy_openblas32.get_lib_dir())
        self.library = ctypes.CDLL(str(next(folder.glob("libscipy_openblas.so*"))))
        self.library.scipy_openblas_set_num_threads(threads)
        config = self.library.scipy_openblas_get_config
        config.restype = ctypes.c_char_p
        self.name = config().decode()

    def product(self, rows: int, inputs: int, outputs: int):
        x, weight = operands(rows, inputs, outputs)
        y = np.empty((rows, outputs), np.float32)
        sizes = [ctypes.c_int(n) for n in (rows, outputs, inputs)]
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        strides = [ctypes.c_int(n) for n in (inputs, inputs, outputs)]
        left, right, out = pointer(x), pointer(weight), pointer(y)
        sgemm = self.library.scipy_cblas_sgemm

        def call():
            sgemm(ROW_MAJOR, NO_TRANS, TRANS, *sizes, one, left, strides[0], right, strides[1], zero, out, strides[2])

        return call, lambda: (y, x, weight)


class Mkl:
    def __init__(self, threads: int):
        self.library = ctypes.CDLL(str(Path(sys.prefix) / "lib/libmkl_rt.so.3"))
        self.library.MKL_Set_Num_Threads(threads)
        version = ctypes.create_string_buffer(200)
        self.library.mkl_get_version_string(version, 200)
        self.name = version.value.decode().strip()
        self.library.cblas_sgemm_pack_get_size.restype = ctypes.c_size_t

    def product(self, rows: int, inputs: int, outputs: int):
        x, weight = operands(rows, inputs, outputs)
        y = np.empty((rows, outputs), np.float32)
        sizes = [ctypes.c_int(n) for n in (rows, outputs, inputs)]
        size = self.library.cblas_sgemm_pack_get_size(PART_B, *sizes)
        packed = np.empty(size, np.uint8)
        zero = ctypes.c_float(0)
        strides = [ctypes.c_int(n) for n in (inputs, inputs, outputs)]
        left, right, out = pointer(x), pointer(packed), pointer(y)
        self.library.cblas_sgemm_pack(
            ROW_MAJOR, PART_B, TRANS, *sizes, ctypes.c_float(1), pointer(weight), strides[1], right
        )
        compute = self.library.cblas_sgemm_compute

        def call():
            compute(ROW_MAJOR, NO_TRANS, PACKED, *sizes, left, strides[0], right, strides[1], zero, out, strides[2])

        return call, lambda: (y, x, weight, packed)


class OneDnn:
    def __init__(self, threads: int):
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch = torch
        configured = torch.__config__.show().splitlines()
        dnn = next(line.strip(" -") for line in configured if "MKL-DNN" in line)
        self.name = f"torch {torch.__version__}, {dnn.split(' (')[0]}"

    def product(self, rows: int, inputs: int, outputs: int):
        x, weight = operands(rows, inputs, outputs)
        operations = self.torch.ops.mkldnn
        left = self.torch.from_numpy(x)
        right = operations._reorder_linear_weight(self.torch.from_numpy(weight), rows)
        kept = [None]

        def call():
            kept[0] = operations._linear_pointwise(left, right, None, "none", [], "")

        return call, lambda: (kept[0].numpy(), x, weight)


LIBRARIES = {"openblas": OpenBlas, "mkl": Mkl, "onednn": OneDnn}


class Products:
    def __init__(self, library):
        self.library = library
        self.made = {}

    def burst(self, wanted: dict) -> dict:
        shape = wanted["rows"], wanted["inputs"], wanted["outputs"]
        if shape not in self.made:
            call, results = self.library.product(*shape)
            call()
            y, x, weight, *_ = results()
            # A wrong call through ctypes would be measured as readily as a right one.
            np.testing.assert_allclose(y, x @ weight.T, rtol=1e-3, atol=1e-3)
            # `results` holds the arrays that `call` has only pointers to.
            self.made[shape] = call, results
        call, _ = self.made[shape]
        call()
        times = []
        start = time.perf_counter()
        while True:
            before = time.perf_counter()
            call()
            now = time.perf_counter()
            times.append(now - before)
            if now - start >= wanted["seconds"]:
                break
        times.sort()
        work = 2 * shape[0] * shape[1] * shape[2] / 1e9
        median, best = times[len(times) // 2], times[0]
        return {"calls": len(times), "giga_per_second": work / median, "giga_per_second_best": work / best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    # Each pool takes its size from the environment where the call that sets it comes too late.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    library = LIBRARIES[arguments.library](arguments.threads)
    products = Products(library)
    print(json.dumps({"ready": library.name}), flush=True)
    for line in sys.stdin:
        print(json.dumps(products.burst(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
