//! Gradients of midpoints, row by row of x. The one rule: a row adds up what its groups send it in the order of the groups,
//! and every entry is met once.
//!
//! With k = 2c⟨g, m⟩/α_m a row of points gets wλ/P [g + km + (cλA − k) x]: what is the same for all rows of a group is taken
//! together once. Rows of f64, and directions of tangent vectors, keep x − m, which that would round.

use super::centres::{Centres, Plain};
use super::groups::Groups;
use super::lift::{Chunk, LANES, Lifted, Numbers, Shares, eight, load};
use super::polar;
use base::fetch;
use base::pool::Shared;
use base::simd::*;
use base::store::{STEP, Store};
use base::{Result, try_vec};
use drivers::rows::{Acc, Wide};
use drivers::segments::{CHUNK, Spread};
use std::ops::Range;

/// Where gradients go: `onto` what is there, or in its place; dweights only where there are weights.
#[derive(Clone, Copy)]
pub struct Out<T> {
    pub dx: Shared<T>,
    pub dw: Shared<T>,
    pub onto: bool,
}

/// The formulas above `midpoint`, for points.
#[inline(always)]
fn points<S: Simd, T: Wide>(
    s: S,
    groups: &Groups<T>,
    chunk: &Chunk,
    at: usize,
    [per, by, other, ..]: [f64x8<S>; 6],
    [q, gd, xd]: [f64x8<S>; 3],
) -> Shares<S> {
    let (w, l, square) = (eight(s, &chunk.w, at), eight(s, &chunk.f, at), eight(s, &chunk.square, at));
    // ⟨x, x − m⟩
    let xd = if groups.exact() { xd } else { (square - other + q) * 0.5 };
    let along = gd - q * groups.c * by;
    let (f, k) = (w * l * per, by * (2.0 * groups.c));
    let own = l * along * groups.c;
    Shares {
        up: f,
        own: f * if groups.exact() { own } else { own - k },
        apart: -(f * k),
        dw: l * along * per,
        dc: f * (along * l * square * 0.5 - xd * by),
    }
}

/// x − m, or that of the direction of x, where `beside` is what m leaves out if APART.
#[inline(always)]
fn apart<S: Simd, const APART: bool>(
    s: S,
    x: [f64x8<S>; 2],
    scale: f64x8<S>,
    m: &[f64],
    beside: &[f64],
) -> [f64x8<S>; 2] {
    let m = f64::load16(s, m);
    let v = [x[0].mul_add(scale, -m[0]), x[1].mul_add(scale, -m[1])];
    if !APART {
        return v;
    }
    let lo = f64::load16(s, beside);
    [v[0] - lo[0], v[1] - lo[1]]
}

/// |v|², ⟨up, v⟩ and, of f64 points, ⟨x, v⟩ of every entry, v the difference of x (or its direction) and the group's.
#[inline(always)]
fn dots<S: Simd, T: Store, const APART: bool>(
    s: S,
    groups: &Groups<T>,
    chunk: &Chunk,
    centres: &Centres,
    out: &Out<T>,
    found: &mut [Numbers; 3],
) {
    let d = groups.d;
    let mut lanes = [Plain::<S>::EMPTY; 3];
    for first in (0..chunk.n).step_by(LANES) {
        for i in first..chunk.n.min(first + LANES) {
            let (x, [m, up, beside]) = (&groups.row(chunk.rows[i])[..d], centres.row(chunk.segments[i]));
            let scale = f64x8::splat(s, chunk.scale[i]);
            let mut sums = [[Plain::<S>::zero(s); 2]; 3];
            // where the gradient goes is asked for before it is written
            let dx = out.dx.0.cast_const().wrapping_add(chunk.rows[i] * d);
            let ([m0, up0, beside0], mut k) = ([&m[..d], &up[..d], &beside[..d]], 0);
            while k + STEP <= d {
                let part = k..k + STEP;
                fetch(dx.wrapping_add(k));
                let x = T::load16(s, &x[part.clone()]);
                let v = apart::<S, APART>(s, x, scale, &m0[part.clone()], &beside0[part.clone()]);
                meet::<S, APART>(&mut sums, x, f64::load16(s, &up0[part]), v);
                k += STEP;
            }
            if k < d {
                let x = T::load_tail(s, &x[k..]);
                let v = apart::<S, APART>(s, x, scale, &m[k..], &beside[k..]);
                meet::<S, APART>(&mut sums, x, f64::load16(s, &up[k..]), v);
            }
            for k in 0..if APART { 3 } else { 2 } {
                sums[k][0].and(sums[k][1]).keep(&mut lanes[k], i - first);
            }
        }
        for k in 0..if APART { 3 } else { 2 } {
            Plain::totals(s, &lanes[k], 0).store_slice(&mut found[k][first..first + LANES]);
        }
    }
}

#[inline(always)]
fn meet<S: Simd, const APART: bool>(
    sums: &mut [[Plain<S>; 2]; 3],
    x: [f64x8<S>; 2],
    g: [f64x8<S>; 2],
    v: [f64x8<S>; 2],
) {
    for j in 0..2 {
        sums[0][j].dot(v[j], v[j]);
        sums[1][j].dot(g[j], v[j]);
        if APART {
            sums[2][j].dot(x[j], v[j]);
        }
    }
}

/// What is added to rows: weights of what is the group's, of x, and of x − m.
#[repr(align(64))]
struct Weights {
    up: Numbers,
    own: Numbers,
    apart: Numbers,
}

/// Those of the entries of a chunk, and dweights.
#[inline(always)]
fn weights<S: Simd, T: Wide>(
    s: S,
    groups: &Groups<T>,
    chunk: &Chunk,
    centres: &Centres,
    found: &[Numbers; 3],
    out: &Out<T>,
    dc: &mut [f64; LANES],
) -> Weights {
    let mut weights = Weights { up: [0.0; CHUNK], own: [0.0; CHUNK], apart: [0.0; CHUNK] };
    // the numbers of the groups: eight entries at once, then those of another group over them
    let mut of = [[0.0; CHUNK + LANES]; 6];
    let (mut group, mut until) = (usize::MAX, 0);
    for i in 0..chunk.n {
        if chunk.segments[i] != group || i == until {
            (group, until) = (chunk.segments[i], i + LANES);
            let numbers = &centres.numbers[group];
            for k in 0..if groups.tangent { 6 } else { 3 } {
                f64x8::splat(s, numbers[k]).store_slice(&mut of[k][i..i + LANES]);
            }
        }
    }
    let mut sum = f64x8::from_slice(s, dc);
    for at in (0..chunk.n).step_by(LANES) {
        let mut numbers = [sum; 6];
        for k in 0..6 {
            numbers[k] = eight(s, &of[k], at);
        }
        let dots = [eight(s, &found[0], at), eight(s, &found[1], at), eight(s, &found[2], at)];
        let shares = if groups.tangent {
            polar::shares(s, groups.c, chunk, at, numbers, dots)
        } else {
            points(s, groups, chunk, at, numbers, dots)
        };
        let part = at..at + LANES;
        shares.up.store_slice(&mut weights.up[part.clone()]);
        shares.own.store_slice(&mut weights.own[part.clone()]);
        shares.apart.store_slice(&mut weights.apart[part]);
        let n = LANES.min(chunk.n - at);
        if groups.weights.is_some() {
            for (dw, &place) in shares.dw.as_slice()[..n].iter().zip(&chunk.places[at..]) {
                // SAFETY: an entry belongs to one row and is met once; there is a weight for each.
                unsafe { *out.dw.at(place) = T::from_f64(*dw) };
            }
        }
        let there = f64x8::from_slice(s, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]).simd_lt(n as f64);
        sum += there.select(shares.dc, f64x8::splat(s, 0.0));
    }
    sum.store_slice(dc);
    weights
}

/// What an entry adds to its row.
struct Share<'a, S: Simd, T> {
    x: &'a [T],
    rows: [&'a [f64]; 3],
    up: f64x8<S>,
    own: f64x8<S>,
    apart: f64x8<S>,
    scale: f64x8<S>,
}
impl<S: Simd, T: Store> Share<'_, S, T> {
    #[inline(always)]
    fn step<const APART: bool>(&self, s: S, x: [f64x8<S>; 2], k: usize) -> [f64x8<S>; 2] {
        let [m, up, beside] = self.rows;
        let h = f64::load16(s, if APART { &up[k..k + STEP] } else { &beside[k..k + STEP] });
        let a = [h[0].mul_add(self.up, x[0] * self.own), h[1].mul_add(self.up, x[1] * self.own)];
        if !APART {
            return a;
        }
        let v = apart::<S, true>(s, x, self.scale, &m[k..k + STEP], &beside[k..k + STEP]);
        [v[0].mul_add(self.apart, a[0]), v[1].mul_add(self.apart, a[1])]
    }
    /// To a row of one entry.
    #[inline(always)]
    fn alone<const APART: bool>(mut self, s: S, dx: &mut [T], d: usize) {
        let (all, x, dx, mut k) = (self.rows, &self.x[..d], &mut dx[..d], 0);
        self.rows = [&all[0][..d], &all[1][..d], &all[2][..d]];
        while k + STEP <= d {
            T::store16(s, self.step::<APART>(s, T::load16(s, &x[k..k + STEP]), k), &mut dx[k..k + STEP]);
            k += STEP;
        }
        if k < d {
            self.rows = all;
            T::store_tail(s, self.step::<APART>(s, T::load_tail(s, &x[k..]), k), &mut dx[k..]);
        }
    }
    /// To a row of several entries, which adds up in `acc`, or to one that has something already.
    #[inline(always)]
    fn among<const APART: bool>(&self, s: S, dx: &mut [T], acc: &mut [f64], ends: [bool; 2], onto: bool) {
        for (k, (x, dx)) in self.x.chunks(STEP).zip(dx.chunks_mut(STEP)).enumerate() {
            let mut a = self.step::<APART>(s, load(s, x), k * STEP);
            if !ends[0] {
                let before = f64::load16(s, &acc[k * STEP..]);
                a = [a[0] + before[0], a[1] + before[1]];
            }
            if !ends[1] {
                f64::store16(s, a, &mut acc[k * STEP..]);
                continue;
            }
            if onto {
                let there = load(s, dx);
                a = [a[0] + there[0], a[1] + there[1]];
            }
            if dx.len() == STEP { T::store16(s, a, dx) } else { T::store_tail(s, a, dx) }
        }
    }
}

/// Adds what the entries of a chunk send to their rows, and to dc in lanes; `acc` keeps a row of several entries until the last.
/// A function of its own at every level.
#[inline(never)]
pub fn rows<S: Simd, T: Wide>(
    s: S,
    groups: &Groups<T>,
    chunk: &Chunk,
    centres: &Centres,
    out: &Out<T>,
    acc: &mut [f64],
    dc: &mut [f64; LANES],
) {
    s.vectorize(
        #[inline(always)]
        || {
            if groups.apart() {
                pull::<S, T, true>(s, groups, chunk, centres, out, acc, dc);
            } else {
                pull::<S, T, false>(s, groups, chunk, centres, out, acc, dc);
            }
        },
    );
}

#[inline(always)]
fn pull<S: Simd, T: Wide, const APART: bool>(
    s: S,
    groups: &Groups<T>,
    chunk: &Chunk,
    centres: &Centres,
    out: &Out<T>,
    acc: &mut [f64],
    dc: &mut [f64; LANES],
) {
    let mut found = [[0.0; CHUNK]; 3];
    dots::<S, T, APART>(s, groups, chunk, centres, out, &mut found);
    let weights = weights(s, groups, chunk, centres, &found, out, dc);
    for i in 0..chunk.n {
        let (up, own) = (f64x8::splat(s, weights.up[i]), f64x8::splat(s, weights.own[i]));
        let (x, rows, apart) =
            (groups.row(chunk.rows[i]), centres.row(chunk.segments[i]), f64x8::splat(s, weights.apart[i]));
        let share = Share { x, rows, up, own, apart, scale: f64x8::splat(s, chunk.scale[i]) };
        // SAFETY: a row belongs to one task, which has it to itself.
        let dx = unsafe { out.dx.part(chunk.rows[i] * groups.d, groups.d) };
        if chunk.ends[i] == [true; 2] && !out.onto {
            share.alone::<APART>(s, dx, groups.d);
        } else {
            share.among::<APART>(s, dx, acc, chunk.ends[i], out.onto);
        }
    }
}

/// The gradients of rows whose centres are there, and what they add to dc.
pub struct Pull<'a, T> {
    pub groups: &'a Groups<'a, T>,
    pub centres: &'a Centres,
    pub out: Out<T>,
}

impl<T: Wide> Spread<Lifted> for Pull<'_, T> {
    /// A row of several entries, and dc in lanes.
    type Kept = (Vec<f64>, [f64; LANES]);
    type Left = f64;
    fn start(&self) -> Result<Self::Kept> {
        Ok((try_vec(if self.groups.lists.plain() { 0 } else { self.centres.pad }, 0.0)?, [0.0; LANES]))
    }
    fn clear(&self, rows: Range<usize>) {
        // SAFETY: tasks have rows of their own.
        unsafe { self.out.dx.part(rows.start * self.groups.d, rows.len() * self.groups.d) }.fill(T::from_f64(0.0));
    }
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, (acc, dc): &mut Self::Kept, chunk: &Chunk) {
        rows(s, self.groups, chunk, self.centres, &self.out, acc, dc);
    }
    #[inline(always)]
    fn left<S: Simd>(&self, s: S, (_, dc): Self::Kept) -> f64 {
        hsum(f64x8::from_slice(s, &dc))
    }
}
