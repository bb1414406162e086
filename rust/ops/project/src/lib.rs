//! Random projections and the Walsh–Hadamard transform as operators. The one rule: here are names, shapes and checks; the
//! mathematics is in `random`, `butterfly` and the files beside this one.

use base::lane::Stored;
use base::{Dtype, Error, Op, Result, Scalar, Tensor, by_float, ops};
use drivers::butterfly;
use drivers::index::Index;
use form::Projection;

mod csr;
mod dense;
mod fill;
mod form;
mod loud;
mod matrix;
mod sketch;
mod sparse;
mod sum;
#[cfg(test)]
mod tests;
mod transform;

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    project(x[.., d]; kind: int, seed: int, stream: int, param: int, row: int, rows: int, col: int, cols: int, scale, adjoint: bool)
        -> (y[.., adjoint ? cols : rows]) = project;
    project_bwd(g[.., d]; kind: int, seed: int, stream: int, param: int, row: int, rows: int, col: int, cols: int, scale, adjoint: bool)
        -> (dx[.., adjoint ? rows : cols]) = transposed;
    project_bwd_bwd(gg[.., d]; kind: int, seed: int, stream: int, param: int, row: int, rows: int, col: int, cols: int, scale, adjoint: bool)
        -> (dg[.., adjoint ? cols : rows]) = project;
    project_transform(x[.., d]; kind: int, seed: int, stream: int, param: int, row: int, rows: int, col: int, cols: int, scale, adjoint: bool)
        -> (y[.., adjoint ? cols : rows]) = project;
    project_transform_bwd(g[.., d]; kind: int, seed: int, stream: int, param: int, row: int, rows: int, col: int, cols: int, scale, adjoint: bool)
        -> (dx[.., adjoint ? rows : cols]) = transposed;
    project_transform_bwd_bwd(gg[.., d]; kind: int, seed: int, stream: int, param: int, row: int, rows: int, col: int, cols: int, scale, adjoint: bool)
        -> (dg[.., adjoint ? cols : rows]) = project;
    project_csr(data[e], indices[e], indptr[n + 1];
        kind: int, seed: int, stream: int, param: int, row: int, rows: int, col: int, cols: int, scale, adjoint: bool)
        -> (y[n, adjoint ? cols : rows]) = sparse_rows;
    materialise(like[*]; kind: int, seed: int, stream: int, param: int, row: int, rows: int, col: int, cols: int, scale)
        -> (p[rows, cols]) = materialise;
    fwht(x[.., d]; ortho: bool) -> (y[x]) in place = fwht;
    fwht_bwd(g[.., d]; ortho: bool) -> (dx[g]) in place = fwht;
    fwht_bwd_bwd(gg[.., d]; ortho: bool) -> (dg[gg]) in place = fwht;
};

fn project(t: &[Tensor], c: &[Scalar]) -> Result<()> {
    dense_rows(&t[0], &t[1], Projection::new(c)?)
}

fn transposed(t: &[Tensor], c: &[Scalar]) -> Result<()> {
    let mut projection = Projection::new(c)?;
    let matrix = projection.matrix_mut();
    matrix.adjoint = !matrix.adjoint;
    dense_rows(&t[0], &t[1], projection)
}

fn dense_rows(x: &Tensor, y: &Tensor, projection: Projection) -> Result<()> {
    let (_, d) = x.rows();
    let matrix = projection.matrix();
    if x.shape().is_empty() || d != matrix.terms() {
        return Err(Error::Value(format!("the last axis must be {}, got shape {:?}", matrix.terms(), x.shape())));
    }
    shape(y, &x.shape()[..x.shape().len() - 1], matrix.outputs())?;
    by_float!(x, T => projection.apply(x.slice::<T>()?, y.slice_mut::<T>()?))
}

fn sparse_rows(t: &[Tensor], c: &[Scalar]) -> Result<()> {
    let projection = Projection::new(c)?;
    let [data, indices, indptr, y] = [&t[0], &t[1], &t[2], &t[3]];
    if [data, indices, indptr].iter().any(|t| t.shape().len() != 1) || indptr.is_empty() {
        return Err(Error::Value("data, indices and indptr must have one axis, indptr at least one entry".into()));
    }
    shape(y, &[indptr.len() - 1], projection.matrix().outputs())?;
    by_float!(data, T => sparse_rows_of::<T>(data, indices, indptr, y, &projection))
}

fn sparse_rows_of<T: Stored>(
    data: &Tensor,
    indices: &Tensor,
    indptr: &Tensor,
    y: &Tensor,
    p: &Projection,
) -> Result<()> {
    match (indices.dtype(), indptr.dtype()) {
        (Dtype::I32, Dtype::I32) => sparse_rows_by::<T, i32>(data, indices, indptr, y, p),
        (Dtype::I64, Dtype::I64) => sparse_rows_by::<T, i64>(data, indices, indptr, y, p),
        (a, b) => Err(Error::Type(format!(
            "indices and indptr must both be int32 or both int64, got {} and {}",
            a.name(),
            b.name()
        ))),
    }
}

fn sparse_rows_by<T: Stored, I: Index>(
    data: &Tensor,
    indices: &Tensor,
    indptr: &Tensor,
    y: &Tensor,
    projection: &Projection,
) -> Result<()> {
    let terms = projection.matrix().terms();
    let x = csr::Csr::new(data.slice::<T>()?, indices.slice::<I>()?, indptr.slice::<I>()?, terms)?;
    csr::apply(projection, &x, y.slice_mut::<T>()?)
}

fn materialise(t: &[Tensor], c: &[Scalar]) -> Result<()> {
    let projection = Projection::new(c)?;
    let matrix = projection.matrix();
    shape(&t[1], &[matrix.rows], matrix.cols)?;
    if t[0].dtype() != t[1].dtype() {
        return Err(Error::Type(format!("expected {}, got {}", t[0].dtype().name(), t[1].dtype().name())));
    }
    by_float!(t[1], T => fill::write(projection, t[1].slice_mut::<T>()?))
}

fn fwht(t: &[Tensor], c: &[Scalar]) -> Result<()> {
    butterfly::fwht(&t[0], &t[1], c[0].bool())
}

/// Refuses an output that is not `lead` and then one axis of `last`.
fn shape(y: &Tensor, lead: &[usize], last: usize) -> Result<()> {
    match y.shape().split_last() {
        Some((&l, rest)) if l == last && rest == lead => Ok(()),
        _ => Err(Error::Value(format!("the output must have shape {lead:?} and then {last}, got {:?}", y.shape()))),
    }
}
