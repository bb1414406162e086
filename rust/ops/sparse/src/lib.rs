//! Sparse matrices by rows: their structure, their products, and what the products send back. The one rule: everything
//! is checked before an output is touched.
//!
//! A matrix is `data, indices, indptr` with ascending columns. Its transpose comes along as `perm, t_indices, t_indptr`
//! (what `csr_transpose` gives) where a gradient will want it; absent, it is made on the way.

mod codes;
mod linear;
mod matmul;
mod nm;
mod product;
mod structure;

use base::{Error, Op, Result, Tensor, ops};

use drivers::by_index;

/// The bits of `needs`: which gradients are wanted, in the order of the outputs.
const FIRST: i64 = 1;
const SECOND: i64 = 2;
const THIRD: i64 = 4;

/// The last two axes of a stack of matrices, and how many matrices there are.
fn stack(name: &str, t: &Tensor) -> Result<[usize; 3]> {
    match *t.shape() {
        [ref lead @ .., rows, cols] => Ok([lead.iter().product(), rows, cols]),
        _ => Err(Error::Value(format!("{name} must have two axes or more, got shape {:?}", t.shape()))),
    }
}

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    csr_sort(indices[e], indptr[m]; cols: int, wide: bool)
        -> (columns[e]: wide ? int64 : int32, offsets[m]: wide ? int64 : int32, perm[e]: wide ? int64 : int32)
        = structure::sort;
    csr_transpose(indices[e], indptr[m + 1]; cols: int)
        -> (rows[indices], offsets[cols + 1], perm[indices]) = structure::transpose;
    csr_count(w[m, n], mask[m, n]?; wide: bool) -> (indptr[m + 1]: wide ? int64 : int32) = structure::count;
    csr_fill(w[m, n], indptr[*], mask[m, n]?; entries: int)
        -> (data[entries], indices[entries]: indptr) = structure::fill;
    csr_dense(data[e], indices[e], indptr[m + 1]; cols: int) -> (w[m, cols]) = structure::dense;
    csr_dense_bwd(g[m, n], indices[e], indptr[*]) -> (ddata[e]) = structure::dense_bwd;
    spmm(data[e], indices[e], indptr[m + 1], x[l.., k, n], bias[m]?, perm[*]?, t_indices[*]?, t_indptr[*]?; lo, hi)
        -> (y[l.., m, n]) = product::spmm;
    spmm_bwd(g[l.., m, n], data[e], indices[e], indptr[m + 1], x[l.., k, n], y[*], perm[*]?, t_indices[*]?, t_indptr[*]?;
        lo, hi, needs: needs)
        -> (ddata[data]?, dx[x]?, dbias[m]?: data) = product::spmm_bwd;
    sddmm(a[l.., m, d], b[l.., n, d], indices[e], indptr[m + 1], perm[*]?, t_indices[*]?, t_indptr[*]?)
        -> (data[e]) = product::sddmm;
    sddmm_bwd(g[e], a[l.., m, d], b[l.., n, d], indices[e], indptr[m + 1], perm[*]?, t_indices[*]?, t_indptr[*]?; needs: needs)
        -> (da[a]?, db[b]?) = product::sddmm_bwd;
    csr_lanes(indices[e], indptr[m + 1]; cols: int)
        -> (places[e]: cols < 65537 ? int16 : int32, rows[m]: indices) = structure::lanes;
    spmv(data[e], places[e], rows[m], indptr[m + 1], x[b.., k], bias[m]?; act: int) -> (y[b.., m]) = linear::spmv;
    linear(data[e], indices[e], indptr[m + 1], x[l.., k], bias[m]?, perm[*]?, t_indices[*]?, t_indptr[*]?; act: int)
        -> (y[l.., m]) = linear::linear;
    linear_bwd(g[l.., m], data[e], indices[e], indptr[m + 1], x[l.., k], bias[m]?, y[*], perm[*]?, t_indices[*]?, t_indptr[*]?;
        act: int, needs: needs)
        -> (ddata[data]?, dx[x]?, dbias[m]?: data) = linear::linear_bwd;
    linear8(x[l.., k], codes[e], scale[m], indices[e], indptr[m + 1], places[*]?, rows[*]?, bias[m]?, perm[*]?, t_indices[*]?,
        t_indptr[*]?) -> (y[l.., m]) = codes::linear8;
    linear8_bwd(g[l.., m], x[l.., k], codes[e], scale[m], indices[e], indptr[m + 1], bias[m]?, perm[*]?, t_indices[*]?,
        t_indptr[*]?; needs: needs) -> (dx[x]?, dscale[scale]?, dbias[m]?: x) = codes::linear8_bwd;
    csr_matmul_count(a_indices[e], a_indptr[m + 1], b_indices[f], b_indptr[*]; cols: int)
        -> (indptr[m + 1]: int64) = matmul::count;
    csr_matmul_places(a_indices[e], a_indptr[m + 1], b_indices[f], b_indptr[*], indptr[m + 1]; cols: int, entries: int)
        -> (indices[entries]: indptr) = matmul::places;
    csr_matmul(a_data[e], a_indices[e], a_indptr[m + 1], b_data[f], b_indices[f], b_indptr[*], indices[c], indptr[m + 1];
        cols: int) -> (data[c]) = matmul::values;
    csr_matmul_bwd(g[c], a_data[e], a_indices[e], a_indptr[m + 1], b_data[f], b_indices[f], b_indptr[*], indices[c],
        indptr[m + 1]; cols: int, needs: needs)
        -> (da_data[a_data]?, db_data[b_data]?) = matmul::values_bwd;
    csr_softmax(data[e], indptr[m + 1]) -> (y[data]) = matmul::softmax;
    csr_softmax_bwd(g[e], y[e], indptr[m + 1]) -> (ddata[y]) = matmul::softmax_bwd;
    nm_meta(w[b.., k]; n: int, m: int)
        -> (meta[b.., (k / m * n * (m < 3 ? 1 : m < 5 ? 2 : 4) + 7) / 8]: uint8) = nm::meta;
    nm_take(w[b.., k], meta[b.., c]; n: int, m: int) -> (values[b.., k / m * n]) = nm::take;
    nm_take_bwd(g[b.., j], w[b.., k], meta[b.., c]; n: int, m: int) -> (dw[w]) = nm::take_bwd;
    nm_put(values[b.., j], meta[b.., c]; n: int, m: int, cols: int) -> (w[b.., cols]) = nm::put;
    nm_put_bwd(g[b.., k], values[b.., j], meta[b.., c]; n: int, m: int, cols: int) -> (dvalues[values]) = nm::put_bwd;
};
