//! Kernels of f32 and f64 serve the 16-bit types too. The one rule: those are widened before and rounded once after, array by
//! array.

use crate::pool::{self, Shared};
use crate::simd::*;
use crate::store::{Bf16, F16, STEP, Store};
use crate::{Dtype, Error, Result, Tensor, try_vec};

/// Elements that one task takes.
const BLOCK: usize = 64 * 1024;

/// Runs `f` on tensors whose 16-bit floats were replaced by f32 copies, and rounds the outputs back.
pub fn wide(t: &[Tensor], inputs: usize, f: impl Fn(&[Tensor]) -> Result<()>) -> Result<()> {
    let half = |t: &Tensor| matches!(t.dtype(), Dtype::F16 | Dtype::Bf16);
    let Some(first) = t.iter().find(|t| half(t)) else { return f(t) };
    // absent arrays, without elements, and numbers may be of another type
    if let Some(other) =
        t.iter().find(|t| t.dtype().is_float() && t.dtype() != first.dtype() && !t.is_empty() && !t.shape().is_empty())
    {
        return Err(Error::Type(format!("{} and {} in one call", first.dtype().name(), other.dtype().name())));
    }
    let (mut copies, mut inner) = (Vec::new(), t.to_vec());
    for (i, t) in inner.iter_mut().enumerate().filter(|(_, t)| half(t)) {
        let mut copy = try_vec(t.len(), 0f32)?;
        match t.dtype() {
            _ if i >= inputs => {}
            Dtype::F16 => cast(t.slice::<F16>()?, &mut copy)?,
            _ => cast(t.slice::<Bf16>()?, &mut copy)?,
        }
        // SAFETY: the copy has the tensor's elements and outlives the call; moving the vector leaves them in place.
        *t = unsafe { Tensor::new(copy.as_mut_ptr().cast(), t.shape(), Dtype::F32, i >= inputs)? };
        copies.push((i, copy));
    }
    f(&inner)?;
    for (i, copy) in copies.iter().filter(|c| c.0 >= inputs) {
        match t[*i].dtype() {
            Dtype::F16 => cast(copy, t[*i].slice_mut::<F16>()?)?,
            _ => cast(copy, t[*i].slice_mut::<Bf16>()?)?,
        }
    }
    Ok(())
}

struct Cast<'a, T, U>(&'a [T], &'a mut [U]);

impl<T: Store, U: Store> Kernel for Cast<'_, T, U> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Cast(x, y) = self;
        let whole = x.len() / STEP * STEP;
        for i in (0..whole).step_by(STEP) {
            U::store16_f32(s, T::load16_f32(s, &x[i..i + STEP]), &mut y[i..i + STEP]);
        }
        U::store_tail_f32(s, T::load_tail_f32(s, &x[whole..]), &mut y[whole..]);
    }
}

fn cast<T: Store, U: Store>(x: &[T], y: &mut [U]) -> Result<()> {
    let out = Shared(y.as_mut_ptr());
    pool::run(x.len().div_ceil(BLOCK), x.len(), |b| {
        let part = b * BLOCK..x.len().min((b + 1) * BLOCK);
        // SAFETY: blocks are disjoint parts of y, which is as long as x.
        dispatch(Cast(&x[part.clone()], unsafe { out.part(part.start, part.len()) }));
    })
}
