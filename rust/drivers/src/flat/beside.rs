//! Rows of numbers beside the bytes that they are coded in. The one rule: a row begins on a byte, pieces of [`CHUNK`] numbers are
//! whole bytes, and a functor sees a piece of either, the numbers in their compute type.

use super::{BLOCK, CHUNK, Compute, Real};
use base::pool::{self, Shared};
use base::{Error, Result, Tensor, stream};

/// Rows cut into pieces of at most a block, each a whole number of bytes at any width.
#[derive(Clone, Copy)]
pub struct Rows {
    pub rows: usize,
    pub len: usize,
    per_block: usize,
    pieces: usize,
}

impl Rows {
    pub fn of(t: &Tensor) -> Rows {
        let (rows, len) = t.rows();
        let pieces = len.div_ceil(BLOCK).max(1);
        Rows { rows, len, per_block: if pieces > 1 { 1 } else { (BLOCK / len.max(1)).max(1) }, pieces }
    }

    pub fn blocks(self) -> usize {
        self.rows.div_ceil(self.per_block) * self.pieces
    }

    /// Calls `f(row, from, to)` for the pieces of a block.
    #[inline(always)]
    pub fn each(self, block: usize, mut f: impl FnMut(usize, usize, usize)) {
        let (first, piece) = (block / self.pieces * self.per_block, block % self.pieces);
        for row in first..(first + self.per_block).min(self.rows) {
            f(row, piece * BLOCK, ((piece + 1) * BLOCK).min(self.len));
        }
    }
}

/// Checks the bytes of rows, and returns how many a row has.
fn stride(x: &Tensor, data: &Tensor, bytes: &impl Fn(usize) -> usize) -> Result<(Rows, usize)> {
    let rows = Rows::of(x);
    let stride = bytes(rows.len);
    if data.dtype().size() != 1 || data.len() != rows.rows.saturating_mul(stride) {
        return Err(Error::Value(format!(
            "{} rows of {} codes are {} bytes, got {} of {}",
            rows.rows,
            rows.len,
            rows.rows.saturating_mul(stride),
            data.len(),
            data.dtype().name()
        )));
    }
    Ok((rows, stride))
}

/// Numbers of codes: `f(at, bytes, numbers)` for the pieces of all rows, `at` being the first number's place among all.
/// `bytes(n)` is how many bytes the first n numbers of a row take.
pub fn from_bytes<A: Compute>(
    data: &Tensor,
    x: &Tensor,
    bytes: impl Fn(usize) -> usize + Sync,
    f: impl Fn(usize, &[u8], &mut [A::Real]) + Sync,
) -> Result<()> {
    let (rows, stride) = stride(x, data, &bytes)?;
    let past = A::SAME && x.bytes() >= stream::LARGE;
    let x = Shared(x.slice_mut::<A>()?.as_mut_ptr());
    // SAFETY: as many bytes as were counted; codes of either sign are read as they lie.
    let data = unsafe { std::slice::from_raw_parts(data.as_ptr(), data.len()) };
    pool::run(rows.blocks(), rows.rows.saturating_mul(rows.len), |block| {
        let mut scratch = [A::Real::ZERO; CHUNK];
        rows.each(block, |row, from, to| {
            for at in (from..to).step_by(CHUNK) {
                let n = CHUNK.min(to - at);
                let codes = &data[row * stride + bytes(at)..row * stride + bytes(at + n)];
                // SAFETY: the numbers of this block, within the array.
                let y = unsafe { x.part(row * rows.len + at, n) };
                if A::SAME {
                    // SAFETY: the same type by the promise of `SAME`.
                    let y = unsafe { std::slice::from_raw_parts_mut(y.as_mut_ptr().cast(), n) };
                    if past {
                        f(row * rows.len + at, codes, &mut scratch[..n]);
                        stream::copy(&scratch[..n], y);
                    } else {
                        f(row * rows.len + at, codes, y);
                    }
                } else {
                    f(row * rows.len + at, codes, &mut scratch[..n]);
                    A::narrow(&scratch[..n], y);
                }
            }
        });
        if past {
            stream::fence();
        }
    })
}

/// Codes of numbers: `f(numbers, bytes)` for the pieces of all rows, and what the blocks gathered of it, joined by `join`.
pub fn to_bytes<A: Compute, G: Default + Send>(
    x: &Tensor,
    data: &Tensor,
    bytes: impl Fn(usize) -> usize + Sync,
    f: impl Fn(&[A::Real], &mut [u8]) -> G + Sync,
    join: impl Fn(G, G) -> G + Sync,
) -> Result<G> {
    let (rows, stride) = stride(x, data, &bytes)?;
    let (x, out) = (x.slice::<A>()?, Shared(data.slice_mut::<u8>()?.as_mut_ptr()));
    let found = pool::map(rows.blocks(), x.len(), |block| {
        let (mut scratch, mut all) = ([A::Real::ZERO; CHUNK], G::default());
        rows.each(block, |row, from, to| {
            for at in (from..to).step_by(CHUNK) {
                let n = CHUNK.min(to - at);
                A::widen(&x[row * rows.len + at..][..n], &mut scratch[..n]);
                // SAFETY: the bytes of this block: pieces are whole bytes, and no two of them share one.
                let out = unsafe { out.part(row * stride + bytes(at), bytes(at + n) - bytes(at)) };
                all = join(std::mem::take(&mut all), f(&scratch[..n], out));
            }
        });
        all
    })?;
    Ok(found.into_iter().fold(G::default(), join))
}
