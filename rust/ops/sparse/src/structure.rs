//! The structure of a matrix: from what a caller brings, from dense, to dense, transposed. The one rule: types are
//! sorted out here, everything else in `csr::build`.

use super::by_index;
use base::store::Store;
use base::{Dtype, Error, Result, Scalar, Tensor, by_float};
use drivers::csr::{self, Index, Pattern};

fn size(name: &str, v: i64) -> Result<usize> {
    usize::try_from(v).map_err(|_| Error::Value(format!("{name} must not be negative, got {v}")))
}

pub fn sort(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn typed<I: Index, O: Index>(t: &[Tensor], cols: usize) -> Result<()> {
        let (out, ptr, perm) = (t[2].slice_mut::<O>()?, t[3].slice_mut::<O>()?, t[4].slice_mut::<O>()?);
        csr::sort(t[0].slice::<I>()?, t[1].slice::<I>()?, cols, out, ptr, perm)
    }
    let cols = size("cols", s[0].int())?;
    by_index!(t[0], I => by_index!(t[2], O => typed::<I, O>(t, cols)))
}

pub fn transpose(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn typed<I: Index>(t: &[Tensor], cols: usize) -> Result<()> {
        let a = Pattern::bare(t[0].slice::<I>()?, t[1].slice::<I>()?, cols)?;
        csr::transpose(&a, t[2].slice_mut()?, t[3].slice_mut()?, t[4].slice_mut()?)
    }
    let cols = size("cols", s[0].int())?;
    by_index!(t[0], I => typed::<I>(t, cols))
}

/// A dense matrix and its mask.
fn masked<'a, T: Store>(w: &Tensor<'a>, mask: &Tensor<'a>) -> Result<(&'a [T], Option<&'a [u8]>, usize)> {
    let &[_, cols] = w.shape() else {
        return Err(Error::Value(format!("w must have two axes, got shape {:?}", w.shape())));
    };
    if mask.is_empty() {
        return Ok((w.slice()?, None, cols));
    }
    mask.expect_shape("mask", w.shape())?;
    Ok((w.slice()?, Some(mask.slice()?), cols))
}

pub fn count(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn typed<T: Store, I: Index>(t: &[Tensor], _: &[Scalar]) -> Result<()> {
        let (w, mask, cols) = masked::<T>(&t[0], &t[1])?;
        csr::count(w, mask, cols, t[2].slice_mut::<I>()?)
    }
    by_index!(t[2], I => by_float!(t[0], T => typed::<T, I>(t, s)))
}

pub fn fill(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn typed<T: Store, I: Index>(t: &[Tensor], _: &[Scalar]) -> Result<()> {
        let (w, mask, cols) = masked::<T>(&t[0], &t[2])?;
        csr::fill(w, mask, cols, t[1].slice::<I>()?, t[3].slice_mut()?, t[4].slice_mut()?)
    }
    by_index!(t[1], I => by_float!(t[0], T => typed::<T, I>(t, s)))
}

pub fn dense(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn typed<T: Store, I: Index>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let a = Pattern::new(t[1].slice::<I>()?, t[2].slice::<I>()?, size("cols", s[0].int())?)?;
        t[3].expect_shape("w", &[a.rows(), a.cols()])?;
        let (data, out) = (t[0].slice::<T>()?, t[3].slice_mut::<T>()?);
        // sums of f64 in f64, of the others in f32
        if T::DTYPE == Dtype::F64 {
            csr::dense(&a, data, out, T::to_f64, T::from_f64)
        } else {
            csr::dense(&a, data, out, T::to_f32, T::from_f32)
        }
    }
    by_index!(t[1], I => by_float!(t[0], T => typed::<T, I>(t, s)))
}

pub fn dense_bwd(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn typed<T: Store, I: Index>(t: &[Tensor], _: &[Scalar]) -> Result<()> {
        let &[rows, cols] = t[0].shape() else {
            return Err(Error::Value(format!("g must have two axes, got shape {:?}", t[0].shape())));
        };
        let a = Pattern::new(t[1].slice::<I>()?, t[2].slice::<I>()?, cols)?;
        if a.rows() != rows {
            return Err(Error::Value(format!("g has {rows} rows, the pattern {}", a.rows())));
        }
        t[3].expect_shape("ddata", &[a.entries()])?;
        csr::take(&a, t[0].slice::<T>()?, t[3].slice_mut::<T>()?)
    }
    by_index!(t[1], I => by_float!(t[0], T => typed::<T, I>(t, s)))
}

/// csr_lanes(indices, indptr) -> places, rows; cols
pub fn lanes(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    by_index!(t[0], I => {
        let a = Pattern::new(t[0].slice::<I>()?, t[1].slice::<I>()?, size("cols", s[0].int())?)?;
        if t[2].dtype() == Dtype::I16 {
            csr::lanes(&a, t[2].slice_mut::<i16>()?, t[3].slice_mut()?)
        } else {
            csr::lanes(&a, t[2].slice_mut::<i32>()?, t[3].slice_mut()?)
        }
    })
}
