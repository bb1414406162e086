//! Rows in memory: what depends on the stored type and not on the operator. The one rule: nothing here is compiled per
//! operator.

use super::margin::{Margin, inside};
use crate::simd::*;
use crate::store::{Bf16, F16, Store};
use crate::{Dtype, Tensor};

/// How rows of a 16-bit type become f32 and back.
#[derive(Clone, Copy)]
pub struct Half {
    pub widen: fn(&Tensor, usize, &mut [f32]),
    pub narrow: fn(&[f32], &Tensor, usize),
}

impl Half {
    pub fn of(dtype: Dtype) -> Option<Half> {
        match dtype {
            Dtype::F16 => Some(Half { widen: widen::<F16>, narrow: narrow::<F16> }),
            Dtype::Bf16 => Some(Half { widen: widen::<Bf16>, narrow: narrow::<Bf16> }),
            _ => None,
        }
    }
}

struct Widen<'a, T>(&'a [T], &'a mut [f32]);
impl<T: Store> Kernel for Widen<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (wide, narrow) in self.1.iter_mut().zip(self.0) {
            *wide = narrow.to_f32();
        }
    }
}

struct Narrow<'a, T>(&'a [f32], &'a mut [T]);
impl<T: Store> Kernel for Narrow<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (narrow, wide) in self.1.iter_mut().zip(self.0) {
            *narrow = T::from_f32(*wide);
        }
    }
}

fn widen<T: Store>(t: &Tensor, at: usize, space: &mut [f32]) {
    // SAFETY: the elements `at..at + space.len()` are those of a tile's rows, which exist (Call::new), of type T.
    let stored = unsafe { std::slice::from_raw_parts(t.as_ptr().cast::<T>().add(at), space.len()) };
    dispatch(Widen(stored, space));
}

fn narrow<T: Store>(space: &[f32], t: &Tensor, at: usize) {
    // SAFETY: as in `widen`; these rows belong to the caller's block.
    let stored = unsafe { std::slice::from_raw_parts_mut(t.as_ptr().cast::<T>().add(at), space.len()) };
    dispatch(Narrow(space, stored));
}

/// [`inside`] for the row of `d` elements at `at`.
///
/// # Safety
/// The row exists and belongs to the caller.
#[cold]
pub unsafe fn pull(t: &Tensor, at: usize, d: usize, c: f64, margin: Margin) {
    // SAFETY: promised by the caller; the dtype says the type.
    unsafe {
        let p = t.as_ptr();
        match t.dtype() {
            Dtype::F64 => inside(std::slice::from_raw_parts_mut(p.cast::<f64>().add(at), d), c, margin),
            Dtype::F32 => inside(std::slice::from_raw_parts_mut(p.cast::<f32>().add(at), d), c, margin),
            Dtype::F16 => inside(std::slice::from_raw_parts_mut(p.cast::<F16>().add(at), d), c, margin),
            _ => inside(std::slice::from_raw_parts_mut(p.cast::<Bf16>().add(at), d), c, margin),
        }
    }
}
