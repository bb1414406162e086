//! Rows set aside: what depends on the stored type and on the size of a call, not on the operator. The one rule: nothing
//! here is compiled per operator.
//!
//! 16-bit rows are widened to f32 tile by tile, and narrowed again. Outputs larger than the caches are made in a small
//! buffer too and go past the caches from there: written in place, each line of them would be read first.

use base::store::{Bf16, F16, Store, convert};
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
            Dtype::F16 => Some(Aside { read: Some(widen::<F16>), write: round::<f32, F16>, chunk: usize::MAX }),
            Dtype::Bf16 => Some(Aside { read: Some(widen::<Bf16>), write: round::<f32, Bf16>, chunk: usize::MAX }),
            _ => None,
        }
    }
}

impl Aside<f64> {
    /// Results that are kept in a smaller type.
    pub fn rounded(dtype: Dtype) -> Option<Self> {
        let to = |write| Some(Aside { read: None, write, chunk: usize::MAX });
        match dtype {
            Dtype::F32 => to(round::<f64, f32>),
            Dtype::F16 => to(round::<f64, F16>),
            Dtype::Bf16 => to(round::<f64, Bf16>),
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

fn round<K: Store, T: Store>(space: &[K], t: &Tensor, at: usize) {
    convert(space, rows::<T>(t, at, space.len()));
}

fn widen<T: Store>(t: &Tensor, at: usize, space: &mut [f32]) {
    // SAFETY: the elements `at..at + space.len()` are those of a tile's rows, which exist (Call::new), of type T.
    let stored = unsafe { std::slice::from_raw_parts(t.as_ptr().cast::<T>().add(at), space.len()) };
    convert(stored, space);
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
