"""Sparse products against MKL, SciPy, torch and the dense product. The one rule: every contender gets the matrix in its
own best format, made before the clock starts."""

import glob
import os
import sys
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from tersor import sparse
from tersor.bench import Case, Target


def mkl_product(a, x: np.ndarray, out: np.ndarray):
    """MKL's sparse times dense; the library is where the package ``mkl`` puts it."""
    if "MKL_RT" not in os.environ and (found := glob.glob(f"{sys.prefix}/lib/libmkl_rt.so*")):
        os.environ["MKL_RT"] = found[0]
    from sparse_dot_mkl import dot_product_mkl

    return dot_product_mkl(a, x, out=out)


def _spmm(m: int, k: int, n: int, sparsity: float, dense: Sequence[Target] = ()) -> Case:
    import scipy.sparse
    import torch

    rng = np.random.default_rng(0)
    w = rng.standard_normal((m, k), np.float32) * (rng.random((m, k)) >= sparsity)
    x, out = rng.standard_normal((k, n), np.float32), np.empty((m, n), np.float32)
    out_mkl, out_dense = np.zeros_like(out), np.empty_like(out)
    ours, csr = sparse.from_dense(w), scipy.sparse.csr_matrix(w)
    tx, tw = torch.from_numpy(x), torch.from_numpy(w)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")  # no news between two tables
        parts = [torch.from_numpy(part) for part in (csr.indptr, csr.indices, csr.data)]
        torch_csr = torch.sparse_csr_tensor(*parts, (m, k), check_invariants=True)
    peers = ("mkl sparse", "scipy", "torch csr")
    return Case(
        f"spmm f32 {m}×{k} at {sparsity:.0%} sparsity, N={n}",
        {
            "tersor out=": lambda: sparse.spmm(ours, x, out=out),
            "tersor": lambda: sparse.spmm(ours, x),
            "tersor torch": lambda: sparse.spmm(ours, tx),
            "mkl sparse": lambda: mkl_product(csr, x, out_mkl),
            "scipy": lambda: csr @ x,
            "torch csr": lambda: torch_csr @ tx,
            "dense numpy": lambda: np.matmul(w, x, out=out_dense),
            "dense torch": lambda: tw @ tx,
        },
        targets=[Target("tersor out=", peers, 0.5), *dense],
    )


def spmm_1024_90() -> Case:
    dense = [Target("tersor out=", ("dense numpy", "dense torch"), 0.4), Target("tersor out=", ("dense torch",), 0.25)]
    return _spmm(1024, 1024, 1024, 0.9, dense)


def spmm_1024_50() -> Case:
    return _spmm(1024, 1024, 1024, 0.5)


#: shares of torch's dense layer that are asked for at 90 %: (outs, inputs) -> by rows
LAYERS = {(4096, 4096): {1: 0.2, 4: 0.3, 16: 0.3}, (1536, 384): {1: 0.7, 16: 0.3}}


def _layer(outs: int, inputs: int, rows: int, share: float) -> Case:
    import torch

    from tersor.nn import SparseLinear

    torch.manual_seed(0)
    torch.set_num_threads(1)
    linear, x = torch.nn.Linear(inputs, outs), torch.randn(rows, inputs)
    layer = SparseLinear.from_dense(linear, torch.rand(outs, inputs) >= 0.9)

    def inference(module: torch.nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            return module(x)

    return Case(
        f"SparseLinear f32 {outs}×{inputs} at 90 %, {rows} row{'s' * (rows > 1)}",
        {"tersor": lambda: inference(layer), "dense": lambda: inference(linear)},
        targets=[Target("tersor", ("dense",), share)],
    )


def _named(outs: int, inputs: int, rows: int, share: float) -> Callable[[], Case]:
    return lambda: _layer(outs, inputs, rows, share)


CASES = [spmm_1024_90, spmm_1024_50]
CASES += [_named(*shape, rows, share) for shape, by in LAYERS.items() for rows, share in by.items()]

HEADLINE = spmm_1024_90
