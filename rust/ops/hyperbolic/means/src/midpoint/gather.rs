//! Sums over the members of groups, and what is made of them. The one rule: N and T come first, of tangent vectors L in a second
//! sweep, and the gradients of rows that are still near with them.

use super::centres::{Centres, Places, centres};
use super::groups::Groups;
use super::lift::{Chunk, LANES, Lifted, load};
use super::polar;
use super::pull::{self, Out};
use super::sums::{Solved, Sums, solve};
use base::Result;
use base::fetch;
use base::pool::Shared;
use base::simd::*;
use base::store::{STEP, Store};
use drivers::rows::{Margin, Wide, eps, inside};
use drivers::segments::{Fold, SLOTS};
use std::ops::Range;

/// What is made of the sums.
#[derive(Clone, Copy)]
pub enum Job<'a, T> {
    /// The midpoints.
    Means { out: Shared<T>, margin: Margin },
    /// What the gradients of rows need.
    Centres { g: &'a [T], into: &'a Places },
    /// Those gradients, of runs of rows.
    Gradients { g: &'a [T], out: Out<T> },
}

/// A job for every group.
pub struct Gather<'a, T> {
    pub groups: &'a Groups<'a, T>,
    pub job: Job<'a, T>,
}

/// The sums of the groups at hand, their centres where gradients follow at once, and what dc has of them and of their rows.
pub struct State {
    sums: Sums,
    centres: Centres,
    dc: f64,
    rows: [f64; LANES],
}

impl<T: Wide> Fold<Lifted> for Gather<'_, T> {
    type State = State;
    type Left = f64;
    #[inline(always)]
    fn sweeps(&self) -> usize {
        if self.groups.tangent { 2 } else { 1 }
    }
    #[inline(always)]
    fn applies(&self) -> bool {
        matches!(self.job, Job::Gradients { .. })
    }
    fn start(&self, slots: usize) -> Result<State> {
        let centres = Centres::new(self.groups, if self.applies() { slots } else { 0 })?;
        Ok(State { sums: Sums::new(self.groups.d, slots)?, centres, dc: 0.0, rows: [0.0; LANES] })
    }
    #[inline(always)]
    fn clear(&self, state: &mut State, n: usize) {
        state.sums.clear(n);
    }
    #[inline(always)]
    fn add<S: Simd>(&self, s: S, sweep: usize, state: &mut State, k: usize, chunk: &Chunk, part: Range<usize>) {
        if sweep == 1 {
            polar::low(s, self.groups, chunk, part, &mut state.sums, k);
        } else if self.groups.exact() {
            wide(s, self.groups, chunk, part, &mut state.sums, k);
        } else {
            plain(s, self.groups, chunk, part, &mut state.sums, k);
        }
    }
    #[inline(always)]
    fn turn<S: Simd>(&self, s: S, state: &mut State, n: usize) {
        polar::units(s, &mut state.sums, n);
    }
    fn fork(&self, of: &State) -> Result<State> {
        let mut state = self.start(1)?;
        state.sums.copy(&of.sums);
        Ok(state)
    }
    fn merge(&self, sweep: usize, into: &mut State, mut later: State) {
        if sweep == 0 { into.sums.merge(&mut later.sums) } else { into.sums.merge_low(&later.sums) }
    }
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, range: Range<usize>, state: &mut State) {
        let State { sums, centres: own, dc, .. } = state;
        *dc += match &self.job {
            Job::Means { out, margin } => {
                means(s, self.groups, range, sums, out, *margin);
                0.0
            }
            Job::Centres { g, into } => centres(s, self.groups, range.clone(), sums, g, into, range.start),
            Job::Gradients { g, .. } => centres(s, self.groups, range, sums, g, &own.places(), 0),
        };
    }
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, state: &mut State, chunk: &Chunk) {
        if let Job::Gradients { out, .. } = &self.job {
            pull::rows(s, self.groups, chunk, &state.centres, out, &mut [], &mut state.rows);
        }
    }
    #[inline(always)]
    fn left<S: Simd>(&self, s: S, state: State) -> f64 {
        state.dc + hsum(f64x8::from_slice(s, &state.rows))
    }
}

/// In twice f64's precision.
#[inline(always)]
fn wide<S: Simd, T: Store>(s: S, groups: &Groups<T>, chunk: &Chunk, part: Range<usize>, sums: &mut Sums, k: usize) {
    for i in part {
        sums.add_time(k, [chunk.time[0][i], chunk.time[1][i]]);
        let (u, rest) = (f64x8::splat(s, chunk.space[0][i]), f64x8::splat(s, chunk.space[1][i]));
        let [hi, lo] = sums.row(k);
        let steps = groups.row(chunk.rows[i]).chunks(STEP).zip(hi.chunks_exact_mut(STEP));
        for ((x, hi), lo) in steps.zip(lo.chunks_exact_mut(STEP)) {
            let (v, mut h, mut l) = (load(s, x), f64::load16(s, hi), f64::load16(s, lo));
            for j in 0..2 {
                let (p, e) = two_prod(s, u, v[j]);
                let (sum, r) = two_sum(h[j], p);
                h[j] = sum;
                l[j] += rest.mul_add(v[j], e + r);
            }
            f64::store16(s, h, hi);
            f64::store16(s, l, lo);
        }
    }
}

/// In plain f64, a part of the columns at a time, whose sums stay in registers.
#[inline(always)]
fn plain<S: Simd, T: Store>(s: S, groups: &Groups<T>, chunk: &Chunk, part: Range<usize>, sums: &mut Sums, k: usize) {
    let mut time = sums.t[0][k];
    for v in &chunk.time[0][part.clone()] {
        time += v;
    }
    sums.t[0][k] = time;
    let [sums, _] = sums.row(k);
    let mut at = 0;
    while at < groups.d {
        at = if groups.d - at >= 4 * STEP && S::f64s::N == 8 {
            columns::<S, T, 4>(s, groups, chunk, part.clone(), sums, at)
        } else {
            columns::<S, T, 1>(s, groups, chunk, part.clone(), sums, at)
        };
    }
}

#[inline(always)]
fn columns<S: Simd, T: Store, const N: usize>(
    s: S,
    groups: &Groups<T>,
    chunk: &Chunk,
    part: Range<usize>,
    sums: &mut [f64],
    at: usize,
) -> usize {
    let (end, next) = (groups.d.min(at + N * STEP), chunk.n * groups.d);
    let mut acc = [[f64x8::splat(s, 0.0); 2]; N];
    for i in 0..N {
        acc[i] = f64::load16(s, &sums[at + i * STEP..]);
    }
    for (row, u) in chunk.rows[part.clone()].iter().zip(&chunk.space[0][part]) {
        let (x, u) = (&groups.x[row * groups.d + at..row * groups.d + end], f64x8::splat(s, *u));
        if x.len() == N * STEP {
            for i in 0..N {
                let v = T::load16(s, &x[i * STEP..]);
                // memory never rests: the next chunk comes in beside this one
                fetch(x.as_ptr().wrapping_add(i * STEP + next));
                acc[i] = [v[0].mul_add(u, acc[i][0]), v[1].mul_add(u, acc[i][1])];
            }
        } else {
            let v = T::load_tail(s, x);
            acc[0] = [v[0].mul_add(u, acc[0][0]), v[1].mul_add(u, acc[0][1])];
        }
    }
    for i in 0..N {
        f64::store16(s, acc[i], &mut sums[at + i * STEP..]);
    }
    end
}

#[inline(always)]
fn means<S: Simd, T: Wide>(
    s: S,
    groups: &Groups<T>,
    range: Range<usize>,
    sums: &mut Sums,
    out: &Shared<T>,
    margin: Margin,
) {
    let (d, keep) = (groups.d, 1.0 - margin.value(T::DTYPE));
    let edge = 1.0 - keep * keep + 8.0 * eps(T::DTYPE);
    let (mut scale, mut solved) = ([1.0; SLOTS], Solved::NONE);
    if groups.tangent {
        scale = polar::lengths(groups.c, sums, range.len());
    } else {
        solved = solve::<S, T>(s, groups.c, sums, range.len());
    }
    for (k, i) in range.enumerate() {
        // SAFETY: each group is done once, and the output has a row of d for each.
        let out = unsafe { out.part(i * d, d) };
        let ([n, _], by) = (sums.row(k), f64x8::splat(s, scale[k]));
        for (out, n) in out.chunks_mut(STEP).zip(n.chunks_exact(STEP)) {
            let v = f64::load16(s, n);
            let v = [v[0] * by, v[1] * by];
            if out.len() == STEP { T::store16(s, v, out) } else { T::store_tail(s, v, out) }
        }
        // 2R/P is 1 − c|m|²
        if 2.0 * solved.r[k].abs() < edge * solved.p[k].abs() {
            inside(out, groups.c, margin);
        }
    }
}
