//! The numbers of a few entries: where their rows are on the hyperboloid. The one rule: they are found where they are used, from
//! rows that are still near, and nothing of the size of the input is kept.

use super::groups::{CHUNK, Groups, Turned};
use crate::place::{bent, places};
use base::dd::Num;
use base::roots::wide_gap;
use base::simd::*;
use base::store::{STEP, Store};
use base::{Result, try_vec};
use drivers::rows::{Acc, Wide};
use std::ops::{Deref, DerefMut, Range};

/// Lanes of a vector, and rows whose sums are kept together.
pub const LANES: usize = 8;
const TILE: usize = 32;

/// Numbers of entries, one each.
pub type Numbers = [f64; CHUNK];

/// Calls the body with every chunk of the entries, and with the part of it that each group from `first` on has.
macro_rules! chunks {
    ($s:expr, $groups:expr, $range:expr, $entries:expr, $chunk:expr, |$k:ident, $part:ident| $body:expr) => {
        let (range, entries): (Range<usize>, Range<usize>) = ($range, $entries);
        let step = $groups.chunk();
        for first in entries.clone().step_by(step) {
            let end = entries.end.min(first + step);
            $chunk.take($s, $groups, first..end, range.start, range.start);
            for i in range.clone() {
                let (from, to) = ($groups.indptr[i].max(first), $groups.indptr[i + 1].min(end));
                if from < to {
                    let ($k, $part) = (i - range.start, from - first..to - first);
                    $body;
                }
            }
        }
    };
}
pub(super) use chunks;

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
pub struct Chunk {
    /// The entries that are here.
    range: Range<usize>,
    pub n: usize,
    /// Of entries: the row, the place among the weights, the group among those at hand; whether they are the first of their
    /// row, and the last.
    pub rows: [usize; CHUNK],
    pub places: [usize; CHUNK],
    pub groups: [usize; CHUNK],
    pub ends: [[bool; 2]; CHUNK],
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

impl Chunk {
    pub fn new() -> Self {
        let none = [0.0; CHUNK];
        Chunk {
            range: 0..0,
            n: 0,
            rows: [0; CHUNK],
            places: [0; CHUNK],
            groups: [0; CHUNK],
            ends: [[true; 2]; CHUNK],
            w: none,
            f: none,
            tau: none,
            square: none,
            bend: none,
            scale: none,
            space: [none; 2],
            time: [none; 2],
        }
    }

    /// The row of entry `i`.
    #[inline(always)]
    pub fn x<'a, T: Store>(&self, groups: &Groups<'a, T>, i: usize) -> &'a [T] {
        &groups.x[self.rows[i] * groups.d..][..groups.d]
    }

    /// Entries `range` of the groups from `first` on, which count from `base`; nothing to do if they are here.
    #[inline(always)]
    pub fn take<S: Simd, T: Wide>(&mut self, s: S, groups: &Groups<T>, range: Range<usize>, first: usize, base: usize) {
        if self.range == range {
            return;
        }
        let (mut at, mut group) = (range.start, first);
        while at < range.end {
            let end = range.end.min(groups.indptr[group + 1]);
            if at < end {
                self.groups[at - range.start..end - range.start].fill(group - base);
                at = end;
            }
            group += 1;
        }
        let n = range.len();
        if let Some(indices) = &groups.indices {
            self.rows[..n].copy_from_slice(&indices[range.clone()]);
        } else {
            for i in 0..n {
                self.rows[i] = range.start + i;
            }
        }
        for i in 0..n {
            self.places[i] = range.start + i;
        }
        self.lift(s, groups, n);
        self.range = range;
    }

    /// Entries `range` row by row.
    #[inline(always)]
    pub fn take_turned<S: Simd, T: Wide>(&mut self, s: S, groups: &Groups<T>, range: Range<usize>, turned: &Turned) {
        for (i, at) in range.clone().enumerate() {
            let place = turned.entries[at];
            let row = groups.row(place);
            (self.rows[i], self.places[i], self.groups[i]) = (row, place, turned.groups[at]);
            self.ends[i] = [at == turned.ptr[row], at + 1 == turned.ptr[row + 1]];
        }
        self.lift(s, groups, range.len());
        self.range = 0..0;
    }

    #[inline(always)]
    fn lift<S: Simd, T: Wide>(&mut self, s: S, groups: &Groups<T>, n: usize) {
        self.n = n;
        if let Some(w) = groups.weights {
            for i in 0..n {
                self.w[i] = w[self.places[i]].to_f64();
            }
        } else {
            self.w.fill(1.0);
        }
        lift(s, groups, self);
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
fn lift<S: Simd, T: Wide>(s: S, groups: &Groups<T>, chunk: &mut Chunk) {
    s.vectorize(
        #[inline(always)]
        || {
            let (d, c) = (groups.d, f64x8::splat(s, groups.c));
            let (one, zero) = (f64x8::splat(s, 1.0), f64x8::splat(s, 0.0));
            let mut lanes = <T::Acc<S> as Acc<S>>::EMPTY;
            for first in (0..chunk.n).step_by(TILE) {
                let n = TILE.min(chunk.n - first);
                for i in 0..n {
                    let x = &chunk.x(groups, first + i)[..d];
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
                    let w = eight(s, &chunk.w, at);
                    put(xx.get(), &mut chunk.square, at);
                    if groups.tangent {
                        let [p] = places(false, bent(c), [xx]);
                        let length = xx.get().sqrt();
                        put(p.f, &mut chunk.f, at);
                        put(p.tau, &mut chunk.tau, at);
                        put(p.r, &mut chunk.bend, at);
                        put(length.simd_gt(0.0).select(one / length, zero), &mut chunk.scale, at);
                        put(w * p.f, &mut chunk.space[0], at);
                        put(w * p.tau, &mut chunk.time[0], at);
                        continue;
                    }
                    let lambda = <T::Acc<S> as Acc<S>>::Num::of(one + one) / wide_gap(c, xx);
                    let time = lambda - Num::of(one);
                    put(lambda.get(), &mut chunk.f, at);
                    put(time.get(), &mut chunk.tau, at);
                    put(one, &mut chunk.scale, at);
                    let (space, time) = (lambda * Num::of(w), time * Num::of(w));
                    put(space.get(), &mut chunk.space[0], at);
                    put(time.get(), &mut chunk.time[0], at);
                    if groups.exact() {
                        put(space.rest(), &mut chunk.space[1], at);
                        put(time.rest(), &mut chunk.time[1], at);
                    }
                }
            }
        },
    );
}
