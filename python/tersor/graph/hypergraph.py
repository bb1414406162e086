"""Features carried along hyperedges, and along paths of several relations. The one rule: products are taken from the right, so
that no matrix of nodes by nodes is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tersor._arrays import Array, as_type, dtype_name, is_tensor
from tersor._lists import listed
from tersor._matrix import SparseMatrix, matrix_of
from tersor._values import check_values, tensor_of
from tersor.graph._places import real
from tersor.graph.adjacency import Norm, columns_of, ones, power, scaled


def hypergraph_propagate(H: Any, X: Array, edge_weights: Array = None) -> Array:
    r"""One hop over a hypergraph, :math:`D_v^{-1/2} H W D_e^{-1} H^\top D_v^{-1/2} X`, in two products.

    Parameters
    ----------
    H : CSR, SciPy sparse matrix or sparse tensor [n, e]
        Which nodes each hyperedge holds.
    X : array or tensor [n], [n, d] or [b, n, d], float64, float32, float16 or bfloat16
    edge_weights : array or tensor [e], of the type of X
        :math:`W`; 1 if absent.

    Returns
    -------
    array or tensor, of the shape of X
        Differentiable with respect to X, edge_weights and the values of H.

    Raises
    ------
    TypeError
        If X is not of a float type, or H is no matrix.
    ValueError
        If shapes do not go together, or a weighted degree is negative.

    Notes
    -----
    4·nnz·d operations, and no matrix of n·n. :math:`D_e` are the sums of the columns of H, :math:`D_v` those of its rows,
    weighted by W; a node or an edge of sum 0 takes no part. Feng et al., "Hypergraph neural networks" (2019).
    """
    check_values("hypergraph_propagate", "X", X)
    h = incidence("hypergraph_propagate", "H", H, X)
    n, e = h.shape
    rows = X.shape[-2 if X.ndim > 1 else 0] if X.ndim else 0
    if not 1 <= X.ndim <= 3 or rows != n:
        raise ValueError(f"hypergraph_propagate: X has shape {tuple(X.shape)}, H {n} rows")
    if edge_weights is not None and tuple(edge_weights.shape) != (e,):
        raise ValueError(f"hypergraph_propagate: edge_weights must have shape ({e},), got {tuple(edge_weights.shape)}")
    turned, w = h.T, ones(h, e) if edge_weights is None else edge_weights
    per_edge = w * power("hypergraph_propagate", turned @ ones(h, n), -1.0, "hyperedge")
    per_node = power("hypergraph_propagate", h @ w, -0.5, "node")
    gathered = turned.with_data(turned._data * per_node[columns_of(turned)]) @ X
    y = h.with_data(h._data * per_edge[columns_of(h)]) @ gathered
    return y * (per_node if X.ndim == 1 else per_node[:, None])


def incidence(who: str, name: str, H: Any, X: Array) -> Any:
    """A matrix of any shape in the library, the type and the place of X."""
    kind = dtype_name(X.dtype)
    if isinstance(H, SparseMatrix):
        a: Any = H
        if dtype_name(a._data.dtype) != kind:
            raise TypeError(
                f"{who}: X is {kind}, {name} is {dtype_name(a._data.dtype)}; tersor does not convert silently"
            )
    else:
        a = _in_type(who, name, H, kind)
    if is_tensor(X) and not is_tensor(a._data):
        a = a.with_data(tensor_of(a._data))
    if is_tensor(a._data) and not is_tensor(X):
        raise TypeError(f"{who}: X is a NumPy array, {name} is made of tensors")
    return a.to(X.device) if is_tensor(X) and a._data.device != X.device else a


def _in_type(who: str, name: str, H: Any, kind: str) -> Any:
    """A matrix of SciPy or torch, of any numbers, in the type that is asked."""
    if hasattr(H, "tocsr"):
        real(who, name, H)
        H = H.astype(kind if kind in ("float64", "float32") else "float32")
    elif is_tensor(H) and str(H.layout) != "torch.strided":
        real(who, name, H)
        H = as_type(H, kind)
    a = matrix_of(who, name, H)
    if not isinstance(a, SparseMatrix):
        raise TypeError(f"{who}: {name} must be a CSR or a sparse matrix of SciPy or torch, got {type(H).__name__}")
    return a if dtype_name(a._data.dtype) == kind else a.astype(kind)  # type: ignore[attr-defined]


def metapath(mats: Sequence[Any], X: Array, norm: Norm = "none") -> Array:
    r"""Features over a path of relations, :math:`A_1 A_2 \cdots A_m X`, from right to left.

    Parameters
    ----------
    mats : sequence of CSRs, SciPy sparse matrices or sparse tensors
        Each with as many columns as the next has rows.
    X : array or tensor [k], [k, d] or [b, k, d], float64, float32, float16 or bfloat16
        Features of the columns of the last.
    norm : "none", "row", "col", "sym" or (a, b)
        Of each matrix, as of `normalized_adjacency`; "sym" of matrices that are square.

    Returns
    -------
    array or tensor, with the rows of the first matrix
        Differentiable with respect to X and the values of the matrices.

    Raises
    ------
    TypeError
        If X is not of a float type, or a matrix is none.
    ValueError
        If there are no matrices, or shapes do not go together.

    Notes
    -----
    2·d·(nnz of all) operations: the product of the matrices, which may be dense, is never formed.
    """
    check_values("metapath", "X", X)
    mats = listed("metapath: mats", mats, "matrices")
    if not mats:
        raise ValueError("metapath: mats must not be empty")
    path = [incidence("metapath", f"mats[{i}]", m, X) for i, m in enumerate(mats)]
    if not 1 <= X.ndim <= 3:
        raise ValueError(f"metapath: X must be [k], [k, d] or [b, k, d], got shape {tuple(X.shape)}")
    for i in reversed(range(len(path))):
        a, rows = path[i], X.shape[-2 if X.ndim > 1 else 0]
        if a.shape[1] != rows:
            what = f"mats[{i + 1}] {rows} rows" if i + 1 < len(path) else f"X shape {tuple(X.shape)}"
            raise ValueError(f"metapath: mats[{i}] has {a.shape[1]} columns, {what}")
        if norm == "sym" and a.shape[0] != a.shape[1]:
            raise ValueError(f"metapath: norm 'sym' is of square matrices, mats[{i}] has shape {a.shape}")
        X = scaled("metapath", a, norm, False) @ X
    return X
