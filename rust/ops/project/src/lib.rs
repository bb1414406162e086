//! Random projections and the Walsh–Hadamard transform as operators. The one rule: here are names, shapes and checks; the
//! mathematics is in `random`, `butterfly` and the files beside this one.

use base::lane::Stored;
use base::store::{Bf16, F16};
use base::{Dtype, Error, Kind, Op, Result, Rule, Scalar, Tensor, random};
use drivers::butterfly;
use drivers::index::Index;
use matrix::{Matrix, SCALARS};
use sum::Sum;

mod csr;
mod dense;
mod fill;
mod matrix;
mod sparse;
mod sum;
#[cfg(test)]
mod tests;

type Run = fn(&[Tensor], &[Scalar]) -> Result<()>;

const fn projection(
    name: &'static str,
    input: &'static [&'static str],
    output: &'static [(&'static str, Rule)],
    run: Run,
) -> Op {
    Op { name, inputs: input, vectors: 1, outputs: output, scalars: SCALARS, alias: false, run }
}

const fn transform(name: &'static str, input: &'static [&'static str], output: &'static [(&'static str, Rule)]) -> Op {
    Op {
        name,
        inputs: input,
        vectors: 1,
        outputs: output,
        scalars: &[("ortho", Kind::Bool)],
        alias: true,
        run: |t, c| butterfly::fwht(&t[0], &t[1], c[0].bool()),
    }
}

const Y: &[(&str, Rule)] = &[("y", Rule::Custom)];

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = &[
    projection("project", &["x"], Y, project),
    projection("project_bwd", &["g"], &[("dx", Rule::Custom)], transposed),
    projection("project_bwd_bwd", &["gg"], &[("dg", Rule::Custom)], project),
    Op {
        name: "project_csr",
        inputs: &["data", "indices", "indptr"],
        vectors: 0,
        outputs: Y,
        scalars: SCALARS,
        alias: false,
        run: sparse_rows,
    },
    Op {
        name: "materialise",
        inputs: &["like"],
        vectors: 0,
        outputs: &[("p", Rule::Custom)],
        scalars: SCALARS.split_at(SCALARS.len() - 1).0,
        alias: false,
        run: materialise,
    },
    transform("fwht", &["x"], &[("y", Rule::Like(0))]),
    transform("fwht_bwd", &["g"], &[("dx", Rule::Like(0))]),
    transform("fwht_bwd_bwd", &["gg"], &[("dg", Rule::Like(0))]),
    Op {
        name: "philox4x32",
        inputs: &["counter", "key"],
        vectors: 0,
        outputs: &[("words", Rule::Like(0))],
        scalars: &[],
        alias: false,
        run: philox,
    },
];

/// Calls a generic function with the type that a dtype stands for.
macro_rules! by_dtype {
    ($dtype:expr, $f:ident, $($arg:expr),*) => {
        match $dtype {
            Dtype::F32 => $f::<f32>($($arg),*),
            Dtype::F64 => $f::<f64>($($arg),*),
            Dtype::F16 => $f::<F16>($($arg),*),
            Dtype::Bf16 => $f::<Bf16>($($arg),*),
            other => Err(Error::Type(format!("expected a float array, got {}", other.name()))),
        }
    };
}

fn project(t: &[Tensor], c: &[Scalar]) -> Result<()> {
    dense_rows(&t[0], &t[1], Matrix::new(c)?)
}

fn transposed(t: &[Tensor], c: &[Scalar]) -> Result<()> {
    let matrix = Matrix::new(c)?;
    dense_rows(&t[0], &t[1], Matrix { adjoint: !matrix.adjoint, ..matrix })
}

fn dense_rows(x: &Tensor, y: &Tensor, matrix: Matrix) -> Result<()> {
    let (n, d) = x.rows();
    if x.shape().is_empty() || d != matrix.terms() {
        return Err(Error::Value(format!("the last axis must be {}, got shape {:?}", matrix.terms(), x.shape())));
    }
    shape(y, &x.shape()[..x.shape().len() - 1], matrix.outputs())?;
    by_dtype!(x.dtype(), dense_rows_of, x, y, &matrix, n)
}

fn dense_rows_of<T: Stored<Lane: Sum>>(x: &Tensor, y: &Tensor, matrix: &Matrix, n: usize) -> Result<()> {
    let (x, y) = (x.slice::<T>()?, y.slice_mut::<T>()?);
    if y.is_empty() {
        Ok(())
    } else if x.is_empty() {
        y.fill(T::default());
        Ok(())
    } else if let matrix::Kind::Sparse(_) = matrix.kind {
        sparse::apply(matrix, x, y, n)
    } else {
        dense::apply(matrix, x, y, n)
    }
}

fn sparse_rows(t: &[Tensor], c: &[Scalar]) -> Result<()> {
    let matrix = Matrix::new(c)?;
    let [data, indices, indptr, y] = [&t[0], &t[1], &t[2], &t[3]];
    if [data, indices, indptr].iter().any(|t| t.shape().len() != 1) || indptr.is_empty() {
        return Err(Error::Value("data, indices and indptr must have one axis, indptr at least one entry".into()));
    }
    shape(y, &[indptr.len() - 1], matrix.outputs())?;
    by_dtype!(data.dtype(), sparse_rows_of, data, indices, indptr, y, &matrix)
}

fn sparse_rows_of<T: Stored>(data: &Tensor, indices: &Tensor, indptr: &Tensor, y: &Tensor, m: &Matrix) -> Result<()> {
    match (indices.dtype(), indptr.dtype()) {
        (Dtype::I32, Dtype::I32) => sparse_rows_by::<T, i32>(data, indices, indptr, y, m),
        (Dtype::I64, Dtype::I64) => sparse_rows_by::<T, i64>(data, indices, indptr, y, m),
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
    matrix: &Matrix,
) -> Result<()> {
    let x = csr::Csr::new(data.slice::<T>()?, indices.slice::<I>()?, indptr.slice::<I>()?, matrix.terms())?;
    csr::apply(matrix, &x, y.slice_mut::<T>()?)
}

fn materialise(t: &[Tensor], c: &[Scalar]) -> Result<()> {
    let matrix = Matrix::new(c)?;
    shape(&t[1], &[matrix.rows], matrix.cols)?;
    if t[0].dtype() != t[1].dtype() {
        return Err(Error::Type(format!("expected {}, got {}", t[0].dtype().name(), t[1].dtype().name())));
    }
    by_dtype!(t[1].dtype(), materialise_as, &t[1], &matrix)
}

fn materialise_as<T: Stored>(y: &Tensor, matrix: &Matrix) -> Result<()> {
    fill::write(matrix, y.slice_mut::<T>()?)
}

fn philox(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    let [counter, key, words] = [&t[0], &t[1], &t[2]];
    if counter.shape().last() != Some(&4) {
        return Err(Error::Value(format!("the last axis of counter must be 4, got shape {:?}", counter.shape())));
    }
    if key.shape() != [2] {
        return Err(Error::Value(format!("key must have shape [2], got {:?}", key.shape())));
    }
    if words.shape() != counter.shape() {
        return Err(Error::Value(format!("the output must have shape {:?}, got {:?}", counter.shape(), words.shape())));
    }
    let (counter, key, words) = (counter.slice::<u32>()?, key.slice::<u32>()?, words.slice_mut::<u32>()?);
    random::many(counter, [key[0], key[1]], words)
}

/// Refuses an output that is not `lead` and then one axis of `last`.
fn shape(y: &Tensor, lead: &[usize], last: usize) -> Result<()> {
    match y.shape().split_last() {
        Some((&l, rest)) if l == last && rest == lead => Ok(()),
        _ => Err(Error::Value(format!("the output must have shape {lead:?} and then {last}, got {:?}", y.shape()))),
    }
}
