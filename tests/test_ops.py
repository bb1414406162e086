"""The battery: every operator of the registry against its reference and the policies. No line here names an operator."""

import importlib
import inspect
import itertools
import pkgutil

import numpy as np
import pytest
import tersor
from hypothesis import given
from hypothesis import strategies as st
from tersor import _core
from tersor._arrays import dtype_name
from tersor._op import KERNELS, OPS
from tersor._sample import Draw
from tersor._values import tensor_of
from tersor.testing import EPS, assert_close, draws

for module in pkgutil.iter_modules(tersor.__path__):
    if not module.name.startswith("_") and module.name not in ("nn", "optim", "triton", "cli", "bench"):
        importlib.import_module(f"tersor.{module.name}")

#: those of lists, `test_lists` asks
ALL = [op for op in OPS.values() if op.sample is not None and not op.lists]
ROWS = [op for op in ALL if op.vectors]
#: norm-wise error against the float64 reference, in machine epsilons of the dtype (the reference's own share included)
TOLERANCE = {"float64": 2000, "float32": 4, "float16": 4, "bfloat16": 4}


def names(op):
    return op.key


def several(y):
    return y if isinstance(y, tuple) else (y,)


def wide(x):
    """As the reference sees an input: float64 for floats."""
    return np.asarray(x, np.float64) if dtype_name(np.asarray(x).dtype) in EPS else x


def inputs(op, draw):
    xs, scalars = op.sample(draw)
    return tuple(xs) + tuple(scalars.get(k, op.defaults.get(k)) for k in op.scalars)


def run(op, args, **kwargs):
    return several(op.numpy(args, dict(kwargs)))


def dtypes(op):
    return op.options.dtypes or tuple(TOLERANCE)


CASES = [pytest.param(op, d, id=f"{op.key}-{d}") for op in ALL for d in dtypes(op)]


@pytest.mark.parametrize(("op", "dtype"), CASES)
@given(data=st.data())
def test_matches_reference(op, dtype, data):
    draw = data.draw(draws(dtype))
    args = inputs(op, draw)
    got = run(op, args)
    with np.errstate(all="ignore"):
        want = several(op.reference(*(args if op.options.native else [wide(x) for x in args])))
    # what is kept for the backward alone, the gradients are checked by
    assert len(got) == op.shown and len(want) == len(op.outputs)
    want = want[: op.shown]
    tolerance = (op.options.tolerance or TOLERANCE).get(dtype, 0.0) * EPS.get(dtype, 0.0)
    moved = neighbours(op, args, want) if op.options.conditioned else [0.0] * len(want)
    for name, g, w, apart in zip(op.outputs[: op.shown], got, want, moved, strict=True):
        assert g.shape == np.shape(w), name
        kind = dtype_name(g.dtype)
        if kind in EPS:
            # what a tolerance of 4 eps of the inputs is to the result
            assert_close(g, w, tolerance, scale=scale(args) + (4 * apart / tolerance if apart else 0.0))
        else:
            np.testing.assert_array_equal(g, w, err_msg=name)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("op", [op for op in ROWS if "ball" in getattr(op.sample, "kinds", ())], ids=names)
def test_outside_the_ball_is_nowhere(op, dtype):
    """A row that is no point makes its own results NaN, whole, and those of no other row; of gradients, one at least."""
    args = inputs(op, Draw(1, dtype, (5,), 3, 1.0, c_rows=True))
    balls = [i for i, kind in enumerate(op.sample.kinds) if kind == "ball"]
    for outside in [*([i] for i in balls), balls]:
        there = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        for i in outside:
            there[i][2] = [1.7, -0.4, 0.2 * i]
        with np.errstate(all="ignore"):
            want = several(op.reference(*map(wide, there)))
        for found in (run(op, there), want):
            lost = [np.isnan(wide(y)[2]) for y in found]
            assert any(map(np.any, lost)) if op.name.endswith("_bwd") else all(map(np.all, lost))
            assert all(np.isfinite(np.delete(wide(y), 2, 0)).all() for y in found)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("op", ROWS, ids=names)
def test_rows_with_no_number_are_none(op, dtype):
    """What a NaN or an infinite coordinate makes NaN in the reference is NaN in every type, to the last coordinate."""
    if dtype not in dtypes(op):
        pytest.skip(f"not for {dtype}")
    args = inputs(op, Draw(1, dtype, (5,), 20))
    rows = [
        i for i, x in enumerate(args) if isinstance(x, np.ndarray) and x.shape == (5, 20) and dtype_name(x.dtype) in EPS
    ]
    for i, bad in itertools.product(rows, (np.nan, np.inf, -np.inf)):
        if op.inputs[i] == "g" and np.isinf(bad):
            continue  # where infinities meet, and cancel, each form of a gradient has its own
        odd = [x.copy() if isinstance(x, np.ndarray) else x for x in args]
        odd[i][2, 3] = bad
        with np.errstate(all="ignore"):
            want = several(op.reference(*(odd if op.options.native else map(wide, odd))))
        try:
            got = run(op, odd)
        except ValueError as e:
            assert "non-finite" in str(e)
            continue
        for name, g, w in zip(op.outputs, got, want[: op.shown], strict=False):
            if dtype_name(g.dtype) in EPS:
                assert np.isnan(wide(g))[np.isnan(w)].all(), (op.inputs[i], bad, name)


def neighbours(op, args, want):
    """How far each result moves, at most, where the inputs are the numbers next to them."""
    apart = [0.0] * len(want)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        near = [
            wide(x) * (1 + EPS[dtype_name(x.dtype)] * rng.choice([-1, 1], x.shape))
            if isinstance(x, np.ndarray) and dtype_name(x.dtype) in EPS
            else x
            for x in args
        ]
        with np.errstate(all="ignore"):
            found = several(op.reference(*near))
        apart = [max(a, np.max(np.abs(f - w), initial=0.0)) for a, f, w in zip(apart, found, want, strict=True)]
    return apart


def scale(args):
    """The size of the inputs: errors of cancelled results are judged against it."""
    tops = [np.max(np.abs(wide(x)), initial=0.0) for x in args if isinstance(x, np.ndarray) and x.size]
    return max([t for t in tops if np.isfinite(t)], default=0.0)


def layouts(x):
    """The same numbers in other memory: strided, reversed, Fortran order, read-only, unaligned."""
    if not isinstance(x, np.ndarray) or x.ndim == 0:
        return [x] * 5
    gaps = np.empty((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)[..., ::2]
    gaps[...] = x
    back = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    frozen = x.copy()
    frozen.flags.writeable = False
    shifted = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    shifted[...] = x
    return [gaps, back, np.asfortranarray(x), frozen, shifted]


def same_bits(a, b):
    assert [x.tobytes() for x in a] == [x.tobytes() for x in b]


@pytest.mark.parametrize("op", ALL, ids=names)
@given(data=st.data())
def test_layouts(op, data):
    args = inputs(op, data.draw(draws("float32")))
    want = run(op, args)
    for other in zip(*map(layouts, args), strict=True):
        same_bits(run(op, other), want)


@pytest.mark.parametrize("op", ALL, ids=names)
def test_out(op):
    args = inputs(op, Draw(1, "float32", (6,), 7))
    want = run(op, args)
    out = tuple(np.full_like(y, 7) for y in want)
    got = op.numpy(args, {"out": out if len(out) > 1 else out[0]})
    assert all(g is o for g, o in zip(several(got), out, strict=True))
    same_bits(out, want)

    def refuses(error, bad, match):
        before = [y.copy() for y in several(bad)]
        with pytest.raises(error, match=match):
            op.numpy(args, {"out": (bad, *out[1:]) if len(out) > 1 else bad})
        same_bits([np.ascontiguousarray(y) for y in several(bad)], before)

    y = want[0]
    refuses(TypeError, np.zeros(y.shape, np.complex64), op.name)
    refuses(ValueError, np.zeros((*y.shape, 3), y.dtype), "shape")
    frozen = y.copy()
    frozen.flags.writeable = False
    refuses(ValueError, frozen, op.name)
    if y.ndim and y.shape[-1] > 1:
        refuses(ValueError, np.zeros((*y.shape[:-1], 2 * y.shape[-1]), y.dtype)[..., ::2], op.name)
    with pytest.raises((TypeError, ValueError), match=op.name):
        op.numpy(args, {"out": [y]})


@pytest.mark.parametrize("op", [op for op in ROWS if op.fast is not None], ids=names)
def test_out_without_the_python_path(op):
    """Just the arrays that would be allocated are written to at once; anything else is left to the path that says why."""
    args = inputs(op, Draw(1, "float32", (6,), 8))
    want = run(op, args)
    out = tuple(np.full_like(y, 7) for y in want)
    whole = out if len(out) > 1 else out[0]
    assert op.fast(args, whole) is whole
    same_bits(out, want)
    room = np.zeros(2 * want[0].size, np.float32)
    frozen = want[0].copy()
    frozen.flags.writeable = False
    for bad in (
        want[0].astype(np.float64),
        want[0].astype(want[0].dtype.newbyteorder()),
        np.zeros((*want[0].shape, 1), np.float32),
        room[::2].reshape(want[0].shape),
        frozen,
        want[0].view(np.matrix) if want[0].ndim == 2 else want[0].tolist(),
        None if len(out) > 1 else (want[0],),
    ):
        before = np.array(bad, copy=True)
        assert op.fast(args, (bad, *out[1:]) if len(out) > 1 else bad) is None
        np.testing.assert_array_equal(bad, before)
    assert op.fast(args, (*out, out[0])) is None


@pytest.mark.parametrize("op", ROWS, ids=names)
def test_overlap(op):
    args = list(inputs(op, Draw(1, "float32", (6,), 8)))
    want = run(op, args)
    for i in range(op.vectors):
        if want[0].shape != args[i].shape or want[0].dtype != args[i].dtype or len(want) > 1:
            continue
        room = np.zeros(args[i].size + 8, np.float32)
        here = room[8:].reshape(args[i].shape)
        here[...] = args[i]
        with pytest.raises(ValueError, match="overlap"):
            op.numpy((*args[:i], here, *args[i + 1 :]), {"out": room[:-8].reshape(here.shape)})
        if op.kernel.alias:  # exactly the input is fine
            op.numpy((*args[:i], here, *args[i + 1 :]), {"out": here})
            same_bits([here], want)


@pytest.mark.parametrize("op", ALL, ids=names)
def test_bad_arguments(op):
    args = inputs(op, Draw(1, "float32", (6,), 8))
    with pytest.raises(TypeError, match=op.name):
        op.numpy(args, {"nonsense": 1})
    with pytest.raises(TypeError, match=op.name):
        op.numpy((*args, 1), {})
    with pytest.raises(TypeError, match=op.name):
        op.numpy((args[0].astype(np.complex64), *args[1:]), {})
    public = inspect.unwrap(op.reference)
    assert public.__doc__, f"{op.name} has no docstring"
    if dtype_name(args[0].dtype) in EPS:
        with pytest.raises(TypeError, match="byte order"):
            op.numpy((args[0].astype(args[0].dtype.newbyteorder()), *args[1:]), {})
        if not op.options.any_dtype:
            with pytest.raises(TypeError, match=op.name):
                op.numpy((args[0].astype(np.int32), *args[1:]), {})
    for i in range(1, op.n):
        same = op.inputs[i] not in op.exempt and dtype_name(np.asarray(args[i]).dtype) == "float32"
        if same and dtype_name(args[0].dtype) == "float32":
            with pytest.raises(TypeError, match="float64"):
                op.numpy((*args[:i], args[i].astype(np.float64), *args[i + 1 :]), {})
    if op.vectors:
        with pytest.raises(ValueError, match="0-d"):
            op.numpy((np.full((), 1, np.float32), *args[1:]), {})
    for i in range(1, op.vectors):
        with pytest.raises(ValueError, match=op.name):
            op.numpy((*args[:i], args[i][..., :-1].copy(), *args[i + 1 :]), {})
        with pytest.raises(ValueError, match=op.name):
            op.numpy((*args[:i], args[i][:-1].copy(), *args[i + 1 :]), {})


@pytest.mark.parametrize("op", [op for op in ALL if op.flags], ids=names)
@pytest.mark.parametrize("wrong", [1j, None, 1.0, "yes"], ids=str)
def test_what_is_no_flag_is_refused(op, wrong):
    """By both libraries: torch would take a complex number for one."""
    dtype = dtypes(op)[0]
    args = list(inputs(op, Draw(1, dtype, (3,), 4)))
    tensors = [tensor_of(np.ascontiguousarray(x)) if isinstance(x, np.ndarray) else x for x in args]
    for i in op.flags:
        for call, whole in ((op.numpy, args), (op.torch, tensors)):
            with pytest.raises(TypeError, match=f"{op.parameters[i]} must be True or False"):
                call((*whole[:i], wrong, *whole[i + 1 :]), {})


@pytest.mark.parametrize("op", ROWS, ids=names)
def test_rows_broadcast(op):
    if op.name.endswith("_bwd"):
        pytest.skip("a backward takes what its forward made whole")
    args = list(inputs(op, Draw(3, "float64", (4, 3), 5)))
    for i in range(op.vectors):
        for cut in (np.s_[0, 0], np.s_[:1, :1], np.s_[0], np.s_[:, :1]):
            some = [*args[:i], args[i][cut], *args[i + 1 :]]
            full = [*args[:i], np.broadcast_to(args[i][cut], args[i].shape).copy(), *args[i + 1 :]]
            lead = np.broadcast_shapes(*[x.shape for x in some[: op.vectors]])
            if lead == args[0].shape:
                same_bits(run(op, some), run(op, full))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("op", [op for op in ROWS if op.vectors > 1], ids=names)
def test_one_row_for_all(op, dtype):
    """The same bits as of rows written out, and of a gradient their sum, for any number of threads."""
    args = list(inputs(op, Draw(3, dtype, (130,), 19)))
    whole = next(i for i in range(op.vectors) if op.inputs[i] != "g")
    before = tersor.get_num_threads()
    try:
        for i in range(whole + 1, op.vectors):
            one = [*args[:i], args[i][0].copy(), *args[i + 1 :]]
            every = run(op, [*args[:i], np.broadcast_to(args[i][0], args[i].shape).copy(), *args[i + 1 :]])
            seen = []
            for n in (1, 2, 3):
                tersor.set_num_threads(n)
                got = run(op, one)
                seen.append([y.tobytes() for y in got])
            assert seen[0] == seen[1] == seen[2]
            for y, w, rule in zip(got, every, op.rules, strict=True):
                if rule == i:
                    total = np.asarray(w, np.float64).sum(0)
                    error = len(w) * 4 * EPS[dtype] * np.abs(np.asarray(w, np.float64)).max(initial=0)
                    np.testing.assert_allclose(np.asarray(y, np.float64), total, rtol=4 * EPS[dtype], atol=error)
                else:
                    assert y.tobytes() == w.tobytes()
    finally:
        tersor.set_num_threads(before)


@pytest.mark.parametrize("op", ALL, ids=names)
def test_no_axes(op):
    """A number in place of each array is worked on or refused, by name."""
    args = list(inputs(op, Draw(3, op.options.dtypes[0] if op.options.dtypes else "float64", (4, 3), 5)))
    for i, x in enumerate(args[: op.n]):
        if isinstance(x, np.ndarray) and x.size:
            try:
                run(op, [*args[:i], x.reshape(-1)[0].reshape(()).copy(), *args[i + 1 :]])
            except (TypeError, ValueError) as e:
                assert str(e).startswith(f"{op.name}: "), e


@pytest.mark.parametrize("op", ALL, ids=names)
def test_thread_count_does_not_matter(op):
    args = inputs(op, Draw(2, "float32", (997,), 67))
    before = tersor.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3, 8):
            tersor.set_num_threads(n)
            results.append([y.tobytes() for y in run(op, args)])
    finally:
        tersor.set_num_threads(before)
    assert all(r == results[0] for r in results)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", ALL, ids=names)
def test_instruction_set_does_not_matter(op, dtype):
    if dtype not in dtypes(op):
        pytest.skip(f"not for {dtype}")
    args = inputs(op, Draw(2, dtype, (97,), 67))
    results = {}
    try:
        for level in _core.level()[1]:
            _core.force_level(level)
            results[level] = [y.tobytes() for y in run(op, args)]
    finally:
        _core.force_level()
    fused = [r for level, r in results.items() if level != "baseline"]
    assert all(r == fused[0] for r in fused)


@pytest.mark.parametrize("op", ALL, ids=names)
def test_strange_numbers_do_no_harm(op):
    args = inputs(op, Draw(5, "float64", (5,), 6))
    for bad in (np.nan, np.inf, -np.inf, 1e308, 5e-324, -0.0):
        odd = [x.copy() if isinstance(x, np.ndarray) else x for x in args]
        if dtype_name(odd[0].dtype) not in EPS or odd[0].size == 0:
            return
        with np.errstate(over="ignore"):
            odd[0].reshape(-1)[0] = bad
        bad = float(odd[0].reshape(-1)[0])  # what became of it in a smaller type
        try:
            got = run(op, odd)
        except ValueError as e:
            low, high = op.options.within or (-np.inf, np.inf)
            assert op.name in str(e) and not (np.isfinite(bad) and low <= bad <= high)
            continue
        assert op.options.within is None or op.options.within[0] <= bad <= op.options.within[1]
        if op.vectors and not np.isfinite(bad):
            continue
        if op.vectors and not op.name.endswith("_bwd"):
            # a row does not see the others
            same_bits(
                [np.ascontiguousarray(y[1:]) for y in got],
                [np.ascontiguousarray(y[1:]) for y in run(op, args)],
            )


def test_tables_agree():
    """Every kernel is declared, every declaration has a kernel with the same names in the same order."""
    assert set(OPS) == set(KERNELS)
    for op in OPS.values():
        assert op.parameters == (*op.inputs, *op.signature.scalars), op.key
        assert {k for k in op.inputs if op.defaults.get(k, 0) is None} == op.optional, op.key
        if op.name.endswith("_bwd"):
            forward = OPS[op.key.removesuffix("_bwd")]
            assert all(k.removeprefix("d") in forward.inputs for k in op.outputs), op.key
            known = {*forward.inputs, *forward.outputs, *forward.scalars}
            grads = [k for k in op.inputs if k not in known]
            assert len(grads) == forward.shown and all(k.startswith("g") for k in grads), op.key
        assert op.sample is not None or op.options.unsampled, f"{op.key}: neither a sample nor a reason"


def test_masked_arrays_and_matrices_are_refused():
    x = np.full((3, 4), 0.1)
    for wrong in (np.ma.masked_array(x, x > 1), np.matrix(x)):
        with pytest.raises(TypeError, match=rf"expmap0: x must be a plain array, got .*\({type(wrong).__name__}\)"):
            tersor.hyperbolic.expmap0(wrong, 1.0)


def test_rows_along_many_axes():
    x = 0.1 * np.random.default_rng(0).standard_normal((2,) * 18 + (3,))
    flat = x.reshape(-1, 3)
    assert (tersor.hyperbolic.expmap0(x, 1.0) == tersor.hyperbolic.expmap0(flat, 1.0).reshape(x.shape)).all()
    assert (
        tersor.hyperbolic.dist(x, x[::-1], 1.0).ravel() == tersor.hyperbolic.dist(flat, x[::-1].reshape(-1, 3), 1.0)
    ).all()
    one = tersor.hyperbolic.mobius_add(x, x[(0,) * 18], 1.0)
    assert (one.reshape(-1, 3) == tersor.hyperbolic.mobius_add(flat, flat[0], 1.0)).all()
