//! Sparse matrices by rows: their structure, their products, and what the products send back. The one rule: everything
//! is checked before an output is touched.
//!
//! A matrix is `data, indices, indptr` with ascending columns. Its transpose comes along as `perm, t_indices, t_indptr`
//! (what `csr_transpose` gives) where a gradient will want it; absent, it is made on the way.

mod product;
mod structure;

use base::{Dtype, Error, Kind, Op, Result, Rule, Tensor};

/// The kernel of this row of the table for the types of the values and of the indices.
macro_rules! typed {
    ($f:ident, $t:expr, $s:expr; $value:expr, $index:expr) => {
        match ($value.dtype(), $index.dtype()) {
            (Dtype::F32, Dtype::I32) => $f::<f32, i32>($t, $s),
            (Dtype::F32, Dtype::I64) => $f::<f32, i64>($t, $s),
            (Dtype::F64, Dtype::I32) => $f::<f64, i32>($t, $s),
            (Dtype::F64, Dtype::I64) => $f::<f64, i64>($t, $s),
            (value, index) => Err(refused(value, index)),
        }
    };
}
/// The same for kernels that move values without computing with them.
macro_rules! stored {
    ($f:ident, $t:expr, $s:expr; $value:expr, $index:expr) => {
        match ($value.dtype(), $index.dtype()) {
            (Dtype::F16, Dtype::I32) => $f::<F16, i32>($t, $s),
            (Dtype::F16, Dtype::I64) => $f::<F16, i64>($t, $s),
            (Dtype::Bf16, Dtype::I32) => $f::<Bf16, i32>($t, $s),
            (Dtype::Bf16, Dtype::I64) => $f::<Bf16, i64>($t, $s),
            _ => typed!($f, $t, $s; $value, $index),
        }
    };
}
use {stored, typed};

fn refused(value: Dtype, index: Dtype) -> Error {
    if value.is_float() {
        return Error::Type(format!("indices must be int32 or int64, and all of one type, got {}", index.name()));
    }
    Error::Type(format!("values must be float64, float32, float16 or bfloat16, got {}", value.name()))
}

/// The last two axes of a stack of matrices, and how many matrices there are.
fn stack(name: &str, t: &Tensor) -> Result<[usize; 3]> {
    match *t.shape() {
        [ref lead @ .., rows, cols] => Ok([lead.iter().product(), rows, cols]),
        _ => Err(Error::Value(format!("{name} must have two axes or more, got shape {:?}", t.shape()))),
    }
}

fn expect(name: &str, t: &Tensor, shape: &[usize]) -> Result<()> {
    if t.shape() == shape {
        return Ok(());
    }
    Err(Error::Value(format!("{name} must have shape {shape:?}, got {:?}", t.shape())))
}

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = &[
    Op {
        name: "csr_sort",
        inputs: &["indices", "indptr"],
        vectors: 0,
        outputs: &[("columns", Rule::Custom), ("offsets", Rule::Custom), ("perm", Rule::Custom)],
        scalars: &[("cols", Kind::Int), ("wide", Kind::Bool)],
        alias: false,
        run: structure::sort,
    },
    Op {
        name: "csr_transpose",
        inputs: &["indices", "indptr"],
        vectors: 0,
        outputs: &[("rows", Rule::Custom), ("offsets", Rule::Custom), ("perm", Rule::Custom)],
        scalars: &[("cols", Kind::Int)],
        alias: false,
        run: structure::transpose,
    },
    Op {
        name: "csr_count",
        inputs: &["w", "mask"],
        vectors: 0,
        outputs: &[("indptr", Rule::Custom)],
        scalars: &[("wide", Kind::Bool)],
        alias: false,
        run: structure::count,
    },
    Op {
        name: "csr_fill",
        inputs: &["w", "indptr", "mask"],
        vectors: 0,
        outputs: &[("data", Rule::Custom), ("indices", Rule::Custom)],
        scalars: &[("entries", Kind::Int)],
        alias: false,
        run: structure::fill,
    },
    Op {
        name: "csr_dense",
        inputs: &["data", "indices", "indptr"],
        vectors: 0,
        outputs: &[("w", Rule::Custom)],
        scalars: &[("cols", Kind::Int)],
        alias: false,
        run: structure::dense,
    },
    Op {
        name: "csr_dense_bwd",
        inputs: &["g", "indices", "indptr"],
        vectors: 0,
        outputs: &[("ddata", Rule::Custom)],
        scalars: &[],
        alias: false,
        run: structure::dense_bwd,
    },
    Op {
        name: "spmm",
        inputs: &["data", "indices", "indptr", "x", "bias", "perm", "t_indices", "t_indptr"],
        vectors: 0,
        outputs: &[("y", Rule::Custom)],
        scalars: &[("lo", Kind::Float), ("hi", Kind::Float), ("grads", Kind::Int)],
        alias: false,
        run: product::spmm,
    },
    Op {
        name: "spmm_bwd",
        inputs: &["g", "data", "indices", "indptr", "x", "y", "perm", "t_indices", "t_indptr"],
        vectors: 0,
        outputs: &[("ddata", Rule::Custom), ("dx", Rule::Custom), ("dbias", Rule::Custom)],
        scalars: &[("lo", Kind::Float), ("hi", Kind::Float), ("grads", Kind::Int)],
        alias: false,
        run: product::spmm_bwd,
    },
    Op {
        name: "sddmm",
        inputs: &["a", "b", "indices", "indptr", "perm", "t_indices", "t_indptr"],
        vectors: 0,
        outputs: &[("data", Rule::Custom)],
        scalars: &[("grads", Kind::Int)],
        alias: false,
        run: product::sddmm,
    },
    Op {
        name: "sddmm_bwd",
        inputs: &["g", "a", "b", "indices", "indptr", "perm", "t_indices", "t_indptr"],
        vectors: 0,
        outputs: &[("da", Rule::Custom), ("db", Rule::Custom)],
        scalars: &[("grads", Kind::Int)],
        alias: false,
        run: product::sddmm_bwd,
    },
];
