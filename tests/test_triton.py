"""Every GPU kernel against NumPy: in Triton's interpreter on the CPU, or on a GPU if there is one."""

import importlib
import os

import numpy as np
import pytest
from tersor.testing import EPS, assert_close

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton's interpreter is chosen before Triton is imported", allow_module_level=True)

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from tersor import _body  # noqa: E402
from tersor._sample import Draw  # noqa: E402
from test_ops import ALL, inputs, run, several  # noqa: E402
from test_torch import array, tensor  # noqa: E402

pytestmark = pytest.mark.triton


def launcher(op):
    try:
        return getattr(importlib.import_module(f"tersor.triton.{op.family}"), op.name, None)
    except ModuleNotFoundError:
        return None


DTYPES = ("float32", "float64", "float16", "bfloat16")
CASES = [
    pytest.param(op, d, id=f"{op.key}-{d}")
    for op in ALL
    if launcher(op)
    for d in op.options.triton_dtypes or op.options.dtypes or DTYPES
]


def on_gpu(op, args):
    """What the CPU makes of NumPy arguments, and what the kernel does."""
    want = run(op, args)
    given = [tensor(x) for x in args]
    for i in range(op.n):
        if not isinstance(given[i], torch.Tensor):
            given[i] = torch.empty(0) if given[i] is None else torch.tensor(given[i], dtype=torch.float64)
    got = [torch.full(w.shape, torch.nan) if w.dtype.kind == "f" else torch.zeros(w.shape) for w in want]
    got = [g.to(tensor(w).dtype) for g, w in zip(got, want, strict=True)]
    launcher(op)(*given[: op.n], *got, *saved(op, given), *given[op.n :])
    return want, got


def saved(op, given):
    """Room for what is kept for the backward and not shown."""
    wanted = op.signature.made(given[: op.n], given[op.n :])
    return [_body.room(given[0], *w) for w in wanted[op.shown :]]


@pytest.mark.parametrize(("op", "dtype"), CASES)
@pytest.mark.parametrize(
    ("lead", "d", "rows", "c"),
    [((3,), 5, False, 1.0), ((2, 2), 16, True, 1.0), ((0,), 4, False, 1.0), ((1,), 33, False, 0.0)],
)
def test_launcher(op, dtype, lead, d, rows, c):
    want, got = on_gpu(op, inputs(op, Draw(7, dtype, lead, d, 0.9, c, c_rows=rows)))
    for g, w in zip(got, want, strict=True):
        if g.is_floating_point():
            tolerance = op.options.triton_tolerance * max(EPS[dtype], EPS["float32"])
            assert_close(g.double().numpy(), np.asarray(w, np.float64), tolerance, scale=1.0)
        else:
            np.testing.assert_array_equal(array(g), w)


def test_interpreter_is_on():
    assert several(1) == (1,)
    assert CASES


@pytest.mark.parametrize(
    "op", [op for op in ALL if op.signature.needs is not None and launcher(op)], ids=lambda op: op.key
)
def test_gradients_that_nobody_needs(op):
    args = inputs(op, Draw(7, "float32", (3,), 5, 0.9))
    at = op.n + op.signature.needs
    for needs in range(args[at] + 1):
        want, got = on_gpu(op, (*args[:at], needs, *args[at + 1 :]))
        for g, w in zip(got, want, strict=True):
            assert_close(g.double().numpy(), np.asarray(w, np.float64), 16 * EPS["float32"], scale=1.0)


@pytest.mark.parametrize("op", [op for op in ALL if op.signature.wider and launcher(op)], ids=lambda op: op.key)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_weight_of_float32_beside_16_bits(op, dtype):
    args = list(inputs(op, Draw(7, dtype, (3,), 5, 0.9)))
    for k in op.signature.wider:
        i = op.inputs.index(k)
        args[i] = np.random.default_rng(0).uniform(-2, 2, 5).astype(np.float32)
    want, got = on_gpu(op, args)
    for g, w in zip(got, want, strict=True):
        assert g.dtype == tensor(w).dtype
        assert_close(g.double().numpy(), np.asarray(w, np.float64), 16 * EPS[dtype], scale=1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("kind", ["gaussian", "rademacher", "sparse", "countsketch", "osnap", "srht", "fastfood"])
def test_projections_of_sparse_rows(kind, dtype):
    """Repeated columns, empty rows, windows of the matrix, both ways."""
    from tersor.project import Projection
    from tersor.project._operators import _project_csr

    rng = np.random.default_rng(0)
    p = Projection(200, 72, kind, seed=5, c=4 if kind == "osnap" else None)
    for part in (p, p.rows(31, 50).cols(7, 190)):
        for adjoint in (False, True):
            last = part.shape[0 if adjoint else 1]
            indptr = np.concatenate([[0], np.cumsum([0, 20, 3, 0, 1])]).astype(np.int32)
            indices = rng.integers(0, last, indptr[-1]).astype(np.int32)
            data = rng.standard_normal(len(indices)).astype(dtype)
            want, got = on_gpu(_project_csr.op, (data, indices, indptr, *part._scalars(), adjoint))
            eps = EPS[np.dtype(dtype).name]
            for g, w in zip(got, want, strict=True):
                assert_close(g.double().numpy(), np.asarray(w, np.float64), 128 * max(eps, EPS["float32"]), scale=1.0)


@pytest.mark.parametrize(
    ("indices", "indptr", "words"),
    [
        ([0, 9], [0, 1, 2], "indices must be in 0 .. 8"),
        ([0, -1], [0, 1, 2], "indices must be in 0 .. 8"),
        ([0, 1], [0, 2, 1], "not decrease"),
        ([0, 1], [0, 1, 3], "ends at 3"),
        ([0, 1], [1, 1, 2], "begin at 0"),
        ([0], [0, 1, 1], "2 entries, indices 1"),
    ],
)
def test_malformed_sparse_rows_are_refused(indices, indptr, words):
    from tersor.project import Projection
    from tersor.project._operators import _project_csr

    y = torch.full((2, 4), 7.0)
    scalars = (*Projection(9, 4, "sparse")._scalars(), False)
    with pytest.raises(ValueError, match=words):
        launcher(_project_csr.op)(torch.ones(2), torch.tensor(indices), torch.tensor(indptr), y, *scalars)
    assert (y == 7).all()
