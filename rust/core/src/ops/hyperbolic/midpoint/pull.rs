//! Gradients of midpoints, row by row of x. The one rule: a row adds up what its groups send it in the order of the groups,
//! and every entry is met once.

use super::gather::{Groups, Lifted, each, solve};
use crate::ops::hyperbolic::place::{LONGEST, sinh};
use crate::pairs::transpose;
use crate::pool::{self, Shared};
use crate::simd::*;
use crate::store::{STEP, Store};
use crate::{Result, try_vec};
use std::ops::Range;

/// Elements to a task.
const BLOCK: usize = 16 * 1024;
/// Entries whose numbers are solved together.
const LANES: usize = 8;

/// Of every group, in padded rows: the midpoint as hi and lo (no lo where it is nothing), or its direction; the gradient,
/// or its part across that direction. Then 1/P, 1/α and ⟨g, m⟩; or 1/R, σ, ⟨g, m̂⟩, σ/sinh σ and cosh σ.
pub struct Centres {
    pub m: Vec<f64>,
    pub lo: Vec<f64>,
    pub up: Vec<f64>,
    pub numbers: Vec<[f64; 5]>,
    pub pad: usize,
    /// Whether rows of tangent vectors add up ⟨x, dx⟩ for dc, and not dc.
    pub far: bool,
}

/// The entries of each row: where they begin, their places, their groups. Empty where each row is its own entry.
#[derive(Default)]
struct Turned {
    ptr: Vec<usize>,
    entries: Vec<usize>,
    groups: Vec<usize>,
}

fn turned<T: Store>(groups: &Groups<T>) -> Result<Turned> {
    let Some(indices) = &groups.indices else { return Ok(Turned::default()) };
    let entries = indices.len();
    let mut out =
        Turned { ptr: try_vec(groups.rows + 1, 0)?, entries: try_vec(entries, 0)?, groups: try_vec(entries, 0)? };
    for &row in indices {
        out.ptr[row + 1] += 1;
    }
    for i in 0..groups.rows {
        out.ptr[i + 1] += out.ptr[i];
    }
    let mut next = try_vec(groups.rows, 0)?;
    next.copy_from_slice(&out.ptr[..groups.rows]);
    for i in 0..groups.len() {
        for e in groups.indptr[i]..groups.indptr[i + 1] {
            let at = &mut next[indices[e]];
            (out.entries[*at], out.groups[*at]) = (e, i);
            *at += 1;
        }
    }
    Ok(out)
}

/// What the gradients of points need of every group.
pub fn centres<T: Store>(groups: &Groups<T>, lifted: &Lifted, g: &[T]) -> Result<Centres> {
    let (d, pad) = (groups.d, groups.d.next_multiple_of(STEP));
    let (size, double) = (pad * groups.len(), size_of::<T>() == 8);
    let mut out = Centres {
        m: try_vec(size, 0.0)?,
        lo: try_vec(if double { size } else { 0 }, 0.0)?,
        up: try_vec(size, 0.0)?,
        numbers: try_vec(groups.len(), [0.0; 5])?,
        pad,
        far: false,
    };
    let [m, lo, up] = [&mut out.m, &mut out.lo, &mut out.up].map(|v| Shared(v.as_mut_ptr()));
    let numbers = Shared(out.numbers.as_mut_ptr());
    each(groups, lifted, &|i, sums| {
        let (p, r) = solve::<T>(sums, groups.c);
        // SAFETY: each group is done once; all have room for each.
        let (m, up, numbers) = unsafe { (m.part(i * pad, pad), up.part(i * pad, d), numbers.part(i, 1)) };
        m.copy_from_slice(&sums.n[..pad]);
        if double {
            // SAFETY: as above.
            unsafe { lo.part(i * pad, pad) }.copy_from_slice(&sums.n[pad..]);
        }
        let mut gm = 0.0;
        for ((up, g), m) in up.iter_mut().zip(&g[i * d..][..d]).zip(m) {
            *up = g.to_f64();
            gm += *up * *m;
        }
        // at the edge, or where nothing has a weight, there is no gradient
        numbers[0] = if r == 0.0 || p[0] == 0.0 { [0.0; 5] } else { [1.0 / p[0], p[0] / (r + r), gm, 0.0, 0.0] };
    })?;
    Ok(out)
}

/// dx (`onto` what is there, for runs of rows), dweights (empty where all weights are one), and the sum over rows that dc is
/// made of.
pub fn gradients<T: Store>(
    groups: &Groups<T>,
    lifted: &Lifted,
    centres: &Centres,
    dx: &mut [T],
    dw: &mut [T],
    onto: bool,
) -> Result<f64> {
    let d = groups.d;
    let turned = turned(groups)?;
    let mut dc = try_vec(groups.rows, 0.0)?;
    let rows = (BLOCK / d.max(1)).max(1);
    let (dx, dw, sums) = (Shared(dx.as_mut_ptr()), Shared(dw.as_mut_ptr()), Shared(dc.as_mut_ptr()));
    let work = groups.indptr[groups.len()].max(groups.rows).saturating_mul(d);
    pool::map(groups.rows.div_ceil(rows), work, |b| {
        let range = b * rows..groups.rows.min((b + 1) * rows);
        let mut acc = try_vec(centres.pad, 0.0)?;
        // SAFETY: blocks have rows of their own.
        let (dx, dc) = unsafe { (dx.part(range.start * d, range.len() * d), sums.part(range.start, range.len())) };
        let acc = &mut acc;
        dispatch(Rows { groups, lifted, centres, turned: &turned, range, acc, dx, dw, dc, onto });
        Ok(())
    })?
    .into_iter()
    .collect::<Result<()>>()?;
    Ok(dc.iter().sum())
}

struct Rows<'a, T> {
    groups: &'a Groups<'a, T>,
    lifted: &'a Lifted,
    centres: &'a Centres,
    turned: &'a Turned,
    range: Range<usize>,
    acc: &'a mut [f64],
    dx: &'a mut [T],
    dw: Shared<T>,
    dc: &'a mut [f64],
    onto: bool,
}

/// An entry: its row, its place among the weights, its group.
#[derive(Clone, Copy, Default)]
struct Entry {
    row: usize,
    place: usize,
    group: usize,
}

/// What eight entries add to their rows: weights of the gradient, of x, and of the difference v; and numbers of their own.
struct Shares<S: Simd> {
    up: f64x8<S>,
    own: f64x8<S>,
    apart: f64x8<S>,
    dw: f64x8<S>,
    dc: f64x8<S>,
}

#[inline(always)]
fn load<S: Simd, T: Store>(s: S, x: &[T]) -> [f64x8<S>; 2] {
    if x.len() >= STEP { T::load16(s, x) } else { T::load_tail(s, x) }
}

impl<T: Store> Rows<'_, T> {
    #[inline(always)]
    fn entry(&self, at: usize) -> Entry {
        if self.turned.ptr.is_empty() {
            return Entry { row: at, place: at, group: at / self.groups.members };
        }
        let place = self.turned.entries[at];
        Entry { row: self.groups.row(place), place, group: self.turned.groups[at] }
    }

    /// By what x is multiplied before the midpoint is taken off it.
    #[inline(always)]
    fn scale(&self, row: usize) -> f64 {
        let square = self.lifted.squares[row];
        if !self.groups.tangent {
            1.0
        } else if square > 0.0 {
            1.0 / square.sqrt()
        } else {
            0.0
        }
    }

    /// v = x scale − m, for one step of columns.
    #[inline(always)]
    fn apart<S: Simd>(&self, s: S, x: &[f64x8<S>; 2], scale: f64x8<S>, at: usize) -> [f64x8<S>; 2] {
        let hi = f64::load16(s, &self.centres.m[at..]);
        let mut v = [x[0].mul_add(scale, -hi[0]), x[1].mul_add(scale, -hi[1])];
        if !self.centres.lo.is_empty() {
            let lo = f64::load16(s, &self.centres.lo[at..]);
            v = [v[0] - lo[0], v[1] - lo[1]];
        }
        v
    }

    /// |v|², ⟨up, v⟩ and ⟨x, v⟩ of eight entries at most.
    #[inline(always)]
    fn dots<S: Simd>(&self, s: S, entries: &[Entry]) -> [f64x8<S>; 3] {
        let (d, pad) = (self.groups.d, self.centres.pad);
        let zero = f64x8::splat(s, 0.0);
        let mut lanes = [[zero; LANES]; 3];
        for (i, e) in entries.iter().enumerate() {
            let (x, scale) = (&self.groups.x[e.row * d..][..d], f64x8::splat(s, self.scale(e.row)));
            let mut sums = [[zero; 2]; 3];
            for k in (0..d).step_by(STEP) {
                let at = e.group * pad + k;
                let (x, g) = (load(s, &x[k..]), f64::load16(s, &self.centres.up[at..]));
                let v = self.apart(s, &x, scale, at);
                for j in 0..2 {
                    sums[0][j] = v[j].mul_add(v[j], sums[0][j]);
                    sums[1][j] = g[j].mul_add(v[j], sums[1][j]);
                    sums[2][j] = x[j].mul_add(v[j], sums[2][j]);
                }
            }
            for k in 0..3 {
                lanes[k][i] = sums[k][0] + sums[k][1];
            }
        }
        let mut out = [zero; 3];
        for k in 0..3 {
            let v = transpose(lanes[k]);
            out[k] = ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
        }
        out
    }

    /// The formulas above `midpoint`, for points.
    #[inline(always)]
    fn points<S: Simd>(&self, s: S, entries: &[Entry], [q, gd, xd]: [f64x8<S>; 3]) -> Shares<S> {
        let (c, [per, wide, gm, ..]) = (self.groups.c, self.of_groups(s, entries));
        let [w, l, _, square, _] = self.of_rows(s, entries);
        let along = gd - q * c * wide * gm;
        let f = w * l * per;
        Shares {
            up: f,
            own: f * c * l * along,
            apart: f * wide * gm * (-2.0 * c),
            dw: l * along * per,
            dc: w * per * (along * l * l * square * 0.5 - l * xd * gm * wide),
        }
    }

    /// Those above `polar`, for tangent vectors: ⟨up, v⟩ is that of the part across m̂ with x̂.
    #[inline(always)]
    fn vectors<S: Simd>(&self, s: S, entries: &[Entry], [q, across, _]: [f64x8<S>; 3]) -> Shares<S> {
        let (root, [per, sigma, along, shape, cosh]) = (self.groups.c.sqrt(), self.of_groups(s, entries));
        let shape = shape.simd_gt(0.0).select(shape, f64x8::splat(s, 1.0));
        let [w, f, tau, square, bend] = self.of_rows(s, entries);
        let (length, longest) = (square.sqrt(), f64x8::splat(s, LONGEST));
        let step = (length * (2.0 * root)).min(longest) - sigma;
        let apart = sinh(s, step.abs());
        let near = apart.mul_add(apart, 1.0).sqrt();
        let apart = apart.copysign(step);
        // 1 − cos θ
        let turn = q * 0.5;
        let (half, side) = (per * 0.5, shape * across);
        let radial = per * (along * (near - tau * cosh * turn) + tau * side);
        let across = half * (along * cosh * (1.0 - turn) + side);
        let zero = f64x8::splat(s, 0.0);
        let scale = length.simd_gt(0.0).select(1.0 / length, zero);
        let centre = w * f * half * along * cosh;
        let dc = if self.centres.far {
            w * length * radial
        } else {
            let sinh = sigma / shape / root;
            w * square * (bend * length * across - f * half * along * sinh)
        };
        Shares {
            up: w * f * half * shape,
            own: (w * (radial - f * across) + centre) * scale,
            apart: -centre,
            dw: half * (along * (apart / root - cosh * f * length * turn) + f * length * side),
            dc,
        }
    }

    #[inline(always)]
    fn of_groups<S: Simd>(&self, s: S, entries: &[Entry]) -> [f64x8<S>; 5] {
        let mut all = [[0.0; LANES]; 5];
        for (i, e) in entries.iter().enumerate() {
            let numbers = &self.centres.numbers[e.group];
            for k in 0..5 {
                all[k][i] = numbers[k];
            }
        }
        let mut out = [f64x8::splat(s, 0.0); 5];
        for k in 0..5 {
            out[k] = f64x8::from_slice(s, &all[k]);
        }
        out
    }

    /// w, f, τ, |x|² and how f changes with c
    #[inline(always)]
    fn of_rows<S: Simd>(&self, s: S, entries: &[Entry]) -> [f64x8<S>; 5] {
        let l = self.lifted;
        let mut all = [[0.0; LANES]; 5];
        for (i, e) in entries.iter().enumerate() {
            all[0][i] = self.groups.weight(e.place);
            all[1][i] = l.f[e.row];
            all[2][i] = l.tau[e.row];
            all[3][i] = l.squares[e.row];
            all[4][i] = l.bend[e.row];
        }
        let mut out = [f64x8::splat(s, 0.0); 5];
        for k in 0..5 {
            out[k] = f64x8::from_slice(s, &all[k]);
        }
        out
    }
}

impl<T: Store> Kernel for Rows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (range, d, pad) = (self.range.clone(), self.groups.d, self.centres.pad);
        let (acc, dx, dc) = (std::mem::take(&mut self.acc), std::mem::take(&mut self.dx), std::mem::take(&mut self.dc));
        let own = self.turned.ptr.is_empty();
        let all = if own { range.clone() } else { self.turned.ptr[range.start]..self.turned.ptr[range.end] };
        // rows that no group has
        if !own {
            dx.fill(T::from_f64(0.0));
            dc.fill(0.0);
            acc.fill(0.0);
        }
        for first in all.clone().step_by(LANES) {
            let n = LANES.min(all.end - first);
            let mut entries = [Entry::default(); LANES];
            for i in 0..n {
                entries[i] = self.entry(first + i);
            }
            let entries = &entries[..n];
            let dots = self.dots(s, entries);
            let shares =
                if self.groups.tangent { self.vectors(s, entries, dots) } else { self.points(s, entries, dots) };
            for (i, e) in entries.iter().enumerate() {
                if self.groups.weights.is_some() {
                    // SAFETY: an entry belongs to one row and is met once; there is a weight for each.
                    unsafe { *self.dw.at(e.place) = T::from_f64(shares.dw.as_slice()[i]) };
                }
                let at = e.row - range.start;
                let x = &self.groups.x[e.row * d..][..d];
                let scale = f64x8::splat(s, self.scale(e.row));
                let up = f64x8::splat(s, shares.up.as_slice()[i]);
                let mine = f64x8::splat(s, shares.own.as_slice()[i]);
                let apart = f64x8::splat(s, shares.apart.as_slice()[i]);
                // a row of several entries adds up in acc, others go straight to dx
                let last = own || first + i + 1 == self.turned.ptr[e.row + 1];
                let only = own || (last && first + i == self.turned.ptr[e.row]);
                dc[at] += shares.dc.as_slice()[i];
                for k in (0..d).step_by(STEP) {
                    let place = e.group * pad + k;
                    let (x, g) = (load(s, &x[k..]), f64::load16(s, &self.centres.up[place..]));
                    let v = self.apart(s, &x, scale, place);
                    let mut a = [f64x8::splat(s, 0.0); 2];
                    if !only {
                        a = f64::load16(s, &acc[k..]);
                    }
                    for j in 0..2 {
                        a[j] = v[j].mul_add(apart, x[j].mul_add(mine, g[j].mul_add(up, a[j])));
                    }
                    if last {
                        let out = &mut dx[at * d + k..at * d + d.min(k + STEP)];
                        if self.onto {
                            let there = load(s, out);
                            a = [a[0] + there[0], a[1] + there[1]];
                        }
                        if out.len() == STEP {
                            T::store16(s, a, out);
                        } else {
                            T::store_tail(s, a, out);
                        }
                        if !only {
                            acc[k..k + STEP].fill(0.0);
                        }
                    } else {
                        f64::store16(s, a, &mut acc[k..]);
                    }
                }
            }
        }
    }
}
