//! A long array in fixed blocks. The one rule: what a functor computes for an element never depends on how the array
//! was cut, and partial results are joined in the order of the blocks.
//!
//! A functor sees slices of one compute type: f64 for f64, f32 for f32, f16 and bf16. Arrays of the compute type are
//! handed over as they lie; 16-bit types, and an output that is the memory of an input, go through a scratch of
//! [`CHUNK`] elements that stays in the first cache, and so do results that no cache would hold, on their way past.

mod beside;
mod real;
#[cfg(test)]
mod tests;

use base::simd::{Kernel, Simd, dispatch};
use base::stream;
use base::{Error, Result, Tensor, pool};
pub use beside::{Rows, from_bytes, to_bytes};
pub use real::{Compute, Real};
use std::marker::PhantomData;

/// Elements a thread takes at a time.
pub const BLOCK: usize = 32 * 1024;
/// Elements converted at a time.
pub const CHUNK: usize = 2048;
/// Elements that go past the caches at a time: while they leave, the next ones come in.
const PAST: usize = 1024;

/// What happens to a part of the arrays: `X` float and `B` byte arrays in, `Y` float and `C` byte arrays out, and
/// something gathered per block. All arrays have the same number of elements; `at` is the first one of the part.
pub trait Pass<T: Real, const X: usize, const B: usize, const Y: usize, const C: usize>: Sync {
    type Gather: Send;
    /// What a block of `len` elements from `at` on starts with.
    fn start(&self, at: usize, len: usize) -> Result<Self::Gather>;
    /// `#[inline(always)]` in every implementation.
    fn part<S: Simd>(
        &self,
        s: S,
        gather: &mut Self::Gather,
        at: usize,
        x: [&[T]; X],
        b: [&[u8]; B],
        y: [&mut [T]; Y],
        c: [&mut [u8]; C],
    );
}

/// Walks over all arrays once, in blocks of `block` elements, and returns what the blocks gathered, in order.
pub fn pass<T, P, const X: usize, const B: usize, const Y: usize, const C: usize>(
    p: &P,
    block: usize,
    x: [&Tensor; X],
    b: [&Tensor; B],
    y: [&Tensor; Y],
    c: [&Tensor; C],
) -> Result<Vec<P::Gather>>
where
    T: Compute,
    P: Pass<T::Real, X, B, Y, C>,
{
    let n = length(&[&x, &b, &y, &c])?;
    for (t, out) in x.iter().map(|t| (t, false)).chain(y.iter().map(|t| (t, true))) {
        check(t, T::DTYPE == t.dtype(), T::DTYPE.name(), out)?;
    }
    for (t, out) in b.iter().map(|t| (t, false)).chain(c.iter().map(|t| (t, true))) {
        check(t, t.dtype().size() == 1, "an array of bytes", out)?;
    }
    let shared = x.iter().any(|x| y.iter().any(|y| x.as_ptr() == y.as_ptr()));
    let walk = Walk::<T, P, X, B, Y, C> {
        p,
        // an output that is also an input may not be lent twice: it is read through the scratch
        scratch: !T::SAME || shared,
        past: T::SAME && !shared && y.iter().map(|y| y.bytes()).sum::<usize>() >= stream::LARGE,
        x: x.map(|t| Bytes(t.as_ptr())),
        b: b.map(|t| Bytes(t.as_ptr())),
        y: y.map(|t| Bytes(t.as_ptr())),
        c: c.map(|t| Bytes(t.as_ptr())),
        of: PhantomData,
    };
    let block = block.max(1);
    pool::map(n.div_ceil(block), n, |i| walk.block(i * block, block.min(n - i * block)))?.into_iter().collect()
}

fn length(groups: &[&[&Tensor]]) -> Result<usize> {
    let mut all = groups.iter().flat_map(|g| g.iter());
    let n = all.next().map_or(0, |t| t.len());
    match all.find(|t| t.len() != n) {
        Some(t) => Err(Error::Value(format!("arrays of {n} and {} elements", t.len()))),
        None => Ok(n),
    }
}

fn check(t: &Tensor, fits: bool, expected: &str, out: bool) -> Result<()> {
    if !fits {
        return Err(Error::Type(format!("expected {expected}, got {}", t.dtype().name())));
    }
    if out && !t.writable() {
        return Err(Error::Value("the output is read-only".into()));
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Bytes(*mut u8);
// SAFETY: every block reads and writes its own elements only.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// # Safety
    /// Elements `at..at + len` of type `T` exist, live for `'a`, and nobody writes them meanwhile.
    #[inline(always)]
    unsafe fn read<'a, T>(self, at: usize, len: usize) -> &'a [T] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts(self.0.cast::<T>().add(at), len) }
    }
    /// # Safety
    /// Elements `at..at + len` of type `T` exist, live for `'a`, and nobody else touches them meanwhile.
    #[inline(always)]
    unsafe fn write<'a, T>(self, at: usize, len: usize) -> &'a mut [T] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.cast::<T>().add(at), len) }
    }
}

struct Walk<'a, T, P, const X: usize, const B: usize, const Y: usize, const C: usize> {
    p: &'a P,
    /// Converted, part by part.
    scratch: bool,
    /// Results go past the caches.
    past: bool,
    x: [Bytes; X],
    b: [Bytes; B],
    y: [Bytes; Y],
    c: [Bytes; C],
    of: PhantomData<fn() -> T>,
}

impl<T, P, const X: usize, const B: usize, const Y: usize, const C: usize> Walk<'_, T, P, X, B, Y, C>
where
    T: Compute,
    P: Pass<T::Real, X, B, Y, C>,
{
    fn block(&self, start: usize, len: usize) -> Result<P::Gather> {
        let (p, mut gather) = (self.p, self.p.start(start, len)?);
        if self.past {
            let mut ys = [[T::Real::ZERO; PAST]; Y];
            for at in (start..start + len).step_by(PAST) {
                let n = PAST.min(start + len - at);
                // SAFETY: as below.
                let (x, b, c) = unsafe {
                    (self.x.map(|t| t.read(at, n)), self.b.map(|t| t.read(at, n)), self.c.map(|t| t.write(at, n)))
                };
                let y = ys.each_mut().map(|y| &mut y[..n]);
                dispatch(Part { p, gather: &mut gather, at, x, b, y, c });
                for (y, t) in ys.iter().zip(self.y) {
                    // SAFETY: as below; T is its own compute type.
                    stream::copy(&y[..n], unsafe { t.write(at, n) });
                }
            }
            stream::fence();
            return Ok(gather);
        }
        if !self.scratch {
            // SAFETY: the range lies within arrays of equal length, T is its own compute type, inputs are written by
            // nobody (no output shares their memory, else there would be a scratch), outputs by this block alone.
            let (x, b, y, c) = unsafe {
                (
                    self.x.map(|t| t.read(start, len)),
                    self.b.map(|t| t.read(start, len)),
                    self.y.map(|t| t.write(start, len)),
                    self.c.map(|t| t.write(start, len)),
                )
            };
            dispatch(Part { p, gather: &mut gather, at: start, x, b, y, c });
            return Ok(gather);
        }
        let mut xs = [[T::Real::ZERO; CHUNK]; X];
        let mut ys = [[T::Real::ZERO; CHUNK]; Y];
        for at in (start..start + len).step_by(CHUNK) {
            let n = CHUNK.min(start + len - at);
            for (x, t) in xs.iter_mut().zip(self.x) {
                // SAFETY: as above; the slice is gone before the outputs are lent.
                T::widen(unsafe { t.read::<T>(at, n) }, &mut x[..n]);
            }
            // SAFETY: as above; byte outputs share no memory with any input.
            let (b, c) = unsafe { (self.b.map(|t| t.read(at, n)), self.c.map(|t| t.write(at, n))) };
            let (x, y) = (xs.each_ref().map(|x| &x[..n]), ys.each_mut().map(|y| &mut y[..n]));
            dispatch(Part { p, gather: &mut gather, at, x, b, y, c });
            for (y, t) in ys.iter().zip(self.y) {
                // SAFETY: as above; no input is lent any more.
                T::narrow(&y[..n], unsafe { t.write::<T>(at, n) });
            }
        }
        Ok(gather)
    }
}

/// One call of a functor: compiled once per compute type, whatever is stored.
struct Part<'a, T, P, G, const X: usize, const B: usize, const Y: usize, const C: usize> {
    p: &'a P,
    gather: &'a mut G,
    at: usize,
    x: [&'a [T]; X],
    b: [&'a [u8]; B],
    y: [&'a mut [T]; Y],
    c: [&'a mut [u8]; C],
}

impl<T, P, const X: usize, const B: usize, const Y: usize, const C: usize> Kernel
    for Part<'_, T, P, P::Gather, X, B, Y, C>
where
    T: Real,
    P: Pass<T, X, B, Y, C>,
{
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.p.part(s, self.gather, self.at, self.x, self.b, self.y, self.c);
    }
}
