//! Sums over the members of groups. The one rule: members are added in their order, in parts whose bounds follow from the
//! lists alone.

use super::centres::{Centres, Places, centres};
use super::chunk::{Chunk, LANES, chunks, load};
use super::groups::{Groups, PART, SLOTS};
use super::polar;
use super::pull::{self, Out};
use super::sums::{Solved, Sums, solve};
use base::Result;
use base::fetch;
use base::pool::{self, Shared};
use base::simd::*;
use base::store::{STEP, Store};
use drivers::rows::{Margin, Wide, eps, inside};
use std::ops::Range;

/// Adds entries of groups to their sums.
#[inline(always)]
fn add<S: Simd, T: Wide>(
    s: S,
    groups: &Groups<T>,
    range: Range<usize>,
    entries: Range<usize>,
    sums: &mut Sums,
    chunk: &mut Chunk,
) {
    chunks!(s, groups, range, entries, chunk, |k, part| if groups.exact() {
        wide(s, groups, chunk, part, sums, k);
    } else {
        plain(s, groups, chunk, part, sums, k);
    });
}

/// In twice f64's precision.
#[inline(always)]
fn wide<S: Simd, T: Store>(s: S, groups: &Groups<T>, chunk: &Chunk, part: Range<usize>, sums: &mut Sums, k: usize) {
    for i in part {
        sums.add_time(k, [chunk.time[0][i], chunk.time[1][i]]);
        let (u, rest) = (f64x8::splat(s, chunk.space[0][i]), f64x8::splat(s, chunk.space[1][i]));
        let [hi, lo] = sums.row(k);
        let steps = chunk.x(groups, i).chunks(STEP).zip(hi.chunks_exact_mut(STEP));
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

/// Runs a job for every group, each from one thread; what is left of dc beside what rows add to it.
pub fn each<T: Wide>(groups: &Groups<T>, job: Job<T>) -> Result<f64> {
    let (tasks, slots) = (groups.tasks()?, groups.slots());
    let work = groups.entries().saturating_mul(groups.d);
    let mut dc = 0.0;
    for part in pool::map(tasks.len(), work, |b| {
        let (sums, range) = (Sums::new(groups.d, slots)?, tasks[b].clone());
        let room = if let Job::Gradients { .. } = job { slots } else { 0 };
        Ok(dispatch(Task { groups, job, range, sums, centres: Centres::new::<T>(groups, room)? }))
    })? {
        dc += part?;
    }
    for i in (0..groups.len()).filter(|&i| groups.large(i)) {
        let (first, end) = (groups.indptr[i], groups.indptr[i + 1]);
        let parts = (end - first).div_ceil(PART);
        let entries = |b: usize| first + b * PART..end.min(first + (b + 1) * PART);
        let mut total = Sums::new(groups.d, 1)?;
        for part in pool::map(parts, work, |b| {
            let mut sums = Sums::new(groups.d, 1)?;
            dispatch(Part { groups, group: i, entries: entries(b), sums: &mut sums });
            Ok(sums)
        })? {
            total.merge(&mut part?);
        }
        if groups.tangent {
            dispatch(polar::Units(&mut total));
            let sums = &total;
            for [low, longest] in
                pool::map(parts, work, |b| dispatch(polar::Low { groups, group: i, entries: entries(b), sums }))?
            {
                total.low[0][0] += low;
                total.low[1][0] = longest.max(total.low[1][0]);
            }
        }
        dc += dispatch(Finish { groups, job, range: i..i + 1, sums: &mut total });
    }
    Ok(dc)
}

/// The groups of a task that are not large.
struct Task<'a, T> {
    groups: &'a Groups<'a, T>,
    job: Job<'a, T>,
    range: Range<usize>,
    sums: Sums,
    centres: Centres,
}
impl<T: Wide> Kernel for Task<'_, T> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let Task { groups, job, range, mut sums, centres: mut own } = self;
        let places = own.places();
        let (mut chunk, mut dc, mut rows) = (Chunk::new(), 0.0, [0.0; LANES]);
        let mut first = range.start;
        while first < range.end {
            let batch = groups.batch(first, range.end);
            first = batch.end;
            if groups.large(batch.start) {
                continue;
            }
            let entries = groups.indptr[batch.start]..groups.indptr[batch.end];
            sums.clear(batch.len());
            add(s, groups, batch.clone(), entries.clone(), &mut sums, &mut chunk);
            if groups.tangent {
                polar::low(s, groups, batch.clone(), entries.clone(), &mut sums, &mut chunk);
            }
            if let Job::Gradients { g, out } = &job {
                dc += centres(s, groups, batch.clone(), &mut sums, g, &places, 0);
                for at in entries.clone().step_by(groups.chunk()) {
                    let end = entries.end.min(at + groups.chunk());
                    chunk.take(s, groups, at..end, batch.start, batch.start);
                    pull::rows(s, groups, &chunk, &own, out, &mut [], &mut rows);
                }
            } else {
                dc += finish(s, groups, &job, batch, &mut sums);
            }
        }
        dc + hsum(f64x8::from_slice(s, &rows))
    }
}

/// A part of a large group.
struct Part<'a, T> {
    groups: &'a Groups<'a, T>,
    group: usize,
    entries: Range<usize>,
    sums: &'a mut Sums,
}
impl<T: Wide> Kernel for Part<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part { groups, group, entries, sums } = self;
        add(s, groups, group..group + 1, entries, sums, &mut Chunk::new());
    }
}

/// A large group whose sums are there.
struct Finish<'a, T> {
    groups: &'a Groups<'a, T>,
    job: Job<'a, T>,
    range: Range<usize>,
    sums: &'a mut Sums,
}
impl<T: Wide> Kernel for Finish<'_, T> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        finish(s, self.groups, &self.job, self.range, self.sums)
    }
}

#[inline(always)]
fn finish<S: Simd, T: Wide>(s: S, groups: &Groups<T>, job: &Job<T>, range: Range<usize>, sums: &mut Sums) -> f64 {
    match job {
        Job::Means { out, margin } => {
            means(s, groups, range, sums, out, *margin);
            0.0
        }
        Job::Centres { g, into } => centres(s, groups, range.clone(), sums, g, into, range.start),
        Job::Gradients { .. } => 0.0,
    }
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
