//! Rows set aside: what depends on the stored type and on the size of a call, not on the operator. The one rule: nothing
//! here is compiled per operator.
//!
//! 16-bit rows are widened to f32 tile by tile, and narrowed again. Outputs larger than the caches are made in a small
//! buffer too and go past the caches from there: written in place, each line of them would be read first.

use base::simd::*;
use base::store::{Bf16, F16, STEP, Store};
use base::stream;
use base::{Dtype, Tensor};

/// Bytes that go past the caches at a time: few enough that they leave while the next rows are computed.
const CHUNK: usize = 1024;

/// How rows of a tile get from memory into the buffer and back; without `read` they are read where they lie.
#[derive(Clone, Copy)]
pub struct Aside<K> {
    pub read: Option<fn(&Tensor, usize, &mut [K])>,
    pub write: fn(&[K], &Tensor, usize),
    /// Elements after which a part of a tile may be written already.
    pub chunk: usize,
}

impl Aside<f32> {
    pub fn half(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Aside { read: Some(widen::<F16>), write: narrow::<F16>, chunk: usize::MAX }),
            Dtype::Bf16 => Some(Aside { read: Some(widen::<Bf16>), write: narrow::<Bf16>, chunk: usize::MAX }),
            _ => None,
        }
    }
}

impl Aside<f64> {
    /// Results that are kept in a smaller type.
    pub fn rounded(dtype: Dtype) -> Option<Self> {
        let to = |write| Some(Aside { read: None, write, chunk: usize::MAX });
        match dtype {
            Dtype::F32 => to(round::<f32>),
            Dtype::F16 => to(round::<F16>),
            Dtype::Bf16 => to(round::<Bf16>),
            _ => None,
        }
    }
}

impl<K: Store> Aside<K> {
    /// Past the caches; the writer owes a [`stream::fence`].
    pub fn past() -> Self {
        Aside { read: None, write: past::<K>, chunk: CHUNK / size_of::<K>() }
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

struct Round<'a, T>(&'a [f64], &'a mut [T]);
impl<T: Store> Kernel for Round<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, y) in self.0.chunks(STEP).zip(self.1.chunks_mut(STEP)) {
            if x.len() == STEP {
                T::store16(s, f64::load16(s, x), y);
            } else {
                T::store_tail(s, f64::load_tail(s, x), y);
            }
        }
    }
}

fn round<T: Store>(space: &[f64], t: &Tensor, at: usize) {
    dispatch(Round(space, rows::<T>(t, at, space.len())));
}

fn widen<T: Store>(t: &Tensor, at: usize, space: &mut [f32]) {
    // SAFETY: the elements `at..at + space.len()` are those of a tile's rows, which exist (Call::new), of type T.
    let stored = unsafe { std::slice::from_raw_parts(t.as_ptr().cast::<T>().add(at), space.len()) };
    dispatch(Widen(stored, space));
}

fn narrow<T: Store>(space: &[f32], t: &Tensor, at: usize) {
    dispatch(Narrow(space, rows::<T>(t, at, space.len())));
}

fn past<T: Store>(space: &[T], t: &Tensor, at: usize) {
    stream::copy(space, rows::<T>(t, at, space.len()));
}

/// `len` elements of an output, which belong to the caller's block.
#[allow(clippy::mut_from_ref)]
fn rows<'a, T>(t: &'a Tensor, at: usize, len: usize) -> &'a mut [T] {
    // SAFETY: the rows of a tile, which exist (Call::new), of type T; no other block touches them.
    unsafe { std::slice::from_raw_parts_mut(t.as_ptr().cast::<T>().add(at), len) }
}
