"""The estimators of scikit-learn: what its users do with them, and its own checks."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import DataDimensionalityWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from tersor.project import GaussianRandomProjection, Projection, SparseRandomProjection, jl_dim

BOTH = pytest.mark.parametrize("kind", [GaussianRandomProjection, SparseRandomProjection])


def numbers(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@BOTH
@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn(kind):
    # pairs of estimators cannot be fitted to fewer rows: 2 components as scikit-learn's own are checked with
    check_estimator(kind(n_components=2, random_state=0))


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_the_projection(kind, dtype):
    x = numbers(40, 300, dtype=dtype)
    fitted = kind(20, random_state=7).fit(x)
    p = fitted.projection_
    assert p == Projection(300, 20, p.kind, seed=7) and fitted.n_components_ == 20
    y = fitted.transform(x)
    assert y.dtype == dtype and y.tobytes() == p(x).tobytes() == kind(20, random_state=7).fit_transform(x).tobytes()
    m = np.asarray(fitted.components_.toarray() if scipy.sparse.issparse(fitted.components_) else fitted.components_)
    assert m.tobytes() == p.materialise(dtype).tobytes()
    # of what was given back, the projection is what was given
    for inverse in (fitted, kind(20, random_state=7, compute_inverse_components=True).fit(x)):
        back = inverse.inverse_transform(y)
        np.testing.assert_allclose(back, y @ np.linalg.pinv(m).T, rtol=0, atol=2e-4 if dtype == np.float32 else 1e-12)
        np.testing.assert_allclose(p(back), y, rtol=0, atol=2e-4 if dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(inverse.inverse_components_, np.linalg.pinv(m), rtol=0, atol=1e-5)
    assert not hasattr(fitted, "inverse_components_")
    assert list(fitted.get_feature_names_out()) == [f"{kind.__name__.lower()}{i}" for i in range(20)]


@BOTH
def test_small_and_the_same_after_a_pickle_and_a_clone(kind):
    x = numbers(3, 100_000, dtype=np.float32)
    fitted = kind(256).fit(x)
    dumped = pickle.dumps(fitted)
    assert len(dumped) < 1500
    assert pickle.loads(dumped).transform(x).tobytes() == fitted.transform(x).tobytes()
    other = clone(fitted).set_params(random_state=1)
    assert not hasattr(other, "projection_") and other.n_components == 256
    # no seed is a fresh one
    assert clone(fitted).fit(x).projection_.seed != fitted.projection_.seed
    state = np.random.RandomState(3)
    assert kind(4, random_state=state).fit(x).projection_.seed != kind(4, random_state=state).fit(x).projection_.seed


@BOTH
def test_auto(kind):
    x = np.zeros((50, 10_000), np.float32)
    fitted = kind(eps=0.3).fit(x)
    assert fitted.n_components_ == jl_dim(50, 0.3)
    with pytest.raises(
        ValueError, match=r"eps=0\.3 and n_samples=50 lead to a target dimension of 435.*n_features=300"
    ):
        kind(eps=0.3).fit(x[:, :300])
    with pytest.warns(DataDimensionalityWarning, match="n_components=8 is larger than n_features=4"):
        kind(8).fit(x[:, :4])
    if kind is SparseRandomProjection:
        assert fitted.density_ == 0.01 and kind(4, density=1 / 3).fit(x).density_ == 1 / 3
        assert fitted.projection_.s == 100


@BOTH
def test_what_is_refused(kind):
    x = numbers(5, 20)
    for error, wrong in (
        (TypeError, {"n_components": 2.0}),
        (TypeError, {"n_components": None}),
        (ValueError, {"n_components": 0}),
        (ValueError, {"n_components": "all"}),
        (ValueError, {"n_components": "auto", "eps": 1.5}),
    ):
        with pytest.raises(error):
            kind(**wrong).fit(x)
    if kind is SparseRandomProjection:
        for error, density in ((ValueError, 0.0), (ValueError, 1.5), (ValueError, "few"), (TypeError, None)):
            with pytest.raises(error, match="density must be"):
                kind(3, density=density).fit(x)
    with pytest.raises(ValueError, match="X has 3 columns, the projection 4 components"):
        kind(4).fit(x).inverse_transform(np.zeros((2, 3)))


def test_sparse_rows():
    x = scipy.sparse.random_array((30, 400), density=0.1, rng=np.random.default_rng(0), format="csr")
    for kind in (GaussianRandomProjection, SparseRandomProjection):
        fitted = kind(10, random_state=0).fit(x)
        y = fitted.transform(x)
        assert scipy.sparse.issparse(y) == (kind is SparseRandomProjection)
        y = y.toarray() if scipy.sparse.issparse(y) else y
        np.testing.assert_allclose(y, fitted.transform(x.toarray()), rtol=0, atol=1e-12)
    assert type(SparseRandomProjection(10, dense_output=True).fit_transform(x)) is np.ndarray


def test_in_a_pipeline_and_a_search():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    model = make_pipeline(SparseRandomProjection(random_state=0), LogisticRegression(max_iter=300))
    search = GridSearchCV(model, {"sparserandomprojection__n_components": [4, 32]}, cv=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(x[:500] / 16, y[:500])
    assert search.best_params_ == {"sparserandomprojection__n_components": 32} and search.best_score_ > 0.75


def test_scikit_learn_comes_when_it_is_asked_for():
    code = """if True:
        import sys, tersor
        assert "sklearn" not in sys.modules and "GaussianRandomProjection" in dir(tersor.project)
        sys.modules["sklearn"] = None
        try:
            tersor.project.GaussianRandomProjection
        except ImportError as e:
            assert "scikit-learn" in str(e) and "tersor[sklearn]" in str(e), e
        else:
            raise SystemExit("imported")
        try:
            tersor.project.Nothing
        except AttributeError:
            pass
        else:
            raise SystemExit("found")
    """
    subprocess.run([sys.executable, "-c", code], check=True)
