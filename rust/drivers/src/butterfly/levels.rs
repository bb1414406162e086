//! Levels of the transform on rows of memory. The one rule: a level reads two elements and writes their sum and their
//! difference, lower index first.
//!
//! A step takes as many levels as the registers hold vectors. Between steps across rows the numbers lie aside, in cache and
//! without the stride of the rows, which is a power of two and would push them out of it.

use super::beside::Beside;
use super::finish::Finish;
use super::lanes::inside;
use super::lines::Lines;
use base::lane::{Lane, load, store};
use base::simd::*;

/// Bits of the vectors that a step across vectors takes: what the registers hold.
#[inline(always)]
const fn most<S: Simd>() -> u32 {
    if S::f32s::N >= 16 { 4 } else { 2 }
}

/// All levels of one row of at least two vectors, which lies in `room` between the steps: that may be `x`, or `y`.
///
/// # Safety
/// Each is `size` numbers.
#[inline(always)]
pub unsafe fn piece<S: Simd, L: Lane>(
    s: S,
    x: *const L,
    room: *mut L,
    y: *mut L,
    size: usize,
    f: Finish,
    beside: &mut Beside,
) {
    let vectors = size / L::LANES;
    let head = most::<S>().min(vectors.trailing_zeros());
    let width = L::LANES << head;
    let bits = (vectors >> head).trailing_zeros();
    let (to, now) = if bits == 0 { (y, f) } else { (room, Finish::NONE) };
    // SAFETY: as promised.
    unsafe {
        first(s, x, to, size, head, now, beside);
        if bits > 0 {
            let room = Lines::whole(room, width);
            across(s, room, Lines::whole(y, width), bits, width, f, beside);
        }
    }
}

/// The levels of `bits` bits of the row index, on `width` numbers of each row, a multiple of the lanes. Between steps the
/// numbers lie where they came from.
///
/// # Safety
/// The rows of `from` and `to` are such memory.
#[inline(always)]
pub unsafe fn across<S: Simd, L: Lane>(
    s: S,
    from: Lines<L>,
    to: Lines<L>,
    bits: u32,
    width: usize,
    f: Finish,
    beside: &mut Beside,
) {
    let steps = bits.div_ceil(most::<S>());
    let mut done = 0;
    for left in (1..=steps).rev() {
        let now = (bits - done).div_ceil(left);
        // one call for all steps: it is compiled into its place
        let (to, f) = if left > 1 { (&from, Finish::NONE) } else { (&to, f) };
        // SAFETY: as promised.
        unsafe { step(s, &from, to, 1 << bits, done, now, width, f, beside) };
        done += now;
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
    f: Finish,
    beside: &mut Beside,
) {
    // SAFETY: as promised.
    unsafe {
        match bits {
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
    f: Finish,
    beside: &mut Beside,
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
                f.all::<S, L, R>(s, &mut v);
                for r in 0..R {
                    // SAFETY: promised by the caller.
                    store::<S, L>(v[r], unsafe { std::slice::from_raw_parts_mut(to[r].add(at), L::LANES) });
                }
                beside.step(R * 64);
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
    f: Finish,
    beside: &mut Beside,
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
    f: Finish,
    beside: &mut Beside,
) {
    for at in (0..size).step_by(R * L::LANES) {
        let mut v = [L::V::<S>::splat(s, L::of(0.0)); R];
        for r in 0..R {
            // SAFETY: `x` has `size` elements; where it is `y`, these are read before any is written.
            v[r] = load::<S, L>(s, unsafe { std::slice::from_raw_parts(x.add(at + r * L::LANES), L::LANES) });
        }
        let done = inside::<S, L, R>(&mut v);
        butterflies::<S, L, R>(&mut v, done);
        f.all::<S, L, R>(s, &mut v);
        for r in 0..R {
            // SAFETY: as many elements.
            store::<S, L>(v[r], unsafe { std::slice::from_raw_parts_mut(y.add(at + r * L::LANES), L::LANES) });
        }
        beside.step(R * 64);
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
