//! Rows packed for the tiles: eight at a time, features first. The one rule: what is past the last row or the last
//! feature is zero, so that no tile needs to know the end.

use base::Element;
use base::simd::*;
use base::store::{Bf16, F16, STEP, Store};
use std::ops::Range;

/// Rows in a panel: the lanes of a vector.
pub const PANEL: usize = 8;

/// Features packed at once.
pub const DEPTH: usize = 128;
/// Eight rows on their way into a panel.
pub type Lines = [[f64; DEPTH]; PANEL];

/// Elements are numbers, held as f64.
pub struct Real;
/// Elements are words of 64 bits, held as they are in lanes of f64.
pub struct Bits;

/// What a row may consist of.
pub trait Item: Element + Default {
    type Class;
    /// The first 16 elements, in lanes.
    fn take16<S: Simd>(s: S, x: &[Self]) -> [f64x8<S>; 2];
    /// At most 16 elements, zeros after them.
    fn take_tail<S: Simd>(s: S, x: &[Self]) -> [f64x8<S>; 2];
    /// The elements as they are, where they are words.
    fn words(_: &[Self]) -> &[u64] {
        &[]
    }
}

macro_rules! numbers { ($($t:ty),*) => { $(
    impl Item for $t {
        type Class = Real;
        #[inline(always)]
        fn take16<S: Simd>(s: S, x: &[$t]) -> [f64x8<S>; 2] {
            <$t>::load16(s, x)
        }
        #[inline(always)]
        fn take_tail<S: Simd>(s: S, x: &[$t]) -> [f64x8<S>; 2] {
            <$t>::load_tail(s, x)
        }
    }
)* } }
numbers!(f64, f32, F16, Bf16);

/// The float types.
pub trait Number: Store + Item<Class = Real> {}
impl<T: Store + Item<Class = Real>> Number for T {}

impl Item for u64 {
    type Class = Bits;
    #[inline(always)]
    fn take16<S: Simd>(s: S, x: &[u64]) -> [f64x8<S>; 2] {
        [u64x8::from_slice(s, &x[..8]).bitcast(), u64x8::from_slice(s, &x[8..16]).bitcast()]
    }
    #[inline(always)]
    fn take_tail<S: Simd>(s: S, x: &[u64]) -> [f64x8<S>; 2] {
        let mut whole = [0; STEP];
        whole[..x.len()].copy_from_slice(x);
        Self::take16(s, &whole)
    }
    fn words(x: &[u64]) -> &[u64] {
        x
    }
}

/// Packs features `k..k + depth` of rows `rows` of `x[.., d]` into `out`: panel by panel, each `depth` (rounded up to
/// 16) × 8. A function of its own at every level.
pub fn pack<S: Simd, T: Item>(
    s: S,
    x: &[T],
    d: usize,
    rows: Range<usize>,
    k: usize,
    depth: usize,
    lines: &mut Lines,
    out: &mut [f64],
) {
    s.vectorize(
        #[inline(always)]
        || {
            let size = PANEL * depth.next_multiple_of(STEP);
            for (first, out) in rows.clone().step_by(PANEL).zip(out.chunks_exact_mut(size)) {
                // a row at a time, as memory likes it, then eight rows at once
                for (row, line) in lines.iter_mut().enumerate() {
                    if first + row < rows.end {
                        let x = &x[(first + row) * d + k..][..depth];
                        for (x, line) in x.chunks(STEP).zip(line.chunks_exact_mut(STEP)) {
                            let v = if x.len() == STEP { T::take16(s, x) } else { T::take_tail(s, x) };
                            f64::store16(s, v, line);
                        }
                    } else {
                        line.fill(0.0);
                    }
                }
                for (at, out) in (0..depth).step_by(PANEL).zip(out.chunks_exact_mut(PANEL * PANEL)) {
                    let eight = std::array::from_fn(
                        #[inline(always)]
                        |row| f64x8::from_slice(s, &lines[row][at..at + PANEL]),
                    );
                    for (v, out) in transpose(eight).into_iter().zip(out.chunks_exact_mut(PANEL)) {
                        v.store_slice(out);
                    }
                }
            }
        },
    );
}

/// Three perfect shuffles turn rows into columns.
#[inline(always)]
pub fn transpose<S: Simd>(mut v: [f64x8<S>; PANEL]) -> [f64x8<S>; PANEL] {
    for _ in 0..3 {
        let old = v;
        for i in 0..PANEL / 2 {
            (v[2 * i], v[2 * i + 1]) = old[i].interleave(old[i + PANEL / 2]);
        }
    }
    v
}

/// At most 8 numbers, zeros after them.
#[inline(always)]
pub fn padded<S: Simd>(s: S, x: &[f64]) -> f64x8<S> {
    if x.len() == PANEL {
        return f64x8::from_slice(s, x);
    }
    let mut whole = [0.0; PANEL];
    for (w, &x) in whole.iter_mut().zip(x) {
        *w = x;
    }
    whole.simd_into(s)
}
