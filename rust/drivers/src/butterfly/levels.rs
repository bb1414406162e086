//! Levels of the transform on rows of memory. The one rule: a level reads two elements and writes their sum and their
//! difference, lower index first.
//!
//! A step takes as many levels as the registers hold vectors. Between steps across rows the numbers lie aside, in cache and
//! without the stride of the rows, which is a power of two and would push them out of it.

use super::beside::Beside;
use super::finish::{Finish, Kept};
use super::lanes::{inside, packed};
use super::lines::Lines;
use base::lane::{Lane, load};
use base::simd::*;

/// Bits of the vectors that a step across vectors takes: what the registers hold.
#[inline(always)]
const fn most<S: Simd>() -> u32 {
    if S::f32s::N >= 16 { 4 } else { 2 }
}

/// All levels of consecutive rows of `size`, a power of two, from `x` into `y`, which may be one. Memory's other work goes on
/// `beside`.
///
/// # Safety
/// Both are `len` elements, which are whole rows.
#[inline(always)]
pub unsafe fn pieces<S: Simd, L: Lane>(
    s: S,
    x: *const L,
    y: *mut L,
    len: usize,
    size: usize,
    f: impl Finish<L>,
    beside: &mut Beside<L>,
) {
    // SAFETY: as promised, offsets stay inside.
    unsafe {
        if size >= 2 * L::LANES {
            for at in (0..len).step_by(size) {
                piece(s, x.add(at), y.add(at), size, f, beside);
            }
        } else {
            // copying memory onto itself is allowed
            std::ptr::copy(x, y, len);
            let y = std::slice::from_raw_parts_mut(y, len);
            if size > 1 {
                packed(s, y, size);
            }
            for y in y {
                *y = f.one(*y);
            }
        }
    }
}

/// All levels of one row of at least two vectors.
///
/// # Safety
/// As [`pieces`].
#[inline(always)]
pub unsafe fn piece<S: Simd, L: Lane>(
    s: S,
    x: *const L,
    y: *mut L,
    size: usize,
    f: impl Finish<L>,
    beside: &mut Beside<L>,
) {
    let vectors = size / L::LANES;
    let head = most::<S>().min(vectors.trailing_zeros());
    let width = L::LANES << head;
    let bits = (vectors >> head).trailing_zeros();
    // SAFETY: as promised.
    unsafe {
        if bits == 0 {
            return first(s, x, y, size, head, f, beside);
        }
        first(s, x, y, size, head, Kept, beside);
        let y = Lines::whole(y, width);
        across(s, y, y, y, bits, width, f, beside);
    }
}

/// The levels of `bits` bits of the row index, on `width` elements of each row, a multiple of the lanes.
///
/// # Safety
/// The rows of `from` and `to` are such memory, and so are those of `aside` where there is more than one step.
#[inline(always)]
pub unsafe fn across<S: Simd, L: Lane>(
    s: S,
    from: Lines<L>,
    aside: Lines<L>,
    to: Lines<L>,
    bits: u32,
    width: usize,
    f: impl Finish<L>,
    beside: &mut Beside<L>,
) {
    let steps = bits.div_ceil(most::<S>()).max(1);
    let (rows, mut from, mut done) = (1 << bits, from, 0);
    // SAFETY: as promised.
    unsafe {
        for left in (1..=steps).rev() {
            let now = (bits - done).div_ceil(left);
            if left > 1 {
                step(s, &from, &aside, rows, done, now, width, Kept, beside);
            } else {
                step(s, &from, &to, rows, done, now, width, f, beside);
            }
            (from, done) = (aside, done + now);
        }
    }
}

#[inline(always)]
unsafe fn step<S: Simd, L: Lane>(
    s: S,
    from: &Lines<L>,
    to: &Lines<L>,
    rows: usize,
    done: u32,
    bits: u32,
    width: usize,
    f: impl Finish<L>,
    beside: &mut Beside<L>,
) {
    // SAFETY: as promised.
    unsafe {
        match bits {
            0 => level::<S, L, 1>(s, from, to, rows, 1 << done, width, f, beside),
            1 => level::<S, L, 2>(s, from, to, rows, 1 << done, width, f, beside),
            2 => level::<S, L, 4>(s, from, to, rows, 1 << done, width, f, beside),
            3 if const { most::<S>() > 2 } => level::<S, L, 8>(s, from, to, rows, 1 << done, width, f, beside),
            _ if const { most::<S>() > 2 } => level::<S, L, 16>(s, from, to, rows, 1 << done, width, f, beside),
            _ => unreachable!("a step takes as many levels as the registers hold"),
        }
    }
}

/// R rows `h` apart at a time.
#[inline(always)]
unsafe fn level<S: Simd, L: Lane, const R: usize>(
    s: S,
    from: &Lines<L>,
    to: &Lines<L>,
    rows: usize,
    h: usize,
    width: usize,
    f: impl Finish<L>,
    beside: &mut Beside<L>,
) {
    for high in (0..rows).step_by(R * h) {
        for low in high..high + h {
            let from: [*const L; R] = std::array::from_fn(
                #[inline(always)]
                |r| from.row(low + r * h).cast_const(),
            );
            let to: [*mut L; R] = std::array::from_fn(
                #[inline(always)]
                |r| to.row(low + r * h),
            );
            for at in (0..width).step_by(L::LANES) {
                let mut v = [L::V::<S>::splat(s, L::of(0.0)); R];
                for r in 0..R {
                    // SAFETY: promised by the caller.
                    v[r] = load::<S, L>(s, unsafe { std::slice::from_raw_parts(from[r].add(at), L::LANES) });
                }
                butterflies::<S, L, R>(&mut v, 0);
                for r in 0..R {
                    // SAFETY: promised by the caller.
                    f.put(s, v[r], unsafe { std::slice::from_raw_parts_mut(to[r].add(at), L::LANES) });
                }
                beside.step(R * L::LANES);
            }
        }
    }
}

/// The levels inside 2^head vectors, and so on to the end of the row.
#[inline(always)]
unsafe fn first<S: Simd, L: Lane>(
    s: S,
    x: *const L,
    y: *mut L,
    size: usize,
    head: u32,
    f: impl Finish<L>,
    beside: &mut Beside<L>,
) {
    // SAFETY: as promised.
    unsafe {
        match head {
            1 => group::<S, L, 2>(s, x, y, size, f, beside),
            2 => group::<S, L, 4>(s, x, y, size, f, beside),
            3 if const { most::<S>() > 2 } => group::<S, L, 8>(s, x, y, size, f, beside),
            _ if const { most::<S>() > 2 } => group::<S, L, 16>(s, x, y, size, f, beside),
            _ => unreachable!("a step takes as many levels as the registers hold"),
        }
    }
}

#[inline(always)]
unsafe fn group<S: Simd, L: Lane, const R: usize>(
    s: S,
    x: *const L,
    y: *mut L,
    size: usize,
    f: impl Finish<L>,
    beside: &mut Beside<L>,
) {
    for at in (0..size).step_by(R * L::LANES) {
        let mut v = [L::V::<S>::splat(s, L::of(0.0)); R];
        for r in 0..R {
            // SAFETY: `x` has `size` elements; where it is `y`, these are read before any is written.
            v[r] = load::<S, L>(s, unsafe { std::slice::from_raw_parts(x.add(at + r * L::LANES), L::LANES) });
        }
        let done = inside::<S, L, R>(&mut v);
        butterflies::<S, L, R>(&mut v, done);
        for r in 0..R {
            // SAFETY: as many elements.
            f.put(s, v[r], unsafe { std::slice::from_raw_parts_mut(y.add(at + r * L::LANES), L::LANES) });
        }
        beside.step(R * L::LANES);
    }
}

/// The levels of the vector index from bit `from` on.
#[inline(always)]
fn butterflies<S: Simd, L: Lane, const R: usize>(v: &mut [L::V<S>; R], from: u32) {
    for bit in from..R.trailing_zeros() {
        for i in 0..R {
            let j = i | 1 << bit;
            if i != j {
                (v[i], v[j]) = (v[i] + v[j], v[i] - v[j]);
            }
        }
    }
}
