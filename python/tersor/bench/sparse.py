"""Sparse products against MKL, SciPy, torch and the dense product. The one rule: every contender gets the matrix in its
own best format, made before the clock starts."""

import glob
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tersor import sparse
from tersor.bench import Case, Target, called


def mkl_product(a, x, **options):
    """MKL's product of a sparse matrix; the library is where the package ``mkl`` puts it."""
    if "MKL_RT" not in os.environ and (found := glob.glob(f"{sys.prefix}/lib/libmkl_rt.so*")):
        os.environ["MKL_RT"] = found[0]
    from sparse_dot_mkl import dot_product_mkl

    return dot_product_mkl(a, x, **options)


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
            "mkl sparse": lambda: mkl_product(csr, x, out=out_mkl),
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

    from tersor.nn import SparseInt8Linear, SparseLinear

    torch.manual_seed(0)
    torch.set_num_threads(1)
    linear, x, mask = torch.nn.Linear(inputs, outs), torch.randn(rows, inputs), torch.rand(outs, inputs) >= 0.9
    layer, coded = SparseLinear.from_dense(linear, mask), SparseInt8Linear.from_dense(linear, mask)

    def inference(module: torch.nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            return module(x)

    return Case(
        f"SparseLinear f32 {outs}×{inputs} at 90 %, {rows} row{'s' * (rows > 1)}",
        {
            "tersor": lambda: inference(layer),
            "tersor int8": lambda: inference(coded),
            "dense": lambda: inference(linear),
        },
        targets=[Target("tersor", ("dense",), share)],
    )


def _named(outs: int, inputs: int, rows: int, share: float) -> Callable[[], Case]:
    return called(f"layer_{outs}x{inputs}_{rows}", lambda: _layer(outs, inputs, rows, share))


def _graph(n: int, entries: int):
    """A random graph of hubs, as SciPy, torch and we have it; by torch in places too."""
    import scipy.sparse
    import torch

    rng = np.random.default_rng(0)
    rows, cols = rng.integers(0, n, entries), np.minimum((rng.pareto(1.5, entries) * n / 50).astype(np.int64), n - 1)
    theirs = scipy.sparse.coo_array((rng.standard_normal(entries, np.float32), (rows, cols)), shape=(n, n)).tocsr()
    theirs.sort_indices()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        parts = [torch.from_numpy(part) for part in (theirs.indptr, theirs.indices, theirs.data)]
        return theirs, torch.sparse_csr_tensor(*parts, (n, n)), sparse.from_scipy(theirs)


def spgemm_graph() -> Case:
    theirs, tensor, ours = _graph(20_000, 200_000)

    def scipy_sorted():
        c = theirs @ theirs
        c.sort_indices()
        return c

    return Case(
        "spgemm f32 of a graph, 20 000 nodes, 200 000 edges, columns in order",
        {
            "tersor": lambda: ours @ ours,
            "scipy": scipy_sorted,
            "mkl sparse": lambda: mkl_product(theirs, theirs, reorder_output=True),
            "torch csr": lambda: tensor @ tensor,
        },
        targets=[Target("tersor", ("scipy",), 1.0)],
    )


def transpose_graph() -> Case:
    theirs, tensor, ours = _graph(100_000, 1_000_000)
    p = ours._pattern
    return Case(
        "transpose f32 of a graph, 100 000 nodes, 1 000 000 edges",
        {
            "tersor": lambda: sparse.CSR._of(ours._data, type(p)(p.indices, p.indptr, p.shape)).T,
            "scipy": lambda: theirs.T.tocsr(),
            "torch csr": lambda: tensor.t().to_sparse_csr(),
        },
        targets=[Target("tersor", ("scipy", "torch csr"), 1.0)],
    )


def softmax_graph() -> Case:
    theirs, tensor, ours = _graph(100_000, 1_000_000)
    import torch

    coo = tensor.to_sparse_coo().coalesce()
    starts = theirs.indptr[:-1][np.diff(theirs.indptr) > 0]
    lengths = np.diff(theirs.indptr)[np.diff(theirs.indptr) > 0]

    def numpy():
        x = theirs.data
        e = np.exp(x - np.repeat(np.maximum.reduceat(x, starts), lengths))
        return e / np.repeat(np.add.reduceat(e, starts), lengths)

    return Case(
        "softmax f32 over rows of a graph, 100 000 nodes, 1 000 000 edges",
        {
            "tersor": lambda: sparse.softmax(ours),
            "torch coo": lambda: torch.sparse.softmax(coo, 1),
            "numpy": numpy,
        },
        targets=[Target("tersor", ("torch coo", "numpy"), 1.0)],
    )


#: the 1×1 convolutions of MobileNetV2 at 224 pixels, each once: channels in, channels out, pixels a side
MOBILENET = [
    *[
        (32, 16, 112),
        (16, 96, 112),
        (96, 24, 56),
        (24, 144, 56),
        (144, 24, 56),
        (144, 32, 28),
        (32, 192, 28),
        (192, 32, 28),
    ],
    *[(192, 64, 14), (64, 384, 14), (384, 64, 14), (384, 96, 14), (96, 576, 14), (576, 96, 14)],
    *[(576, 160, 7), (160, 960, 7), (960, 160, 7), (960, 320, 7), (320, 1280, 7)],
]


def mobilenet() -> Case:
    import torch

    from tersor.nn import SparseConv1x1

    torch.manual_seed(0)
    torch.set_num_threads(1)
    convs = [torch.nn.Conv2d(ins, outs, 1) for ins, outs, _ in MOBILENET]
    layers = [SparseConv1x1.from_float(conv, torch.rand(conv.weight.shape) >= 0.9) for conv in convs]
    images = [torch.randn(1, ins, side, side) for ins, _, side in MOBILENET]
    last = [image.contiguous(memory_format=torch.channels_last) for image in images]
    weights = [
        (conv.weight.detach()[:, :, 0, 0], conv.bias.detach()[:, None]) for conv in convs if conv.bias is not None
    ]

    def every(modules: Sequence[torch.nn.Module], inputs: Sequence[torch.Tensor]) -> Callable[[], None]:
        def call() -> None:
            with torch.inference_mode():
                for module, x in zip(modules, inputs, strict=True):
                    module(x)

        return call

    def products() -> None:
        for (w, b), x in zip(weights, images, strict=True):
            torch.addmm(b, w, x[0].flatten(1))

    return Case(
        f"SparseConv1x1 f32 at 90 %, the {len(MOBILENET)} shapes of MobileNetV2",
        {
            "tersor": every(layers, images),
            "tersor channels_last": every(layers, last),
            "conv2d": every(convs, images),
            "conv2d channels_last": every(convs, last),
            "addmm": products,
        },
        targets=[Target("tersor", ("conv2d", "conv2d channels_last", "addmm"), 0.8)],
    )


#: turns of activations where rows should come from memory: together more than caches hold
TURNS = 32


class _Few(NamedTuple):
    """Activations as we take them, as a bag of embeddings does, and all of them."""

    kept: sparse.CSR
    places: Any
    values: Any
    whole: Any


def _few_activations(tokens: int, turns: int, limit: float) -> Case:
    """Calls that take their turns of activations one after the other. The dense product reads the whole table, which leaves
    the caches empty to whoever comes next: it stands where they are empty anyway, or a call is long."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    hidden, outs, k = 11008, 4096, 330
    table = torch.randn(hidden, outs)

    def few() -> _Few:
        places = torch.stack([torch.randperm(hidden)[:k].sort().values for _ in range(tokens)])
        values = torch.rand(tokens, k)
        kept = sparse.CSR(values.flatten(), places.flatten(), torch.arange(tokens + 1) * k, (tokens, hidden))
        return _Few(kept, places, values, kept.to_dense())

    made = [few() for _ in range(turns)]

    def each(call: Callable[[_Few], object]) -> Callable[[], None]:
        turn = itertools.cycle(made)

        def next_one() -> None:
            call(next(turn))

        return next_one

    bag = torch.nn.functional.embedding_bag
    calls = {
        "tersor": each(lambda few: sparse.spmm(few.kept, table)),
        "embedding_bag": each(lambda few: bag(few.places, table, mode="sum", per_sample_weights=few.values)),
        "dense": each(lambda few: few.whole @ table),
    }
    if tokens == turns == 1:
        del calls["dense"]
    what = f"{tokens} token{'s' * (tokens > 1)}" + (", another in every call" if turns > 1 else "")
    return Case(
        f"TopKFFN's second product f32 {hidden}→{outs}, {k} activations, {what}",
        calls,
        targets=[Target("tersor", ("embedding_bag",), limit)],
    )


def ffn_1() -> Case:
    return _few_activations(1, TURNS, 1.0)


def ffn_1_again() -> Case:
    return _few_activations(1, 1, 1.0)


def ffn_64() -> Case:
    return _few_activations(64, 1, 1.0)


CASES = [spmm_1024_90, spmm_1024_50, spgemm_graph, transpose_graph, softmax_graph]
CASES += [_named(*shape, rows, share) for shape, by in LAYERS.items() for rows, share in by.items()]
CASES += [mobilenet, ffn_1, ffn_1_again, ffn_64]

HEADLINE = spmm_1024_90
