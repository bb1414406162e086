//! What a tile is made of, in vectors. The one rule: whether anything is to be refused comes with what was read, and where it is is
//! asked afterwards.

use base::ahead::fetch;
use base::simd::*;
use base::store::{STEP, Store};

/// What is looked at together.
pub const TILE: usize = 256;

/// Asks for the next tile of the array of `x`: it begins where no machine expects it.
#[inline(always)]
fn next<T>(x: &[T]) {
    for line in x.chunks((64 / size_of::<T>()).max(1)) {
        fetch(line.as_ptr().wrapping_add(x.len()));
    }
}

/// Whether one of some targets is no class.
pub struct Off<'a> {
    pub y: &'a [i64],
    pub classes: i64,
}

impl Kernel for Off<'_> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        next(self.y);
        // what is below 0, and what is not below the number of classes, have a sign
        self.y.iter().fold(0, |off, y| off | y | (self.classes - 1).wrapping_sub(*y)) < 0
    }
}

/// What a hit counts as, above ones: float64 holds the count and the hits of 2²⁴ numbers in one sum.
pub const HIT: f64 = (1u64 << 26) as f64;

/// What a number adds to its bin: right minus confidence, and one with hits above.
pub type Term = [f64; 2];

#[inline(always)]
pub fn term(p: f64, hit: bool) -> Term {
    if hit { [1.0 - p, 1.0 + HIT] } else { [0.0 - p, 1.0] }
}

/// The terms of eight numbers, side by side.
#[inline(always)]
fn terms<S: Simd>(s: S, p: f64x8<S>, hit: mask64x8<S>, to: &mut [Term]) {
    let (one, zero) = (f64x8::splat(s, 1.0), f64x8::splat(s, 0.0));
    let (a, b) = (hit.select(one, zero) - p).interleave(hit.select(f64x8::splat(s, 1.0 + HIT), one));
    let to = to[..8].as_flattened_mut();
    a.store_slice(&mut to[..8]);
    b.store_slice(&mut to[8..]);
}

/// The terms of numbers of classes, each of which was the target or not.
pub struct Hits<'a> {
    pub p: &'a [f64],
    pub y: &'a [i64],
    pub class: &'a [u32],
    pub terms: &'a mut [Term],
}

impl Kernel for Hits<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (((to, p), y), class) in self.terms.iter_mut().zip(self.p).zip(self.y).zip(self.class) {
            *to = term(*p, *y == i64::from(*class));
        }
    }
}

/// Whether all numbers so far lie within 0 and 1.
struct Fine<S: Simd>(mask32x16<S>, mask64x8<S>, bool);

impl<S: Simd> Fine<S> {
    #[inline(always)]
    fn new(s: S) -> Self {
        Fine(f32x16::splat(s, 0.0).simd_eq(0.0), f64x8::splat(s, 0.0).simd_eq(0.0), true)
    }
    /// Sixteen numbers in float64.
    #[inline(always)]
    fn wide<T: Store>(&mut self, s: S, x: &[T; STEP], p: &mut [f64; STEP]) -> [f64x8<S>; 2] {
        let [a, b] = if size_of::<T>() < 8 {
            let v = T::load16_f32(s, x);
            self.0 = self.0 & v.simd_ge(0.0) & v.simd_le(1.0);
            let (a, b) = v.widen();
            [a, b]
        } else {
            let [a, b] = T::load16(s, x);
            self.1 = self.1 & a.simd_ge(0.0) & a.simd_le(1.0) & b.simd_ge(0.0) & b.simd_le(1.0);
            [a, b]
        };
        a.store_slice(&mut p[..8]);
        b.store_slice(&mut p[8..]);
        [a, b]
    }
    /// What is left of them.
    #[inline(always)]
    fn rest<T: Store>(&mut self, x: &[T], p: &mut [f64]) {
        for (p, x) in p.iter_mut().zip(x) {
            *p = x.to_f64();
            self.2 &= (0.0..=1.0).contains(p);
        }
    }
    #[inline(always)]
    fn all(self) -> bool {
        self.0.all_true() & self.1.all_true() & self.2
    }
}

/// Numbers in float64, and whether all lie within 0 and 1.
#[inline(always)]
fn widen<S: Simd, T: Store>(s: S, x: &[T], p: &mut [f64]) -> bool {
    let mut fine = Fine::new(s);
    next(x);
    let ((x, last), (p, rest)) = (x.as_chunks::<STEP>(), p.as_chunks_mut::<STEP>());
    for (x, p) in x.iter().zip(p) {
        fine.wide(s, x, p);
    }
    fine.rest(last, rest);
    fine.all()
}

/// Numbers in float64 and their terms, and whether all lie within 0 and 1; those whose target is 1 are right, if targets are given.
pub struct Read<'a, T> {
    pub x: &'a [T],
    pub y: Option<&'a [i64]>,
    pub p: &'a mut [f64],
    pub terms: &'a mut [Term],
}

impl<T: Store> Kernel for Read<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let Read { x, y, p, terms: to } = self;
        let mut fine = Fine::new(s);
        next(x);
        let ((x, last), (p, rest), (to, end)) = (x.as_chunks(), p.as_chunks_mut(), to.as_chunks_mut::<STEP>());
        let (right, few) = y.map_or((&[][..], &[][..]), |y| y.as_chunks::<STEP>());
        let none = f64x8::splat(s, 0.0).simd_gt(0.0);
        for (i, ((x, p), to)) in x.iter().zip(p).zip(to).enumerate() {
            let [a, b] = fine.wide(s, x, p);
            let (mut first, mut second) = (none, none);
            if let Some(y) = right.get(i) {
                first = i64x8::from_slice(s, &y[..8]).simd_eq(1);
                second = i64x8::from_slice(s, &y[8..]).simd_eq(1);
            }
            terms(s, a, first, &mut to[..8]);
            terms(s, b, second, &mut to[8..]);
        }
        fine.rest(last, rest);
        for (i, (to, p)) in end.iter_mut().zip(rest).enumerate() {
            *to = term(*p, few.get(i) == Some(&1));
        }
        fine.all()
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
