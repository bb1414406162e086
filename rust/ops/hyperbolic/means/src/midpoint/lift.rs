//! The numbers of entries: where their rows are on the hyperboloid. The one rule: they are found where they are used, from rows
//! that are still near.

use super::groups::Groups;
use crate::place::{bent, places};
use base::dd::Num;
use base::roots::wide_gap;
use base::simd::*;
use base::store::{STEP, Store};
use base::{Result, try_vec};
use drivers::rows::{Acc, Wide};
use drivers::segments::{self, CHUNK, Lists, Segments};
use std::ops::{Deref, DerefMut};

/// Lanes of a vector, and rows whose sums are kept together.
pub const LANES: usize = 8;
const TILE: usize = 32;

/// Numbers of entries, one each.
pub type Numbers = [f64; CHUNK];
pub type Chunk = segments::Chunk<Lifted>;

/// What eight entries add to their rows: weights of what is the group's, of x, and of x − m; and numbers of their own.
pub struct Shares<S: Simd> {
    pub up: f64x8<S>,
    pub own: f64x8<S>,
    pub apart: f64x8<S>,
    pub dw: f64x8<S>,
    pub dc: f64x8<S>,
}

/// A row is at (τ, f x): λ − 1 and λ of points, those of `carry` of tangent vectors.
#[repr(align(64))]
pub struct Lifted {
    pub w: Numbers,
    pub f: Numbers,
    pub tau: Numbers,
    pub square: Numbers,
    /// How f changes with c over |x|², of tangent vectors.
    pub bend: Numbers,
    /// What makes a direction of a tangent vector; 1 of points.
    pub scale: Numbers,
    /// w f and w τ, with what f64 leaves of them.
    pub space: [Numbers; 2],
    pub time: [Numbers; 2],
}

impl<T: Store> Groups<'_, T> {
    /// A row of x.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &[T] {
        &self.x[row * self.d..][..self.d]
    }
}

impl<T: Wide> Segments for Groups<'_, T> {
    type Numbers = Lifted;
    #[inline(always)]
    fn lists(&self) -> &Lists {
        &self.lists
    }
    #[inline(always)]
    fn numbers(&self) -> Lifted {
        let none = [0.0; CHUNK];
        Lifted { w: none, f: none, tau: none, square: none, bend: none, scale: none, space: [none; 2], time: [none; 2] }
    }
    #[inline(always)]
    fn lift<S: Simd>(&self, s: S, n: usize, rows: &[usize; CHUNK], places: &[usize; CHUNK], into: &mut Lifted) {
        if let Some(w) = self.weights {
            for i in 0..n {
                into.w[i] = w[places[i]].to_f64();
            }
        } else {
            into.w.fill(1.0);
        }
        lift(s, self, &rows[..n], into);
    }
}

/// Zeros that begin with a line of memory, so that no vector of them lies across two.
pub struct Lines {
    all: Vec<f64>,
    skip: usize,
}
impl Lines {
    pub fn new(n: usize) -> Result<Self> {
        let all = try_vec(if n == 0 { 0 } else { n + LANES }, 0.0)?;
        let skip = if n == 0 { 0 } else { all.as_ptr().align_offset(64).min(LANES) };
        Ok(Lines { all, skip })
    }
}
impl Deref for Lines {
    type Target = [f64];
    #[inline(always)]
    fn deref(&self) -> &[f64] {
        &self.all[self.skip..]
    }
}
impl DerefMut for Lines {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f64] {
        &mut self.all[self.skip..]
    }
}

/// A step of a row.
#[inline(always)]
pub fn load<S: Simd, T: Store>(s: S, x: &[T]) -> [f64x8<S>; 2] {
    if x.len() >= STEP { T::load16(s, x) } else { T::load_tail(s, x) }
}

#[inline(always)]
pub fn eight<S: Simd>(s: S, v: &[f64], at: usize) -> f64x8<S> {
    f64x8::from_slice(s, &v[at..at + LANES])
}

#[inline(always)]
fn put<S: Simd>(v: f64x8<S>, into: &mut Numbers, at: usize) {
    v.store_slice(&mut into[at..at + LANES]);
}

/// A function of its own at every level.
#[inline(never)]
fn lift<S: Simd, T: Wide>(s: S, groups: &Groups<T>, rows: &[usize], into: &mut Lifted) {
    s.vectorize(
        #[inline(always)]
        || {
            let (d, c) = (groups.d, f64x8::splat(s, groups.c));
            let (one, zero) = (f64x8::splat(s, 1.0), f64x8::splat(s, 0.0));
            let mut lanes = <T::Acc<S> as Acc<S>>::EMPTY;
            for first in (0..rows.len()).step_by(TILE) {
                let n = TILE.min(rows.len() - first);
                for i in 0..n {
                    let x = groups.row(rows[first + i]);
                    let mut sums = [<T::Acc<S> as Acc<S>>::zero(s); 2];
                    let mut k = 0;
                    while k + STEP <= d {
                        let v = T::load16(s, &x[k..k + STEP]);
                        sums[0].dot(v[0], v[0]);
                        sums[1].dot(v[1], v[1]);
                        k += STEP;
                    }
                    if k < d {
                        let v = T::load_tail(s, &x[k..]);
                        sums[0].dot(v[0], v[0]);
                        sums[1].dot(v[1], v[1]);
                    }
                    sums[0].and(sums[1]).keep(&mut lanes, i);
                }
                for g in (0..n).step_by(LANES) {
                    let at = first + g;
                    let xx = <T::Acc<S> as Acc<S>>::totals(s, &lanes, g);
                    let w = eight(s, &into.w, at);
                    put(xx.get(), &mut into.square, at);
                    if groups.tangent {
                        let [p] = places(false, bent(c), [xx]);
                        let length = xx.get().sqrt();
                        put(p.f, &mut into.f, at);
                        put(p.tau, &mut into.tau, at);
                        put(p.r, &mut into.bend, at);
                        put(length.simd_gt(0.0).select(one / length, zero), &mut into.scale, at);
                        put(w * p.f, &mut into.space[0], at);
                        put(w * p.tau, &mut into.time[0], at);
                        continue;
                    }
                    let lambda = <T::Acc<S> as Acc<S>>::Num::of(one + one) / wide_gap(c, xx);
                    let time = lambda - Num::of(one);
                    put(lambda.get(), &mut into.f, at);
                    put(time.get(), &mut into.tau, at);
                    put(one, &mut into.scale, at);
                    let (space, time) = (lambda * Num::of(w), time * Num::of(w));
                    put(space.get(), &mut into.space[0], at);
                    put(time.get(), &mut into.time[0], at);
                    if groups.exact() {
                        put(space.rest(), &mut into.space[1], at);
                        put(time.rest(), &mut into.time[1], at);
                    }
                }
            }
        },
    );
}
