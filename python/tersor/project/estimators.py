"""Random projections as estimators of scikit-learn. The one rule: what is fitted is a description; the matrix is never stored.

Importing this imports scikit-learn: `tersor.project` does it when one of the two classes is first asked for.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import DataDimensionalityWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from tersor.project.jl import jl_dim
from tersor.project.projection import Projection

Array = Any

_FLOATS = [np.float64, np.float32]
#: numbers of the matrix that are seen at a time where the pseudo-inverse is found
_SEEN = 1 << 24


class _RandomProjection(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What both have."""

    _kind: str
    n_components: Any
    eps: float
    compute_inverse_components: bool
    random_state: Any
    _inverse: np.ndarray

    def _more(self, d: int) -> dict[str, Any]:
        return {}

    def _components(self, n: int, d: int) -> int:
        """The number of components for n rows of d numbers."""
        who, k = type(self).__name__, self.n_components
        if isinstance(k, str):
            if k != "auto":
                raise ValueError(f"{who}: n_components must be an integer or 'auto', got {k!r}")
            k = jl_dim(n, self.eps)
            if k > d:
                raise ValueError(
                    f"{who}: eps={self.eps} and n_samples={n} lead to a target dimension of {k}, "
                    f"which is larger than the original space with n_features={d}"
                )
            return k
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
            raise TypeError(f"{who}: n_components must be an integer or 'auto', got {type(k).__name__}")
        if k < 1:
            raise ValueError(f"{who}: n_components must be at least 1, got {k}")
        if k > d:
            warnings.warn(
                f"{who}: n_components={k} is larger than n_features={d}: the dimensionality is not reduced",
                DataDimensionalityWarning,
                stacklevel=3,
            )
        return int(k)

    def _seed(self) -> int:
        seed = self.random_state
        if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and seed >= 0:
            return int(seed)
        return int(check_random_state(seed).randint(0, 2**63 - 1, dtype=np.int64))

    def fit(self, X: Array, y: Any = None) -> Any:
        """Draws a seed where none is given, and takes the shape of X; the numbers of X are only checked.

        Parameters
        ----------
        X : array or SciPy sparse matrix [n, d], float64 or float32 (others become float64)
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If X or a parameter is not what it must be, or "auto" asks for more components than there are features.
        """
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=_FLOATS)
        n, d = X.shape
        self.n_components_ = self._components(n, d)
        self.projection_ = Projection(d, self.n_components_, self._kind, seed=self._seed(), **self._more(d))
        self._type = np.dtype(X.dtype).name
        if hasattr(self, "_inverse"):
            del self._inverse
        if self.compute_inverse_components:
            self._inverse = self._gram_inverse()
        return self

    def transform(self, X: Array) -> Array:
        """The rows projected, in the type of X: [n, d] to [n, k]."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=_FLOATS, reset=False)
        return self.projection_(X)

    def inverse_transform(self, X: Array) -> Array:
        """The rows of least norm that project to the rows of X, :math:`P^T(PP^T)^+x`: [n, k] to [n, d]."""
        from sklearn.utils import check_array

        check_is_fitted(self)
        X = check_array(X, dtype=_FLOATS, accept_sparse=("csr", "csc"))
        if X.shape[1] != self.n_components_:
            raise ValueError(
                f"{type(self).__name__}: X has {X.shape[1]} columns, the projection {self.n_components_} components"
            )
        inverse = self._inverse if hasattr(self, "_inverse") else self._gram_inverse()
        return self.projection_.adjoint(np.ascontiguousarray(X @ inverse, dtype=X.dtype))

    def _gram_inverse(self) -> np.ndarray:
        """(P Pᵀ)⁺, with some columns of P at a time."""
        k, d = self.projection_.shape
        gram, step = np.zeros((k, k)), max(_SEEN // k, 1)
        for a in range(0, d, step):
            p = self.projection_.cols(a, min(a + step, d)).materialise()
            gram += p @ p.T
        return np.linalg.pinv(gram, hermitian=True)

    @property
    def components_(self) -> Array:
        """The matrix [k, d], made where it is looked at."""
        check_is_fitted(self, "projection_")
        return self.projection_.materialise(self._type)

    @property
    def inverse_components_(self) -> Array:
        """The pseudo-inverse [d, k], where it was asked for."""
        check_is_fitted(self, "_inverse")
        return (self._inverse @ self.projection_.materialise()).T.astype(self._type)

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.sparse = True
        return tags


class GaussianRandomProjection(_RandomProjection):
    r"""scikit-learn's estimator on `Projection` of kind "gaussian": nothing is stored, and it pickles in a few hundred bytes.

    Parameters
    ----------
    n_components : int or "auto"
        "auto" is `jl_dim` of the number of rows and eps.
    eps : float in (0, 1)
    compute_inverse_components : bool
        Keeps :math:`(PP^T)^+`, k × k, for `inverse_transform`, which makes it anew otherwise.
    random_state : int, numpy.random.RandomState or None
        An integer is the seed of the projection.

    Attributes
    ----------
    n_components_ : int
    projection_ : Projection
    components_ : array [k, d]
        Made where it is looked at.

    Raises
    ------
    TypeError, ValueError
        When fitted, if a parameter or X is not what it must be.

    Notes
    -----
    The cost is that of `Projection`. The matrix of a seed is not that of scikit-learn.
    """

    _kind = "gaussian"

    def __init__(
        self,
        n_components: Any = "auto",
        *,
        eps: float = 0.1,
        compute_inverse_components: bool = False,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.eps = eps
        self.compute_inverse_components = compute_inverse_components
        self.random_state = random_state


class SparseRandomProjection(_RandomProjection):
    r"""scikit-learn's estimator on `Projection` of kind "sparse": nothing is stored, and it pickles in a few hundred bytes.

    Parameters
    ----------
    n_components, eps, compute_inverse_components, random_state : see `GaussianRandomProjection`
    density : float in (0, 1] or "auto"
        The share of entries that are not zero; "auto" is :math:`1/\sqrt d`.
    dense_output : bool
        Whether sparse rows give a dense result too; otherwise it is in CSR form.

    Attributes
    ----------
    density_ : float
    n_components_, projection_ : see `GaussianRandomProjection`
    components_ : SciPy CSR array [k, d]
        Made where it is looked at.

    Raises
    ------
    TypeError, ValueError
        When fitted, if a parameter or X is not what it must be.
    """

    _kind = "sparse"

    def __init__(
        self,
        n_components: Any = "auto",
        *,
        density: Any = "auto",
        eps: float = 0.1,
        dense_output: bool = False,
        compute_inverse_components: bool = False,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.density = density
        self.eps = eps
        self.dense_output = dense_output
        self.compute_inverse_components = compute_inverse_components
        self.random_state = random_state

    def _more(self, d: int) -> dict[str, Any]:
        density = self.density
        if isinstance(density, str):
            if density != "auto":
                raise ValueError(f"SparseRandomProjection: density must be a number or 'auto', got {density!r}")
            density = d**-0.5
        elif isinstance(density, bool) or not isinstance(density, (int, float, np.integer, np.floating)):
            raise TypeError(f"SparseRandomProjection: density must be a number or 'auto', got {type(density).__name__}")
        if not 2**-31 <= density <= 1:
            raise ValueError(f"SparseRandomProjection: density must be in (0, 1], got {density}")
        self.density_ = float(density)
        return {"s": 1 / self.density_}

    def transform(self, X: Array) -> Array:
        """The rows projected, in the type of X: [n, d] to [n, k]; of sparse rows in CSR form unless `dense_output`."""
        from scipy.sparse import csr_array, issparse

        y = super().transform(X)
        return csr_array(y) if issparse(X) and not self.dense_output else y

    @property
    def components_(self) -> Array:
        """The matrix [k, d] in CSR form, made where it is looked at."""
        from scipy.sparse import csr_array

        return csr_array(super().components_)
