//! What a tile is made of, in vectors. The one rule: whether anything is to be refused comes with what was read, and where it is is
//! asked afterwards.

use base::ahead::fetch;
use base::simd::*;
use base::store::{STEP, Store};

/// What is looked at together.
pub const TILE: usize = 512;

/// Asks for what lies `n` further, where the next tile is read from: it begins where no machine expects it.
#[inline(always)]
fn next<T>(x: &[T], n: usize) {
    for line in x.chunks((64 / size_of::<T>()).max(1)) {
        fetch(line.as_ptr().wrapping_add(n));
    }
}

/// Targets as they are, and whether one of them is no class.
pub struct Targets<'a, I> {
    pub from: &'a [I],
    pub y: &'a mut [i64],
    pub classes: i64,
}

impl<I: Copy + Into<i64>> Kernel for Targets<'_, I> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        let mut off = 0i64;
        for (y, from) in self.y.chunks_mut(STEP).zip(self.from.chunks(STEP)) {
            next(from, self.from.len());
            for (y, v) in y.iter_mut().zip(from) {
                *y = (*v).into();
                // what is below 0, and what is not below the number of classes, have a sign
                off |= *y | (self.classes - 1).wrapping_sub(*y);
            }
        }
        off < 0
    }
}

/// Whether each class was the target.
pub struct Hits<'a> {
    pub y: &'a [i64],
    pub class: &'a [u32],
    pub hit: &'a mut [f64],
}

impl Kernel for Hits<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for ((hit, y), class) in self.hit.iter_mut().zip(self.y).zip(self.class) {
            *hit = if *y == i64::from(*class) { 1.0 } else { 0.0 };
        }
    }
}

/// Numbers in float64, and whether all lie within 0 and 1.
#[inline(always)]
fn widen<S: Simd, T: Store>(s: S, x: &[T], p: &mut [f64]) -> bool {
    let mut off = 0u64;
    let n = x.len();
    for (x, p) in x.chunks(STEP).zip(p.chunks_mut(STEP)) {
        next(x, n);
        if x.len() == STEP {
            let [a, b] = T::load16(s, x);
            p[..8].copy_from_slice(a.as_slice());
            p[8..].copy_from_slice(b.as_slice());
        } else {
            p.iter_mut().zip(x).for_each(|(p, x)| *p = x.to_f64());
        }
    }
    for p in p {
        off |= u64::from(!((*p >= 0.0) & (*p <= 1.0)));
    }
    off == 0
}

/// Numbers in float64, and whether all lie within 0 and 1.
pub struct Read<'a, T> {
    pub x: &'a [T],
    pub p: &'a mut [f64],
}

impl<T: Store> Kernel for Read<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        widen(s, self.x, self.p)
    }
}

/// The largest of each row, which of the row it is, and whether all lie within 0 and 1.
pub struct Top<'a, T> {
    pub x: &'a [T],
    pub p: &'a mut [f64],
    pub class: &'a mut [u32],
}

/// Classes that are compared one by one, of rows side by side.
const SHORT: usize = 48;

impl<T: Store> Kernel for Top<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let Top { x, p, class } = self;
        let k = x.len() / p.len().max(1);
        if k <= SHORT {
            let (rows, mut wide, mut fine) = (TILE / k, [0.0; TILE], true);
            for ((x, p), class) in x.chunks(rows * k).zip(p.chunks_mut(rows)).zip(class.chunks_mut(rows)) {
                let wide = &mut wide[..x.len()];
                fine &= widen(s, x, wide);
                for ((row, p), class) in wide.chunks_exact(k).zip(p).zip(class) {
                    let (mut most, mut at) = (row[0], 0);
                    for (i, &v) in row.iter().enumerate().skip(1) {
                        let more = v > most;
                        most = if more { v } else { most };
                        at = if more { i as u32 } else { at };
                    }
                    (*p, *class) = (most, at);
                }
            }
            return fine;
        }
        let mut fine = f64x8::splat(s, 0.0).simd_eq(0.0);
        for ((x, p), class) in x.chunks_exact(k).zip(p).zip(class) {
            let mut most = f64x8::splat(s, 0.0);
            for x in x.chunks(STEP) {
                let [a, b] = if x.len() == STEP { T::load16(s, x) } else { T::load_tail(s, x) };
                fine = fine & a.simd_ge(0.0) & a.simd_le(1.0) & b.simd_ge(0.0) & b.simd_le(1.0);
                most = most.max(a).max(b);
            }
            *p = most.as_slice().iter().fold(0.0, |m, &v| if v > m { v } else { m });
            *class = x.iter().position(|v| v.to_f64() == *p).unwrap_or(0) as u32;
        }
        fine.all_true()
    }
}
