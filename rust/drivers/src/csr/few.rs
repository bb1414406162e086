//! Sparse times a few vectors, `y = A x + b`, for x that lie as rows. The one rule: a row of A is one chain of fused
//! multiply-adds in ascending column order, so that the bits are those of [`super::spmm`].
//!
//! Four of sixteen rows have their sums in registers, for sixteen entries each. The vectors lie side by side, so that an entry
//! reads what it needs of all at once: eight cost hardly more than one. The values of the next sixteen rows are fetched while
//! these are multiplied. No instruction that gathers is used: where it is slow it is slower than single loads, and where it is
//! fast hardly faster. One vector of f32 goes another way with AVX2, [`super::one`].

use super::lanes::{ACROSS, Lanes, Lined, Place, STEPS, Value};
use super::raced;
use base::pool::{self, Shared};
use base::vector::{Float, Isa, Set};
use base::{Element, Error, Result, fetch, try_vec};
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows whose sums are in registers together.
const HELD: usize = 4;
/// Bytes of the numbers that an entry is multiplied with at once.
const WIDEST: usize = 64;
/// How far ahead columns are fetched, in elements.
const AHEAD: usize = 4096;
/// Entries in one task, about.
const TASK: usize = 1 << 15;

/// Sixteen rows or fewer, the longest first.
pub struct Chunk<'a, T, V, P> {
    pub(super) data: &'a [V],
    /// Their columns, and whatever follows.
    pub(super) places: &'a [P],
    /// Where the values of each begin, and how many there are.
    pub(super) starts: [usize; ACROSS],
    pub(super) lengths: [usize; ACROSS],
    /// Where those of the next sixteen begin.
    pub(super) next: [usize; ACROSS],
    /// `cols` numbers of each vector, side by side.
    pub(super) x: &'a [T],
    pub(super) cols: usize,
}

/// Adds the entries of a chunk to the sums of `R` vectors; false if a column was outside.
///
/// # Safety
/// `x` has `R` numbers for each of `cols` columns, where there are entries `1 <= cols < 2^32`, and the values of every row are
/// within `data`.
#[inline(always)]
unsafe fn chunk<T: Float, V: Value<T>, P: Place, const R: usize>(
    c: &Chunk<T, V, P>,
    sums: &mut [[T; R]; ACROSS],
) -> bool {
    let common = c.lengths[ACROSS - 1];
    let (last, mut most) = (c.cols.wrapping_sub(1) as u32, 0);
    let (mut places, mut columns) = (c.places, [0_u32; STEPS * ACROSS]);
    for at in (0..common).step_by(STEPS) {
        let steps = STEPS.min(common - at);
        let (these, rest) = places.split_at(steps * ACROSS);
        for i in (0..steps * ACROSS).step_by(WIDEST / size_of::<P>()) {
            fetch(these.as_ptr().wrapping_add(AHEAD + i));
        }
        // read once, and in bounds from here on
        for (column, place) in columns.iter_mut().zip(these) {
            let k = place.column();
            most = most.max(k);
            *column = k.min(last);
        }
        // SAFETY: the caller's promise, and `steps` entries from `at` on are of every row; columns are at most the last.
        unsafe {
            if steps == STEPS {
                part(c, at, STEPS, &columns, sums); // of a known length, so that it is unrolled
            } else {
                part(c, at, steps, &columns, sums);
            }
        }
        places = rest;
    }
    (common == 0 || most <= last) && ended(c, places, sums)
}

/// Adds the entries that not all rows of a chunk have.
#[inline(always)]
pub(super) fn ended<T: Float, V: Value<T>, P: Place, const R: usize>(
    c: &Chunk<T, V, P>,
    places: &[P],
    sums: &mut [[T; R]],
) -> bool {
    let mut places = places.iter();
    for t in c.lengths[ACROSS - 1]..c.lengths[0] {
        for l in (0..ACROSS).take_while(|&l| t < c.lengths[l]) {
            let Some(k) = places.next().map(|p| p.column() as usize).filter(|&k| k < c.cols) else {
                return false;
            };
            let w = c.data[c.starts[l] + t].wide();
            for (sum, &x) in sums[l].iter_mut().zip(&c.x[k * R..][..R]) {
                *sum = w.fused(x, *sum);
            }
        }
    }
    true
}

/// Adds `steps` entries of each row.
///
/// # Safety
/// As above.
#[inline(always)]
unsafe fn part<T: Float, V: Value<T>, P, const R: usize>(
    c: &Chunk<T, V, P>,
    at: usize,
    steps: usize,
    columns: &[u32; STEPS * ACROSS],
    sums: &mut [[T; R]; ACROSS],
) {
    let (data, x) = (c.data.as_ptr(), c.x.as_ptr());
    for first in (0..ACROSS).step_by(HELD) {
        let (mut held, mut from) = ([[T::default(); R]; HELD], [std::ptr::null(); HELD]);
        let mut room = [[T::default(); STEPS]; HELD];
        for (l, room) in room.iter_mut().enumerate() {
            held[l] = sums[first + l];
            // SAFETY: the caller's promise.
            from[l] = unsafe { V::ready(data.wrapping_add(c.starts[first + l] + at), steps, room) };
            fetch(data.wrapping_add(c.next[first + l] + at));
        }
        for t in 0..steps {
            for l in 0..HELD {
                // SAFETY: the caller's promise.
                unsafe {
                    let (w, k) = (*from[l].add(t), columns[t * ACROSS + first + l] as usize);
                    for (j, sum) in held[l].iter_mut().enumerate() {
                        *sum = w.fused(*x.add(k * R + j), *sum);
                    }
                }
            }
        }
        sums[first..first + HELD].copy_from_slice(&held);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<T: Float, V: Value<T>, P: Place, const R: usize>(
    c: &Chunk<T, V, P>,
    sums: &mut [[T; R]; ACROSS],
) -> bool {
    // SAFETY: the instruction set is this function's, the rest is the caller's promise.
    unsafe { chunk(c, sums) }
}

impl<V: Element, P: Place> Lined<'_, V, P> {
    /// Chunk number `c`.
    fn at<'x, T>(&'x self, c: usize, x: &'x [T]) -> Chunk<'x, T, V, P> {
        let (mut starts, mut lengths, mut next) = ([0; ACROSS], [0; ACROSS], [0; ACROSS]);
        for (l, &row) in self.rows[c * ACROSS..].iter().take(2 * ACROSS).enumerate() {
            if l < ACROSS {
                (starts[l], lengths[l]) = (self.ptr[row], self.ptr[row + 1] - self.ptr[row]);
            } else {
                next[l - ACROSS] = self.ptr[row];
            }
        }
        let places = &self.places[self.starts[c]..];
        Chunk { data: self.data, places, starts, lengths, next, x, cols: self.cols }
    }

    /// `y[b] = A x[b] + bias`: x is [batch, cols], y [batch, rows].
    pub fn product<T: Lanes>(&self, x: &[T], bias: Option<&[T]>, y: &mut [T]) -> Result<()>
    where
        V: Value<T>,
    {
        let (m, cols) = (self.rows.len(), self.cols);
        if m == 0 {
            return Ok(());
        }
        let batch = y.len() / m;
        if y.len() != batch * m || x.len() != batch * cols || bias.is_some_and(|b| b.len() != m) {
            return Err(Error::Value(format!("{} numbers of x and {} of y for {m} rows of {cols}", x.len(), y.len())));
        }
        let (mut y, mut first) = (y, 0);
        while first < batch {
            let some = (batch - first).min(WIDEST / size_of::<T>());
            let (these, rest) = y.split_at_mut(some * m);
            let x = &x[first * cols..][..some * cols];
            match some {
                1 => self.some::<T, 1>(x, bias, these),
                2 => self.some::<T, 2>(x, bias, these),
                3..=4 => self.some::<T, 4>(x, bias, these),
                5..=8 => self.some::<T, 8>(x, bias, these),
                _ => self.some::<T, 16>(x, bias, these),
            }?;
            (y, first) = (rest, first + some);
        }
        Ok(())
    }

    /// As [`Lined::product`], of up to `R` vectors.
    fn some<T: Lanes, const R: usize>(&self, x: &[T], bias: Option<&[T]>, y: &mut [T]) -> Result<()>
    where
        V: Value<T>,
    {
        let (m, cols) = (self.rows.len(), self.cols);
        let batch = y.len() / m;
        let held = if R == 1 { Vec::new() } else { beside::<T, R>(x, cols)? };
        let x = if R == 1 { x } else { &held };
        assert!(x.len() == R * cols);
        let (isa, chunks) = (Isa::current(), m.div_ceil(ACROSS));
        let each = (TASK * chunks / self.data.len().max(1)).clamp(1, chunks);
        let (out, wrong) = (Shared(y.as_mut_ptr()), AtomicBool::new(false));
        let work = (self.data.len() + m).saturating_mul(batch);
        pool::run(chunks.div_ceil(each), work, |task| {
            for c in task * each..chunks.min((task + 1) * each) {
                let rows = &self.rows[c * ACROSS..m.min((c + 1) * ACROSS)];
                let mut sums = [[T::default(); R]; ACROSS];
                if let Some(bias) = bias {
                    for (sums, &row) in sums.iter_mut().zip(rows) {
                        *sums = [bias[row]; R];
                    }
                }
                let these = self.at(c, x);
                // SAFETY: x was just measured, where entries are there are columns, fewer than 2^31, the rows lie within `data`;
                // an `Isa` was made after the machine was asked.
                let done = unsafe {
                    match isa.0 {
                        Set::Generic => chunk(&these, &mut sums),
                        #[cfg(target_arch = "x86_64")]
                        Set::Avx2 | Set::Avx512 => {
                            // turning codes takes longer than it saves
                            let one = if R == 1 && V::PLAIN { T::one(&these, sums.as_flattened_mut()) } else { None };
                            one.unwrap_or_else(|| avx2(&these, &mut sums))
                        }
                    }
                };
                if !done {
                    wrong.store(true, Ordering::Relaxed);
                    return;
                }
                for r in 0..batch {
                    for (sums, &row) in sums.iter().zip(rows) {
                        // SAFETY: a row of y below `m`, which this chunk alone has: rows come once each.
                        unsafe { *out.at(r * m + row) = sums[r] };
                    }
                }
            }
        })?;
        if wrong.into_inner() { Err(raced()) } else { Ok(()) }
    }
}

/// Up to `R` vectors side by side, zeros where there are none.
fn beside<T: Lanes, const R: usize>(x: &[T], cols: usize) -> Result<Vec<T>> {
    let mut held = try_vec(R * cols, T::default())?;
    for (r, x) in x.chunks_exact(cols.max(1)).enumerate() {
        for (to, &x) in held.chunks_exact_mut(R).zip(x) {
            to[r] = x;
        }
    }
    Ok(held)
}
