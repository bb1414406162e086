"""Projections whose entries hang together: sketches and transforms, against their matrices and their exact variances."""

import hashlib
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import tersor
from hypothesis import given, settings
from hypothesis import strategies as st
from tersor.project import Projection, project
from tersor.project._forms import KINDS, TRANSFORMS, matrix
from tersor.random import words

torch = pytest.importorskip("torch")

MAKES = [
    ("countsketch", {}),
    ("osnap", {"c": 2}),
    ("osnap", {}),
    ("srht", {}),
    ("spinner", {}),
    ("spinner", {"blocks": 1}),
    ("fastfood", {}),
    ("fastfood", {"g": "rademacher"}),
]
IDS = ["-".join([kind, *map(str, more.values())]) for kind, more in MAKES]


@pytest.fixture(params=MAKES, ids=IDS)
def make(request):
    kind, own = request.param
    return lambda d, k, **more: Projection(d, k, kind, **own, **more)


def numbers(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# --- moments ---


def variances(kind, d, k, x, y):
    """Var |Px|² and Var <Px, Py>, exactly; None where only the mean is known."""
    xx, yy, xy = x @ x, y @ y, x @ y
    norm, inner = 2 * xx**2 - 2 * np.sum(x**4), xx * yy + xy**2 - 2 * np.sum(x**2 * y**2)
    if kind in ("countsketch", "osnap"):
        return norm / k, inner / k
    if kind == "srht":  # rows without replacement
        share = (d - k) / (d - 1)
        return norm / k * share, inner / k * share
    return None, None


@pytest.mark.parametrize(("kind", "own"), MAKES, ids=IDS)
def test_moments(kind, own):
    """E|Px|² = |x|² and E<Px,Py> = <x,y>, within five standard errors, by the exact variances where there are any."""
    d, k, draws = 64, 16, 3000
    x, y = numbers(2, d, seed=1)
    both = np.stack([Projection(d, k, kind, seed=seed, **own)(np.stack([x, y])) for seed in range(draws)])
    norm, inner = np.sum(both[:, 0] ** 2, 1), np.sum(both[:, 0] * both[:, 1], 1)
    for got, want, exact in zip((norm, inner), (x @ x, x @ y), variances(kind, d, k, x, y), strict=True):
        z = (got.mean() - want) / math.sqrt((got.var() if exact is None else exact) / draws)
        assert abs(z) < 5, z
        assert exact is None or 0.8 < got.var() / exact < 1.25


def test_variance_of_fastfood():
    """4(1 - Σx⁴)/(N + 2) for k = N and a unit vector, and none where G are signs."""
    n, draws = 32, 4000
    x = numbers(n, seed=3)
    x /= np.linalg.norm(x)
    norm = [np.sum(Projection(n, n, "fastfood", seed=seed)(x) ** 2) for seed in range(draws)]
    exact = 4 * (1 - np.sum(x**4)) / (n + 2)
    assert abs((np.mean(norm) - 1) / math.sqrt(exact / draws)) < 5 and 0.8 < np.var(norm) / exact < 1.25
    p = Projection(n, n, "fastfood", g="rademacher", seed=1).materialise()
    np.testing.assert_allclose(p.T @ p, np.eye(n), rtol=0, atol=1e-14)
    # of unit columns, as the paper has it
    p = Projection(n, n, "fastfood", seed=1).materialise()
    np.testing.assert_allclose(np.sum(p**2, 0), 1, rtol=0, atol=1e-14)


def test_isometries():
    for kind, d, k in (("srht", 60, 64), ("spinner", 60, 64), ("spinner", 60, 192)):
        p = Projection(d, k, kind, seed=2).materialise()
        np.testing.assert_allclose(p.T @ p, np.eye(d), rtol=0, atol=1e-14)
    p = Projection(100, 40, "srht", seed=3).materialise()
    np.testing.assert_allclose(p @ np.linalg.pinv(p), np.eye(40), rtol=0, atol=1e-12)


# --- one matrix, seen from every side ---


@settings(max_examples=25)
@given(d=st.integers(1, 70), k=st.integers(1, 60), n=st.integers(0, 20), seed=st.integers(0, 2**64 - 1))
def test_linear_adjoint_and_written_out(d, k, n, seed):
    for kind, own in MAKES:
        if (kind == "srht" and k > d) or k % own.get("c", 4 if kind == "osnap" else 1):
            continue
        p = Projection(d, k, kind, seed=seed, stream=3, **own)
        m = p.materialise()
        *scalars, scale = p._scalars()
        np.testing.assert_allclose(m, matrix(*scalars) * scale, rtol=0, atol=1e-13)
        x, y, w = numbers(n, d, seed=1), numbers(n, d, seed=2), numbers(n, k, seed=3)
        np.testing.assert_allclose(p(x), x @ m.T, rtol=0, atol=1e-12)
        np.testing.assert_allclose(p.adjoint(w), w @ m, rtol=0, atol=1e-12)
        np.testing.assert_allclose(p(2 * x - 3 * y), 2 * p(x) - 3 * p(y), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("d", "k"), [(100, 256), (1000, 64), (257, 4000), (40_000, 32)])
def test_adjoint_identity_in_float32(make, d, k):
    if make(8, 8).kind == "srht" and k > d:
        d, k = k, d
    p = make(d, k, seed=4)
    x, w = numbers(d, dtype=np.float32), numbers(k, seed=1, dtype=np.float32)
    px, pw = p(x).astype(np.float64), p.adjoint(w).astype(np.float64)
    scale = max(np.linalg.norm(px) * np.linalg.norm(w), np.linalg.norm(x) * np.linalg.norm(pw))
    assert abs(px @ w - x @ pw) <= 4 * 2**-23 * math.sqrt(max(d, k)) * scale


def test_slices_are_the_same_bits(make):
    p, x = make(150, 120, seed=5), numbers(7, 150, dtype=np.float32)
    whole, m = p(x), p.materialise(np.float32)
    for a, b in ((0, 120), (0, 1), (17, 90), (119, 120), (5, 5)):
        assert p.rows(a, b).shape == (b - a, 150)
        assert p.rows(a, b)(x).tobytes() == np.ascontiguousarray(whole[:, a:b]).tobytes()
        assert p.rows(a, b).materialise(np.float32).tobytes() == m[a:b].tobytes()
    for a, b in ((0, 1), (40, 131), (149, 150)):
        assert p.cols(a, b).materialise(np.float32).tobytes() == np.ascontiguousarray(m[:, a:b]).tobytes()
        got = p.rows(3, 50).cols(a, b)(x[:, a:b])
        np.testing.assert_allclose(got, x[:, a:b] @ m[3:50, a:b].T, rtol=0, atol=1e-4)


def test_appending_columns(make):
    """A sketch is merged by a sum: of blocks of columns in any cut."""
    p, x = make(1000, 40, seed=9), numbers(6, 1000)
    for step in (130, 999):
        y = sum(p.cols(a, min(a + step, 1000))(x[:, a : a + step]) for a in range(0, 1000, step))
        np.testing.assert_allclose(y, p(x), rtol=0, atol=1e-13 * np.abs(x).sum())


@pytest.mark.parametrize(("d", "k", "n"), [(300, 52, 1100), (40_000, 40, 2)])
def test_rows_see_neither_each_other_nor_the_threads(make, d, k, n):
    p, x = make(d, k), numbers(n, d, dtype=np.float32)
    whole = p(x)
    for a, b in ((0, 1), (n // 2, n), (n - 1, n)):
        assert p(x[a:b]).tobytes() == whole[a:b].tobytes()
    before, seen = tersor.get_num_threads(), set()
    try:
        for threads in (1, 2, 5, 16):
            tersor.set_num_threads(threads)
            seen.add(hashlib.sha256(p(x).tobytes() + p.adjoint(whole).tobytes()).hexdigest())
    finally:
        tersor.set_num_threads(before)
    assert len(seen) == 1


# of kernel and reference both, which share no code
GOLDEN = {
    "countsketch": "15b10156e1484945", "osnap": "c9a6e5553bab46a5", "srht": "cabe43120e941fe7", "spinner": "3ae29f9bdcdd95b9",
    "fastfood": "1d17faff659043ef",
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(GOLDEN))
def test_golden_entries(kind):
    p = Projection(50, 60, kind, seed=0x0123456789ABCDEF, stream=5)
    *scalars, scale = p._scalars()
    for m in (p.materialise() / scale, matrix(*scalars)):
        entries = np.round(m * 2**20).astype(np.int64)
        assert hashlib.sha256(entries.tobytes()).hexdigest()[:16] == GOLDEN[kind]


def test_the_sketch_is_the_contract():
    p = Projection(9, 12, "osnap", c=3, seed=7, stream=1)
    want = np.zeros((12, 9))
    for j in range(9):
        for r in range(3):
            w, s = (int(words(7, 4, 1, j, 2 * r + i)) for i in (0, 1))
            want[r * 4 + (w * 4 >> 32), j] = (-1) ** (s >> 31) / math.sqrt(3)
    np.testing.assert_array_equal(p.materialise(), want)
    one = Projection(9, 12, "countsketch", seed=7, stream=1).materialise()
    assert np.array_equal(np.abs(one).sum(0), np.ones(9)) and set(np.unique(one)) <= {-1.0, 0.0, 1.0}


def test_seeds_and_streams_are_independent():
    for kind, own in MAKES:
        base = Projection(128, 128, kind, seed=7, **own).materialise()
        for other in ({"seed": 8}, {"seed": 7, "stream": 1}, {"seed": 7 + 2**32}):
            m = Projection(128, 128, kind, **own, **other).materialise()
            for a, b in ((base, m), (base[1:], m[:-1]), (base[:, 1:], m[:, :-1])):
                # the signs of columns are independent in every kind, entries within one are not
                c = np.sum(a * b, 0)
                assert abs(c.sum()) / math.sqrt(np.sum(c**2) + 1e-9) < 5, kind


# --- the object ---


def test_what_is_refused():
    for wrong in (
        {"kind": "osnap", "k": 6}, {"kind": "osnap", "c": 0}, {"kind": "osnap", "c": 3}, {"kind": "spinner", "blocks": 4},
        {"kind": "spinner", "blocks": 0}, {"kind": "fastfood", "g": "normal"}, {"kind": "srht", "k": 17},
        {"kind": "gaussian", "c": 4}, {"kind": "countsketch", "c": 1}, {"kind": "sparse", "g": "gaussian"},
        {"kind": "osnap", "s": 3}, {"kind": "srht", "blocks": 3}, {"kind": "countsketch", "k": 2**31},
        {"kind": "srht", "d": 2**31 + 1}, {"kind": "fastfood", "k": 2**31 + 1},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="project: "):
            Projection(**({"d": 10, "k": 4} | wrong))
    for wrong in ({"kind": "osnap", "c": 2.0}, {"kind": "spinner", "blocks": "3"}, {"kind": "fastfood", "g": 1}):
        with pytest.raises(TypeError, match="project: "):
            Projection(**({"d": 10, "k": 4} | wrong))


def test_description(make):
    p = make(100, 40, seed=2**63, stream=3)
    for a in (p, p.rows(1, 4).cols(0, 9), replace(p, k=64), replace(p, d=50, seed=1), replace(p, kind="gaussian")):
        assert eval(repr(a)) == a and hash(eval(repr(a))) == hash(a) and pickle.loads(pickle.dumps(a)) == a
        assert len(pickle.dumps(a)) < 1000
    x = numbers(3, 100, dtype=np.float32)
    own = {name: getattr(p, name) for name in ("c", "blocks", "g") if getattr(p, name) is not None}
    assert project(x, 40, p.kind, seed=2**63, stream=3, **own).tobytes() == p(x).tobytes()
    assert replace(replace(p, kind="rademacher"), kind=p.kind) == Projection(100, 40, p.kind, seed=2**63, stream=3)
    assert set(KINDS) - set(TRANSFORMS) == {"gaussian", "rademacher", "sparse", "countsketch", "osnap"}


# --- range ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("d", "k"), [(5, 3), (100, 90), (100, 1000), (1000, 300), (20_000, 300), (9, 40_000)])
@pytest.mark.parametrize("adjoint", [False, True])
def test_projections_overflow_only_where_the_result_does(dtype, d, k, adjoint):
    """Sums on the way are larger than what comes of them, by up to N: a row of large numbers is scaled, and no other row."""
    most = float(np.finfo(dtype).max)
    for kind, own in [*MAKES, ("gaussian", {}), ("rademacher", {}), ("sparse", {"s": 2})]:
        if (kind == "srht" and k > d) or (kind == "osnap" and k % own.get("c", 4)):
            continue
        p = Projection(d, k, kind, seed=4, **own)
        apply = p.adjoint if adjoint else p
        x = np.random.default_rng(1).uniform(-1, 1, (4, k if adjoint else d)).astype(dtype)
        want = apply(x)
        # rows of which no result overflows, of ordinary numbers, of which some do, and of which none is there
        size = np.array([0.99 * most / max(1, np.abs(want[0]).max()), 1, most, 1], dtype)[:, None]
        large = x * size
        large[3, 0] = np.nan
        y = apply(large)
        np.testing.assert_allclose(y[0] / size[0], want[0], rtol=0, atol=2e-5 * np.abs(want).max(), err_msg=kind)
        assert y[1].tobytes() == want[1].tobytes(), kind
        assert not np.isnan(y[2]).any(), kind
        sure = np.abs(np.abs(want[2].astype(np.float64)) - 1) > 1e-4
        assert np.array_equal(np.isinf(y[2])[sure], (np.abs(want[2]) > 1)[sure]), kind
        assert np.isnan(y[3]).all() or kind != "srht", kind


@pytest.mark.parametrize(("kind", "own"), [m for m in MAKES if m[0] in TRANSFORMS])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transforms_of_the_least_numbers(kind, own, dtype):
    p = Projection(64, 64, kind, seed=2, **own)
    x = np.random.default_rng(1).integers(-50, 50, (3, 64)).astype(dtype)
    tiny = dtype(np.finfo(dtype).tiny)
    np.testing.assert_allclose(p(x * tiny) / tiny, p(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(p.adjoint(x * tiny) / tiny, p.adjoint(x), rtol=1e-5, atol=1e-5)


# --- other arrays ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_rows(make, dtype):
    x = scipy.sparse.random_array((60, 300), density=0.1, rng=np.random.default_rng(0), dtype=dtype)
    p = make(300, 72, seed=3)
    for form in ("csr_array", "csc_array", "coo_array", "csr_matrix"):
        got = p(getattr(scipy.sparse, form)(x))
        assert type(got) is np.ndarray and got.dtype == dtype
        np.testing.assert_allclose(got, p(x.toarray()), rtol=0, atol=60 * np.finfo(dtype).eps)
    y = scipy.sparse.csr_array(
        scipy.sparse.random_array((5, 72), density=0.2, rng=np.random.default_rng(1), dtype=dtype)
    )
    np.testing.assert_allclose(p.adjoint(y), p.adjoint(y.toarray()), rtol=0, atol=60 * np.finfo(dtype).eps)


def test_tensors(make):
    p = make(30, 12, seed=1)
    x = torch.from_numpy(numbers(4, 5, 30)).requires_grad_()
    y = p(x)
    assert isinstance(y, torch.Tensor) and y.detach().numpy().tobytes() == p(x.detach().numpy()).tobytes()
    g = torch.from_numpy(numbers(4, 5, 12, seed=2))
    y.backward(g)
    assert torch.equal(x.grad, p.adjoint(g))
    assert torch.autograd.gradcheck(p, [x[0]]) and torch.autograd.gradgradcheck(p.adjoint, [g[0].requires_grad_()])
    compiled = torch.compile(lambda v: p(v) * 2, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x.detach()), p(x.detach()) * 2)
    assert p.materialise(torch.float32).numpy().tobytes() == p.materialise(np.float32).tobytes()
