//! Sums of many terms. The one rule: f32 terms add up in f64, f64 terms in pairs of numbers, so that a sum of n terms is
//! off by a few ulp of the sum of their sizes, whatever n.
//!
//! A state is sixteen f64 for every vector of the type: for f32 the sixteen lanes, for f64 eight sums and their eight
//! rounding errors (TwoSum, Knuth).

use base::lane::{Lane, load};
use base::simd::*;

/// Numbers of state for one vector.
pub const STATE: usize = 16;
/// Terms that f64 adds plainly before it keeps the rounding error.
const RUN: usize = 16;

pub trait Sum: Lane {
    /// Adds a vector to its state.
    fn keep<S: Simd>(s: S, v: Self::V<S>, state: &mut [f64]);
    /// Adds the rows `plus` of a tile and subtracts the rows `minus`; a row is `VECTORS` vectors, its states lie in order.
    ///
    /// # Safety
    /// Every index is of a row of the tile.
    unsafe fn gather<S: Simd>(s: S, tile: &[Self], plus: &[u16], minus: &[u16], state: &mut [f64]);
    /// The sum, times a scale, rounded.
    fn total<S: Simd>(s: S, state: &[f64], scale: f64) -> Self::V<S>;
}

/// Rows of x that go through a tile together: the length of the tile's rows.
pub const TILE: usize = 16;

impl Sum for f32 {
    #[inline(always)]
    fn keep<S: Simd>(s: S, v: f32x16<S>, state: &mut [f64]) {
        let (a, b) = v.widen();
        (load::<S, f64>(s, state) + a).store_slice(&mut state[..8]);
        (load::<S, f64>(s, &state[8..]) + b).store_slice(&mut state[8..STATE]);
    }

    #[inline(always)]
    unsafe fn gather<S: Simd>(s: S, tile: &[f32], plus: &[u16], minus: &[u16], state: &mut [f64]) {
        let zero = f64x8::splat(s, 0.0);
        let (mut a, mut b, mut c, mut d) = (load::<S, f64>(s, state), load::<S, f64>(s, &state[8..]), zero, zero);
        for &i in plus {
            // SAFETY: promised by the caller.
            let (lo, hi) = unsafe { row::<S, f32>(s, tile, usize::from(i) * TILE) }.widen();
            (a, b) = (a + lo, b + hi);
        }
        for &i in minus {
            // SAFETY: promised by the caller.
            let (lo, hi) = unsafe { row::<S, f32>(s, tile, usize::from(i) * TILE) }.widen();
            (c, d) = (c + lo, d + hi);
        }
        (a - c).store_slice(&mut state[..8]);
        (b - d).store_slice(&mut state[8..STATE]);
    }

    #[inline(always)]
    fn total<S: Simd>(s: S, state: &[f64], scale: f64) -> f32x16<S> {
        (load::<S, f64>(s, state) * scale).narrow(load::<S, f64>(s, &state[8..]) * scale)
    }
}

impl Sum for f64 {
    #[inline(always)]
    fn keep<S: Simd>(s: S, v: f64x8<S>, state: &mut [f64]) {
        let (sum, e) = two_sum(load::<S, f64>(s, state), v);
        sum.store_slice(&mut state[..8]);
        (load::<S, f64>(s, &state[8..]) + e).store_slice(&mut state[8..STATE]);
    }

    #[inline(always)]
    unsafe fn gather<S: Simd>(s: S, tile: &[f64], plus: &[u16], minus: &[u16], state: &mut [f64]) {
        let (low, high) = state.split_at_mut(STATE);
        let (mut plus, mut minus) = (plus.chunks(RUN), minus.chunks(RUN));
        loop {
            let (p, m) = (plus.next(), minus.next());
            if p.is_none() && m.is_none() {
                break;
            }
            let zero = f64x8::splat(s, 0.0);
            let (mut a, mut b, mut c, mut d) = (zero, zero, zero, zero);
            for &i in p.unwrap_or_default() {
                let at = usize::from(i) * TILE;
                // SAFETY: promised by the caller.
                unsafe { (a, b) = (a + row::<S, f64>(s, tile, at), b + row::<S, f64>(s, tile, at + 8)) };
            }
            for &i in m.unwrap_or_default() {
                let at = usize::from(i) * TILE;
                // SAFETY: promised by the caller.
                unsafe { (c, d) = (c + row::<S, f64>(s, tile, at), d + row::<S, f64>(s, tile, at + 8)) };
            }
            Self::keep(s, a - c, low);
            Self::keep(s, b - d, high);
        }
    }

    #[inline(always)]
    fn total<S: Simd>(s: S, state: &[f64], scale: f64) -> f64x8<S> {
        let (sum, e) = (load::<S, f64>(s, state), load::<S, f64>(s, &state[8..]));
        let total = sum + e;
        // an infinite sum has errors that are not numbers
        e.simd_eq(e).select(total, sum) * scale
    }
}

/// # Safety
/// `at + LANES` elements are there.
#[inline(always)]
unsafe fn row<S: Simd, L: Lane>(s: S, tile: &[L], at: usize) -> L::V<S> {
    debug_assert!(at + L::LANES <= tile.len());
    // SAFETY: promised by the caller.
    L::V::<S>::from_slice(s, unsafe { tile.get_unchecked(at..at + L::LANES) })
}
