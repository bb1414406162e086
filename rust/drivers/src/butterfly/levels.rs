//! Levels of the transform on memory in cache. The one rule: a level reads two elements and writes their sum and their
//! difference, lower index first.
//!
//! A pair of vectors is transformed over its own index bits by taking even and odd lanes, adding and subtracting: after
//! as many turns as the pair has index bits every lane is back in its place (Pease's constant geometry). The bits above
//! go by butterflies across up to sixteen vectors, as many as the registers hold.

use super::beside::Beside;
use super::{STRIP, paley};
use base::lane::{Lane, load, store};
use base::simd::*;

/// Vectors that a butterfly across vectors takes: what the registers hold.
#[inline(always)]
fn radix<S: Simd>() -> usize {
    if S::f32s::N >= 16 { 16 } else { 4 }
}

/// All levels inside consecutive pieces of `size`, a power of two: from an array of whole pieces into `y`. Memory's other
/// work goes on `beside`.
///
/// # Safety
/// `x` points to `y.len()` elements, the very memory of `y` or apart from it.
#[inline(always)]
pub unsafe fn pieces<S: Simd, L: Lane>(s: S, x: *const L, y: &mut [L], size: usize, scale: L, beside: &mut Beside<L>) {
    let pair = 2 * L::LANES;
    if size >= pair {
        for (i, piece) in y.chunks_exact_mut(size).enumerate() {
            // SAFETY: `x` has as many pieces.
            let done = unsafe {
                let x = x.add(i * size);
                if radix::<S>() == 16 {
                    head::<S, L, 16>(s, x, piece, beside)
                } else {
                    head::<S, L, 4>(s, x, piece, beside)
                }
            };
            across(s, piece, done, beside);
        }
    } else {
        // SAFETY: promised by the caller; copying memory onto itself is allowed.
        unsafe { std::ptr::copy(x, y.as_mut_ptr(), y.len()) };
        if size > 1 {
            packed(s, y, size);
        }
    }
    if scale != L::of(1.0) {
        for y in y {
            *y *= scale;
        }
    }
}

/// Pieces shorter than a pair of vectors, one pair after the other.
#[inline(always)]
fn packed<S: Simd, L: Lane>(s: S, x: &mut [L], size: usize) {
    let pair = 2 * L::LANES;
    let mut chunks = x.chunks_exact_mut(pair);
    for chunk in chunks.by_ref() {
        short(s, chunk, size);
    }
    let rest = chunks.into_remainder();
    let mut whole = [L::of(0.0); 32];
    whole[..rest.len()].copy_from_slice(rest);
    short(s, &mut whole[..pair], size);
    rest.copy_from_slice(&whole[..rest.len()]);
}

/// The levels inside a pair of vectors whose index bits are `bits` of all its bits; the other turns only rotate.
#[inline(always)]
fn turns<S: Simd, L: Lane>(a: L::V<S>, b: L::V<S>, bits: u32) -> (L::V<S>, L::V<S>) {
    let (mut a, mut b) = (a, b);
    for turn in 0..(2 * L::LANES).trailing_zeros() {
        let (even, odd) = a.deinterleave(b);
        (a, b) = if turn < bits { (even + odd, even - odd) } else { (even, odd) };
    }
    (a, b)
}

#[inline(always)]
fn short<S: Simd, L: Lane>(s: S, x: &mut [L], size: usize) {
    let (a, b) = (load::<S, L>(s, x), load::<S, L>(s, &x[L::LANES..]));
    let (a, b) = turns::<S, L>(a, b, size.trailing_zeros());
    store::<S, L>(a, x);
    store::<S, L>(b, &mut x[L::LANES..]);
}

/// The first levels of a piece, R vectors at a time or as many as it has. Returns the stride of the next level.
///
/// # Safety
/// As [`pieces`].
#[inline(always)]
unsafe fn head<S: Simd, L: Lane, const R: usize>(s: S, x: *const L, y: &mut [L], beside: &mut Beside<L>) -> usize {
    // SAFETY: as promised.
    unsafe {
        match y.len() / L::LANES {
            2 => group::<S, L, 2>(s, x, y, beside),
            4 => group::<S, L, 4>(s, x, y, beside),
            8 if R == 16 => group::<S, L, 8>(s, x, y, beside),
            _ => group::<S, L, R>(s, x, y, beside),
        }
    }
}

/// # Safety
/// As [`pieces`].
#[inline(always)]
unsafe fn group<S: Simd, L: Lane, const R: usize>(s: S, x: *const L, y: &mut [L], beside: &mut Beside<L>) -> usize {
    let many = R * L::LANES;
    for (i, y) in y.chunks_exact_mut(many).enumerate() {
        let mut v = [L::V::<S>::splat(s, L::of(0.0)); R];
        for r in 0..R {
            // SAFETY: `x` is as long as all of `y`; where they are one, these elements are read before any is written.
            let x = unsafe { std::slice::from_raw_parts(x.add(i * many + r * L::LANES), L::LANES) };
            v[r] = load::<S, L>(s, x);
        }
        for r in (0..R).step_by(2) {
            (v[r], v[r + 1]) = turns::<S, L>(v[r], v[r + 1], u32::MAX);
        }
        butterflies::<S, L, R>(&mut v, 1);
        for r in 0..R {
            store::<S, L>(v[r], &mut y[r * L::LANES..]);
        }
        beside.step(many);
    }
    many
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

/// The levels of strides `stride`, 2·stride, … of an array; `stride` is a multiple of the lanes.
#[inline(always)]
fn across<S: Simd, L: Lane>(s: S, x: &mut [L], mut stride: usize, beside: &mut Beside<L>) {
    while stride < x.len() {
        let left = x.len() / stride;
        let most = radix::<S>().min(left);
        // 32 and 64 go as 4·8 and 8·8: two even walks
        stride *= match if left == 32 {
            4
        } else if left == 64 {
            8
        } else {
            most
        }
        .min(most)
        {
            2 => level::<S, L, 2>(s, x, stride, beside),
            4 => level::<S, L, 4>(s, x, stride, beside),
            8 => level::<S, L, 8>(s, x, stride, beside),
            _ => level::<S, L, 16>(s, x, stride, beside),
        };
    }
}

#[inline(always)]
fn level<S: Simd, L: Lane, const R: usize>(s: S, x: &mut [L], stride: usize, beside: &mut Beside<L>) -> usize {
    for x in x.chunks_exact_mut(R * stride) {
        for at in (0..stride).step_by(L::LANES) {
            let mut v = [L::V::<S>::splat(s, L::of(0.0)); R];
            for r in 0..R {
                v[r] = load::<S, L>(s, &x[r * stride + at..]);
            }
            butterflies::<S, L, R>(&mut v, 0);
            for r in 0..R {
                store::<S, L>(v[r], &mut x[r * stride + at..]);
            }
            beside.step(R * L::LANES);
        }
    }
    R
}

/// `bits` levels across rows `stride` apart, on STRIP elements of each. They are copied aside first: with a stride that is
/// a power of two the rows would push each other out of the cache.
///
/// # Safety
/// STRIP elements at every `row + i·stride`, i < 2^bits, are ours alone; `aside` holds 2^bits·STRIP.
#[inline(always)]
pub unsafe fn strip<S: Simd, L: Lane>(s: S, row: *mut L, bits: u32, stride: usize, aside: &mut [L], scale: L) {
    let aside = &mut aside[..STRIP << bits];
    for (i, y) in aside.chunks_exact_mut(STRIP).enumerate() {
        // SAFETY: promised by the caller.
        y.copy_from_slice(unsafe { std::slice::from_raw_parts(row.add(i * stride), STRIP) });
    }
    across(s, aside, STRIP, &mut Beside::nothing());
    for (i, y) in aside.chunks_exact(STRIP).enumerate() {
        // SAFETY: promised by the caller.
        let x = unsafe { std::slice::from_raw_parts_mut(row.add(i * stride), STRIP) };
        for (x, &y) in x.iter_mut().zip(y) {
            *x = y * scale;
        }
    }
}

/// H_K across K rows `stride` apart, on `width` elements of each.
///
/// # Safety
/// `width` elements at every `row + i·stride`, i < k, are ours alone.
#[inline(always)]
pub unsafe fn mix<S: Simd, L: Lane>(s: S, row: *mut L, k: usize, stride: usize, width: usize, scale: L) {
    let signs = paley::signs(k);
    let mut v = [L::V::<S>::splat(s, L::of(0.0)); paley::MOST];
    let mut at = 0;
    while at < width {
        let lanes = L::LANES.min(width - at);
        for (c, v) in v[..k].iter_mut().enumerate() {
            // SAFETY: promised by the caller.
            let x = unsafe { std::slice::from_raw_parts(row.add(c * stride + at), lanes) };
            *v = if lanes == L::LANES {
                load::<S, L>(s, x)
            } else {
                let mut whole = [L::of(0.0); 16];
                whole[..lanes].copy_from_slice(x);
                load::<S, L>(s, &whole)
            };
        }
        for (r, signs) in signs.chunks_exact(k).enumerate() {
            let mut sum = v[0] * L::of(signs[0].into());
            for c in 1..k {
                // a product with ±1 is exact: fused or not, the same bits
                sum = v[c].mul_add(L::V::<S>::splat(s, L::of(signs[c].into())), sum);
            }
            let sum = sum * scale;
            // SAFETY: promised by the caller.
            let y = unsafe { std::slice::from_raw_parts_mut(row.add(r * stride + at), lanes) };
            y.copy_from_slice(&sum.as_slice()[..lanes]);
        }
        at += lanes;
    }
}
