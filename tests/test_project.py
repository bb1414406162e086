"""Projections and the Walsh-Hadamard transform: what the mathematics promises, and bits that must never change."""

import hashlib
import math
import pickle
from dataclasses import asdict, replace

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.stats
import tersor
from hypothesis import given
from hypothesis import strategies as st
from tersor import sparse
from tersor.project import Projection, fwht, jl_dim, project
from tersor.project._entries import KINDS
from tersor.project._operators import _materialise

torch = pytest.importorskip("torch")

MAKES = [("gaussian", None), ("rademacher", None), ("sparse", 1.0), ("sparse", 3.0), ("sparse", None)]


@pytest.fixture(params=MAKES, ids=str)
def make(request):
    kind, s = request.param
    return lambda d, k, **more: Projection(d, k, kind, s=s, **more)


def numbers(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# --- moments ---


def test_moments(make):
    """E|Px|² = |x|² and E<Px,Py> = <x,y>, within five standard errors by the exact variances."""
    d, k, draws = 64, 16, 3000
    x, y = numbers(2, d, seed=1)
    both = np.stack([make(d, k, seed=seed)(np.stack([x, y])) for seed in range(draws)])
    p = make(d, k)
    excess = {"gaussian": 0.0, "rademacher": -2.0}.get(p.kind, (p.s or 0) - 3)
    xx, yy, xy = x @ x, y @ y, x @ y
    inner = np.einsum("sk,sk->s", both[:, 0], both[:, 1])
    norm = np.einsum("sk,sk->s", both[:, 0], both[:, 0])
    for got, want, variance in (
        (norm, xx, 2 * xx**2 + excess * np.sum(x**4)),
        (inner, xy, xx * yy + xy**2 + excess * np.sum(x**2 * y**2)),
    ):
        z = (got.mean() - want) / math.sqrt(variance / k / draws)
        assert abs(z) < 5, z
        # the variance itself, roughly
        assert 0.8 < got.var() / (variance / k) < 1.25


def test_gaussian_norms_are_chi_square():
    d, k = 40, 8
    x = numbers(d, seed=2)
    norms = [np.sum(Projection(d, k, seed=seed)(x) ** 2) * k / (x @ x) for seed in range(4000)]
    assert scipy.stats.kstest(norms, scipy.stats.chi2(k).cdf).pvalue > 1e-6
    entries = Projection(3000, 100).materialise().ravel() * 10
    assert scipy.stats.kstest(entries, "norm").pvalue > 1e-6


def test_sparse_entries():
    for s in (1.0, 3.0, 10.0, 100.0):
        p = Projection(10_000, 64, "sparse", s=s, seed=5)
        m = p.materialise()
        kept = m[m != 0]
        n, threshold = m.size, int(2**31 / s + 0.5)
        share = threshold / 2**31
        z = (len(kept) - n * share) / math.sqrt(max(n * share * (1 - share), 1e-9))
        assert abs(z) < 5 if s > 1 else len(kept) == n
        assert set(np.abs(kept)) == {math.sqrt(2**31 / threshold / 64)}
        z = np.sum(np.sign(kept)) / math.sqrt(len(kept))
        assert abs(z) < 5


# --- one matrix, seen from every side ---


@given(d=st.integers(1, 90), k=st.integers(1, 70), n=st.integers(0, 20), seed=st.integers(0, 2**64 - 1))
def test_linear_adjoint_and_written_out(d, k, n, seed):
    for kind in KINDS:
        p = Projection(d, k, kind, seed=seed, stream=3)
        m = p.materialise()
        assert m.shape == p.shape == (k, d) and m.dtype == np.float64
        x, y, w = numbers(n, d, seed=1), numbers(n, d, seed=2), numbers(n, k, seed=3)
        size = np.abs(x) @ np.abs(m).T + 1e-300
        np.testing.assert_array_less(np.abs(p(x) - x @ m.T), 1e-15 * (size + np.abs(p(x))) + 1e-300)
        np.testing.assert_allclose(p.adjoint(w), w @ m, rtol=0, atol=1e-13 * np.max(np.abs(w), initial=1))
        np.testing.assert_allclose(p(2 * x - 3 * y), 2 * p(x) - 3 * p(y), rtol=0, atol=1e-11)
        left, right = np.sum(p(x) * w), np.sum(x * p.adjoint(w))
        bound = np.linalg.norm(p(x)) * np.linalg.norm(w) + np.linalg.norm(x) * np.linalg.norm(p.adjoint(w))
        assert abs(left - right) <= 1e-13 * bound + 1e-300


@pytest.mark.parametrize(("d", "k"), [(100, 256), (1000, 64), (10_000, 256), (257, 4000)])
def test_adjoint_identity_in_float32(make, d, k):
    p = make(d, k, seed=4)
    x, w = numbers(d, dtype=np.float32), numbers(k, seed=1, dtype=np.float32)
    px, pw = p(x).astype(np.float64), p.adjoint(w).astype(np.float64)
    error = abs(px @ w - x @ pw)
    scale = max(np.linalg.norm(px) * np.linalg.norm(w), np.linalg.norm(x) * np.linalg.norm(pw))
    assert error <= 4 * 2**-23 * math.sqrt(max(d, k)) * scale


@given(data=st.data())
def test_slices_are_the_same_bits(data):
    d, k = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 150))
    kind = data.draw(st.sampled_from(KINDS))
    p = Projection(d, k, kind, seed=data.draw(st.integers(0, 99)))
    a = data.draw(st.integers(0, k))
    b = data.draw(st.integers(a, k))
    c = data.draw(st.integers(0, d))
    e = data.draw(st.integers(c, d))
    x = numbers(7, d, dtype=np.float32)
    m = p.materialise(np.float32)
    assert p.rows(a, b).shape == (b - a, d)
    assert p.rows(a, b)(x).tobytes() == np.ascontiguousarray(p(x)[:, a:b]).tobytes()
    assert p.rows(a, b).materialise(np.float32).tobytes() == m[a:b].tobytes()
    assert p.cols(c, e).materialise(np.float32).tobytes() == np.ascontiguousarray(m[:, c:e]).tobytes()
    assert p.rows(a, b).cols(c, e) == p.cols(c, e).rows(a, b)
    if e > c and b > a:
        inner = p.rows(a, b).rows(0, b - a).cols(c, e)
        np.testing.assert_allclose(inner(x[:, c:e]), x[:, c:e] @ m[a:b, c:e].T, rtol=1e-4, atol=1e-4)


def test_appending_columns(make):
    p = make(1000, 40, seed=9)
    x = numbers(6, 1000)
    y = sum(p.cols(a, min(a + 130, 1000))(x[:, a : a + 130]) for a in range(0, 1000, 130))
    np.testing.assert_allclose(y, p(x), rtol=0, atol=1e-13 * np.abs(x).sum())
    # nothing depends on how far the matrix goes
    wide = make(5000, 40, seed=9) if p.kind != "sparse" else Projection(5000, 40, "sparse", s=p.s, seed=9)
    assert wide.cols(0, 1000)(x).tobytes() == p(x).tobytes()


def test_rows_do_not_see_each_other(make):
    p = make(300, 50)
    x = numbers(2500, 300, dtype=np.float32)
    whole = p(x)
    for a, b in ((0, 1), (3, 20), (1023, 1026), (2400, 2500)):
        assert p(x[a:b]).tobytes() == whole[a:b].tobytes()
    before = tersor.get_num_threads()
    try:
        seen = set()
        for threads in (1, 2, 5, 16):
            tersor.set_num_threads(threads)
            seen.add(hashlib.sha256(p(x).tobytes() + p.adjoint(whole).tobytes()).hexdigest())
    finally:
        tersor.set_num_threads(before)
    assert len(seen) == 1


# --- bits that must never change ---

# of kernel and reference both, which share no code
GOLDEN = {"gaussian": "28ed0891cf26dd45", "rademacher": "37c4ec32d36e121b", "sparse": "b780c71e0b3f0509"}


@pytest.mark.parametrize("kind", KINDS)
def test_golden_entries(kind):
    p = Projection(300, 200, kind, seed=0x0123456789ABCDEF, stream=5, s=3 if kind == "sparse" else None)
    scalars = p._scalars()
    for m in (p.materialise(), _materialise.op.reference(None, *scalars)):
        entries = (m / m.max()).astype(np.float32)
        assert hashlib.sha256(entries.tobytes()).hexdigest()[:16] == GOLDEN[kind]


def test_seeds_streams_and_kinds_are_independent():
    d, k = 500, 200

    def of(kind="rademacher", **more):
        m = Projection(d, k, kind, **more).materialise()
        return m / m.std()

    base = of(seed=7)
    others = [of(seed=8), of(seed=7, stream=1), of(seed=7 + 2**32), of("gaussian", seed=7), of("sparse", seed=7, s=3)]
    for other in others:
        # as they lie, and shifted by a row or a column
        for a, b in ((base, other), (base[1:], other[:-1]), (base[:, 1:], other[:, :-1]), (base[:-1], other[1:])):
            z = np.sum(a * b) / math.sqrt(a.size)
            assert abs(z) < 5, z


# --- the object ---


def test_small_frozen_and_picklable(make):
    p = make(10**9, 1000, seed=2**64 - 1, stream=2**24 - 1).rows(10, 900)
    dumped = pickle.dumps(p)
    assert len(dumped) < 1000 and pickle.loads(dumped) == p and hash(pickle.loads(dumped)) == hash(p)
    with pytest.raises(AttributeError):
        p.seed = 1
    assert p.shape == (890, 10**9)
    small = make(20, 5, seed=2**64 - 1)
    assert small(np.ones(20)).tobytes() == pickle.loads(pickle.dumps(small))(np.ones(20)).tobytes()


def test_what_is_refused():
    for wrong in (
        {"d": 0}, {"k": 0}, {"d": -3}, {"k": 2**34 + 1}, {"seed": -1}, {"seed": 2**64}, {"stream": 2**24},
        {"kind": "cauchy"}, {"kind": "sparse", "s": 0.5}, {"kind": "sparse", "s": 2.0**32}, {"kind": "gaussian", "s": 3},
        {"kind": "sparse", "s": math.nan},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="project"):
            Projection(**({"d": 10, "k": 4} | wrong))
    with pytest.raises(ValueError, match="gaussian, rademacher, sparse"):
        Projection(10, 4, "hadamard")
    for wrong in ({"d": 1.5}, {"k": "4"}, {"seed": None}, {"kind": "sparse", "s": "3"}):
        with pytest.raises(TypeError, match="project"):
            Projection(**({"d": 10, "k": 4} | wrong))
    p = Projection(10, 4)
    for x in (np.zeros(9), np.zeros((10, 3)), np.zeros(()), torch.zeros(9), scipy.sparse.csr_array(np.zeros((2, 9)))):
        with pytest.raises(ValueError, match="project"):
            p(x)
    with pytest.raises(ValueError, match="0-d"):
        project(np.zeros(()), 3)
    for x in (np.zeros(10, np.int64), [0.0] * 10, scipy.sparse.csr_array(np.zeros((2, 10), np.int64))):
        with pytest.raises(TypeError, match="project"):
            p(x)
    for bounds in ((3, 2), (-1, 2), (0, 5)):
        with pytest.raises(ValueError, match="rows"):
            p.rows(*bounds)


def test_replacing_makes_anew_what_follows():
    p, thin = Projection(100, 4, "rademacher"), Projection(100, 4, "sparse")
    for got, want in (
        (replace(p, k=16), Projection(100, 16, "rademacher")),
        (replace(p, d=50), Projection(50, 4, "rademacher")),
        (replace(p, kind="sparse"), thin),
        (replace(thin, kind="gaussian"), Projection(100, 4)),
        (replace(thin, d=50), Projection(50, 4, "sparse")),
        (replace(thin, d=50, s=thin.s), Projection(50, 4, "sparse", s=10)),
        (replace(Projection(100, 4, "sparse", s=3), d=50), Projection(50, 4, "sparse", s=3)),
        (replace(Projection(100, 4, "sparse", s=3), kind="gaussian"), Projection(100, 4)),
        (replace(p.rows(0, 2), d=50, seed=7), Projection(50, 4, "rademacher", seed=7).rows(0, 2)),
        (replace(p.cols(3, 9), k=16), Projection(100, 16, "rademacher").cols(3, 9)),
        (Projection(**asdict(thin.rows(1, 3))), thin.rows(1, 3)),
    ):
        assert got == want and hash(got) == hash(want) and got.shape == want.shape and got.s == want.s
        assert got.materialise().tobytes() == want.materialise().tobytes()
    assert replace(p, k=16)(np.ones((1, 100))).shape == (1, 16)
    norms = [np.sum(replace(p, k=16, seed=seed)(np.ones(100)) ** 2) / 100 for seed in range(500)]
    assert abs(np.mean(norms) - 1) < 5 * math.sqrt(2 / 16 / 500)
    with pytest.raises(ValueError, match=r"project: the slice has rows 2\.\.4, the matrix 3"):
        replace(p.rows(2, 4), k=3)
    with pytest.raises(ValueError, match="'sparse', not of 'gaussian'"):
        replace(thin, kind="gaussian", s=3)


def test_the_repr_is_the_object(make):
    p = make(100, 4, seed=2**63, stream=3)
    several = [
        p,
        p.rows(0, 2),
        p.cols(3, 9),
        p.rows(1, 4).cols(0, 1),
        p.rows(2, 2),
        p.rows(0, 4),
        make(7, 4),
        make(100, 4),
    ]
    for a in several:
        assert eval(repr(a)) == a and hash(eval(repr(a))) == hash(a)
        for b in several:
            assert (repr(a) == repr(b)) == (a == b)
    assert p.rows(0, 4) == p == p.cols(0, 100) and p != p.rows(0, 2) and p != 3
    # as it was pickled with all of its fields filled in
    old = Projection.__new__(Projection)
    old.__setstate__({"d": 100, "k": 4, "kind": "sparse", "seed": 0, "stream": 0, "s": 10.0, "window": (0, 4, 0, 100)})
    assert old == Projection(100, 4, "sparse")


def test_numbers_of_numpy():
    p = Projection(np.int64(10), np.uint8(3), "sparse", seed=np.uint64(2**64 - 1), stream=np.int16(1), s=np.float32(2))
    assert p == Projection(10, 3, "sparse", seed=2**64 - 1, stream=1, s=2.0) and eval(repr(p)) == p
    assert p.rows(np.int64(0), np.int32(1)) == p.rows(0, 1)


def test_as_a_matrix(make):
    p = make(30, 5, seed=2)
    m = p.materialise()
    for x in (numbers(30), numbers(30, 4), numbers(2, 30, 4)):
        np.testing.assert_allclose(p @ x, m @ x, rtol=0, atol=1e-12)
        assert torch.equal(p @ torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(p @ x)))
    for x in (numbers(5), numbers(4, 5), numbers(2, 4, 5)):
        np.testing.assert_allclose(x @ p, x @ m, rtol=0, atol=1e-12)
        assert torch.equal(torch.from_numpy(x) @ p, torch.from_numpy(x @ p))
    a = sparse.from_dense(np.where(numbers(30, 6) > 1, 1.0, 0))
    np.testing.assert_allclose(p @ a, m @ a.to_dense(), rtol=0, atol=1e-12)
    x = torch.from_numpy(numbers(30, 30))
    traced = torch.compile(lambda x: (p @ x, x[:5].T @ p), fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(traced[0], p @ x) and torch.equal(traced[1], x[:5].T @ p)
    for f in (lambda: p @ numbers(5), lambda: numbers(4, 30) @ p, lambda: p @ np.ones(()), lambda: p @ x[:7]):
        with pytest.raises(ValueError, match=r"Projection.*: x has shape .*, the matrix 5 rows and 30 columns"):
            f()
    for f in (
        lambda: p @ [1.0], lambda: [1.0] @ p, lambda: p @ p, lambda: p * 2, lambda: np.ones(5) * p, lambda: torch.ones(5) * p,
        lambda: np.asarray(p), lambda: scipy.sparse.csr_array(np.eye(5)) @ p, lambda: torch.ones(5).double().to_sparse() @ p,
    ):  # fmt: skip
        with pytest.raises(TypeError, match="Projection"):
            f()


def test_rows_of_a_csr(make):
    p = make(300, 70, seed=3)
    x = scipy.sparse.random_array((60, 300), density=0.1, rng=np.random.default_rng(0), dtype=np.float64)
    a = sparse.from_scipy(x)
    assert p(a).tobytes() == p(x.tocsr()).tobytes()
    values = torch.from_numpy(a.data.copy())
    got = p(a.with_data(values))
    assert isinstance(got, torch.Tensor) and got.numpy().tobytes() == p(a).tobytes()
    assert p.adjoint(sparse.from_dense(np.eye(70))).shape == (70, 300)
    assert project(a, 7).tobytes() == project(x, 7).tobytes()
    with pytest.raises(NotImplementedError, match=r"project: the values of a CSR get no gradient; detach\(\)"):
        p(a.with_data(values.requires_grad_()))
    with pytest.raises(ValueError, match="the last axis of x must be 300"):
        p(sparse.from_dense(np.eye(3)))


STRANGE = {
    "sparse_coo": lambda: torch.eye(3).to_sparse(),
    "sparse_csr": lambda: torch.eye(3).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(3)]),
    "a nested one": lambda: torch.nested.nested_tensor([torch.ones(3)], layout=torch.jagged),
    "complex64": lambda: torch.ones(3, dtype=torch.complex64).conj(),
    "complex128": lambda: np.ones(3, complex),
    "int64": lambda: np.ones(3, int),
    "bool": lambda: torch.ones(3, dtype=torch.bool),
    "masked": lambda: np.ma.masked_array(np.ones(3), mask=True),
    "byte order '>'": lambda: np.ones(3, ">f8"),
    "list": lambda: [1.0, 2.0, 3.0],
}


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:The PyTorch API of nested")
@pytest.mark.parametrize("word", STRANGE)
def test_what_x_was_is_said(word):
    x = STRANGE[word]()
    p = Projection(3, 2)
    for f in (p, p.adjoint, lambda x: project(x, 2)):
        with pytest.raises(TypeError, match=f"^project: x .*{word}"):
            f(x)
    with pytest.raises(TypeError, match=f"^Projection @ x: x .*{word}"):
        p @ x
    with pytest.raises(TypeError, match=r"^materialise: dtype must be .* got complex128"):
        p.materialise(complex)


# --- other arrays ---


@pytest.mark.parametrize("form", ["csr_array", "csc_array", "coo_array", "csr_matrix"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_rows(make, form, dtype):
    x = scipy.sparse.random_array((60, 300), density=0.1, rng=np.random.default_rng(0), dtype=dtype)
    p = make(300, 70, seed=3)
    got = p(getattr(scipy.sparse, form)(x))
    assert type(got) is np.ndarray and got.dtype == dtype
    np.testing.assert_allclose(got, p(x.toarray()), rtol=0, atol=30 * np.finfo(dtype).eps)
    back = p.adjoint(scipy.sparse.csr_array(scipy.sparse.random_array((5, 70), density=0.2, dtype=dtype)))
    assert back.shape == (5, 300)


def test_tensors(make):
    p = make(30, 12, seed=1)
    x = torch.from_numpy(numbers(4, 5, 30)).requires_grad_()
    y = p(x)
    assert isinstance(y, torch.Tensor) and y.detach().numpy().tobytes() == p(x.detach().numpy()).tobytes()
    g = torch.from_numpy(numbers(4, 5, 12, seed=2))
    y.backward(g)
    assert torch.equal(x.grad, p.adjoint(g))
    assert torch.autograd.gradcheck(p, [x[0]]) and torch.autograd.gradgradcheck(p.adjoint, [g[0].requires_grad_()])
    m = p.materialise(torch.float32)
    assert m.dtype == torch.float32 and m.numpy().tobytes() == p.materialise(np.float32).tobytes()
    compiled = torch.compile(lambda v: p(v) * 2, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x.detach()), p(x.detach()) * 2)


def test_project_is_the_projection():
    x = numbers(5, 400, dtype=np.float32)
    for kind in KINDS:
        assert project(x, 20, kind, seed=3).tobytes() == Projection(400, 20, kind, seed=3)(x).tobytes()
    assert project(x, 20).tobytes() == Projection(400, 20, "sparse", s=20)(x).tobytes()


def test_jl_dim():
    from sklearn.random_projection import johnson_lindenstrauss_min_dim

    assert jl_dim(10**6, 0.1) == 11842 and jl_dim(10**6, 0.1, compat="sklearn") == 11841
    for n in (1, 2, 50, 10**9):
        for eps in (0.01, 0.3, 0.99):
            assert jl_dim(n, eps, compat="sklearn") == johnson_lindenstrauss_min_dim(n, eps=eps)
    for n, eps in ((0, 0.1), (5, 0.0), (5, 1.0), (5, math.nan), (5, 1e-200), (1, 1e-200)):
        with pytest.raises(ValueError, match="jl_dim"):
            jl_dim(n, eps)
    assert jl_dim(np.int64(10**6), np.float64(0.1)) == 11842
    for n in (math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match="jl_dim: n must be at least 1 and finite, got"):
            jl_dim(n)
    for n, eps, name in (
        (np.array([10, 20]), 0.1, "n"),
        ("10", 0.1, "n"),
        (True, 0.1, "n"),
        (10, [0.1], "eps"),
        (10, None, "eps"),
    ):
        with pytest.raises(TypeError, match=f"jl_dim: {name} must be a number, got"):
            jl_dim(n, eps)


# --- the transform ---

SIZES = [k << m for k in (1, 12, 20, 28) for m in range(9)] + [4096, 1 << 14, 12 << 12]


@pytest.mark.parametrize("n", SIZES)
def test_fwht(n):
    rng = np.random.default_rng(n)
    x = rng.integers(-8, 9, (3, n)).astype(np.float32)
    y = fwht(x)
    assert y.dtype == np.float32
    # an involution up to n, exactly on small integers
    np.testing.assert_array_equal(fwht(y), n * x)
    np.testing.assert_array_equal((y.astype(np.float64) ** 2).sum(-1), n * (x.astype(np.float64) ** 2).sum(-1))
    if n & n - 1 == 0 and n <= 4096:
        np.testing.assert_array_equal(y, x @ scipy.linalg.hadamard(n))
    if n <= 512:
        h = fwht(np.eye(n))
        np.testing.assert_array_equal(h, h.T)
        np.testing.assert_array_equal(h @ h.T, n * np.eye(n))
        assert set(np.unique(h)) <= {-1.0, 1.0}
    np.testing.assert_allclose(fwht(fwht(x, norm="ortho"), norm="ortho"), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("n", [2, 12, 16, 1024, 1 << 13, 1 << 17, 12 << 13])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fwht_ortho_overflows_only_where_the_result_does(n, dtype):
    most = float(np.finfo(dtype).max)
    x = np.random.default_rng(n).choice([-1.0, 1.0], (3, n)).astype(dtype)
    x[0] = 1
    want = fwht(x, norm="ortho")
    scale = np.array([0.9 * most / math.sqrt(n), 1, min(0.9 * most / np.abs(want[2]).max(), most)], dtype)[:, None]
    large = x * scale
    y = fwht(large, norm="ortho")
    np.testing.assert_allclose(y / scale, want, rtol=0, atol=1e-5 * math.sqrt(n))
    # a row does not see the others
    np.testing.assert_array_equal(y[1], want[1])
    assert fwht(large, norm="ortho", out=large) is large and np.array_equal(large, y)


@pytest.mark.parametrize("n", [4, 12, 16, 1024, 1 << 13, 1 << 15, 1 << 17, 12 << 13])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fwht_is_infinite_where_it_overflows_and_a_number_elsewhere(n, dtype):
    most = float(np.finfo(dtype).max)
    x = np.zeros((3, n), dtype)
    # sums on the way that cancel: of the halves n/2 terms, which are too large, and of both nothing
    x[0] = most / 4 * np.where(np.arange(n) < n // 2, 1, -1)
    x[1] = np.random.default_rng(n).standard_normal(n)
    x[2] = most
    want = fwht(x / n)
    y = fwht(x)
    assert not np.isnan(y).any() and np.array_equal(y[1], fwht(x[1]))
    over = np.abs(want.astype(np.float64)) > most / n * (1 + 1e-5)
    assert np.array_equal(np.isinf(y)[[0, 2]], over[[0, 2]]) and over[[0, 2]].any()
    np.testing.assert_allclose((y / n)[~over], want[~over], rtol=1e-5, atol=most / n * 1e-5)
    assert fwht(x, out=x) is x and np.array_equal(x, y)


def test_fwht_axes_and_out():
    x = numbers(6, 16, 12)
    for axis in (1, -2):
        np.testing.assert_array_equal(fwht(x, axis), np.moveaxis(fwht(np.moveaxis(x, 1, -1)), -1, 1))
        out = np.empty_like(x)
        assert fwht(x, axis, "ortho", out) is out
        np.testing.assert_array_equal(out, fwht(x, axis, "ortho"))
        t = torch.empty(x.shape, dtype=torch.float64)
        assert fwht(torch.from_numpy(x), axis, out=t) is t and np.array_equal(t.numpy(), fwht(x, axis))
    y = x.copy()
    assert fwht(y, out=y) is y and np.array_equal(y, fwht(x))
    with pytest.raises(np.exceptions.AxisError):
        fwht(x, 3)
    for wrong in ({"norm": "backward"}, {"axis": 0}, {"axis": 1, "out": np.empty((6, 16))}):
        with pytest.raises(ValueError, match="fwht"):
            fwht(x, **wrong)
    with pytest.raises(ValueError, match="0-d"):
        fwht(np.zeros(()))
    with pytest.raises(TypeError, match="fwht"):
        fwht(np.zeros(4, np.int64))
    with pytest.raises(TypeError, match="fwht"):
        fwht([1.0, 2.0])
    leaf = torch.zeros(3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: fwht(v, 0 if v.shape[0] == 8 else -1), [leaf])
    assert torch.autograd.gradcheck(lambda v: fwht(v, 1, "ortho"), [leaf])
