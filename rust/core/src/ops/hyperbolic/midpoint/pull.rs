//! Gradients of midpoints, row by row of x. The one rule: a row adds up what its groups send it in the order of the groups,
//! and every entry is met once.

use super::gather::{Groups, Lambda, each, solve};
use crate::pool::{self, Shared};
use crate::simd::*;
use crate::store::{STEP, Store};
use crate::{Result, try_vec};
use std::ops::Range;

/// Elements to a task.
const BLOCK: usize = 16 * 1024;

/// Of every group: the midpoint as hi and lo (padded rows), 1/P, 1/α and ⟨g, m⟩.
struct Centres {
    m: Vec<f64>,
    numbers: Vec<[f64; 3]>,
    pad: usize,
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

/// dx, dweights (empty where all weights are one), and dc.
pub fn gradients<T: Store>(groups: &Groups<T>, lambda: &Lambda, g: &[T], dx: &mut [T], dw: &mut [T]) -> Result<f64> {
    let (d, pad) = (groups.d, groups.d.next_multiple_of(STEP));
    let mut centres =
        Centres { m: try_vec(2 * pad * groups.len(), 0.0)?, numbers: try_vec(groups.len(), [0.0; 3])?, pad };
    let (m, numbers) = (Shared(centres.m.as_mut_ptr()), Shared(centres.numbers.as_mut_ptr()));
    each(groups, lambda, &|i, sums| {
        let (p, r) = solve::<T>(sums, groups.c);
        // SAFETY: each group is done once; both have room for each.
        let (m, numbers) = unsafe { (m.part(i * 2 * pad, 2 * pad), numbers.part(i, 1)) };
        m.copy_from_slice(&sums.n);
        let gm: f64 = g[i * d..][..d].iter().zip(m).map(|(g, m)| g.to_f64() * *m).sum();
        // at the edge, or where nothing has a weight, there is no gradient
        numbers[0] = if r == 0.0 || p[0] == 0.0 { [0.0; 3] } else { [1.0 / p[0], p[0] / (r + r), gm] };
    })?;
    let turned = turned(groups)?;
    let mut dc = try_vec(groups.rows, 0.0)?;
    let rows = (BLOCK / d.max(1)).max(1);
    let (dx, dw, sums) = (Shared(dx.as_mut_ptr()), Shared(dw.as_mut_ptr()), Shared(dc.as_mut_ptr()));
    let work = groups.indptr[groups.len()].max(groups.rows).saturating_mul(d);
    pool::map(groups.rows.div_ceil(rows), work, |b| {
        let range = b * rows..groups.rows.min((b + 1) * rows);
        let mut acc = try_vec(pad, 0.0)?;
        // SAFETY: blocks have rows of their own.
        let (dx, dc) = unsafe { (dx.part(range.start * d, range.len() * d), sums.part(range.start, range.len())) };
        dispatch(Rows { groups, lambda, centres: &centres, turned: &turned, g, range, acc: &mut acc, dx, dw, dc });
        Ok(())
    })?
    .into_iter()
    .collect::<Result<()>>()?;
    Ok(dc.iter().sum())
}

struct Rows<'a, T> {
    groups: &'a Groups<'a, T>,
    lambda: &'a Lambda,
    centres: &'a Centres,
    turned: &'a Turned,
    g: &'a [T],
    range: Range<usize>,
    acc: &'a mut [f64],
    dx: &'a mut [T],
    dw: Shared<T>,
    dc: &'a mut [f64],
}

#[inline(always)]
fn load<S: Simd, T: Store>(s: S, x: &[T]) -> [f64x8<S>; 2] {
    if x.len() >= STEP { T::load16(s, x) } else { T::load_tail(s, x) }
}

impl<T: Store> Kernel for Rows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Rows { groups, lambda, centres: &Centres { ref m, ref numbers, pad }, turned, g, range, acc, dx, dw, dc } =
            self;
        let (d, c) = (groups.d, groups.c);
        for ((row, dx), dc) in range.clone().zip(dx.chunks_exact_mut(d.max(1))).zip(dc) {
            acc.fill(0.0);
            let x = &groups.x[row * d..][..d];
            let (l, square) = (lambda.hi[row], lambda.squares[row]);
            let own = turned.ptr.is_empty();
            for at in if own { row..row + 1 } else { turned.ptr[row]..turned.ptr[row + 1] } {
                let (entry, group) =
                    if own { (row, row / groups.members) } else { (turned.entries[at], turned.groups[at]) };
                let [per, wide, gm] = numbers[group];
                let (hi, lo) = m[group * 2 * pad..][..2 * pad].split_at(pad);
                let g = &g[group * d..][..d];
                let zero = f64x8::splat(s, 0.0);
                let (mut q, mut gd, mut xd) = (zero, zero, zero);
                for k in (0..d).step_by(STEP) {
                    let (x, g) = (load(s, &x[k..]), load(s, &g[k..]));
                    let (hi, lo) = (f64::load16(s, &hi[k..]), f64::load16(s, &lo[k..]));
                    for j in 0..2 {
                        let v = (x[j] - hi[j]) - lo[j];
                        q = v.mul_add(v, q);
                        gd = g[j].mul_add(v, gd);
                        xd = x[j].mul_add(v, xd);
                    }
                }
                let (q, gd, xd) = (hsum(q), hsum(gd), hsum(xd));
                let along = gd - c * q * wide * gm;
                let w = groups.weight(entry);
                if groups.weights.is_some() {
                    // SAFETY: an entry belongs to one row and is met once; there is a weight for each.
                    unsafe { *dw.at(entry) = T::from_f64(l * along * per) };
                }
                *dc += w * per * (along * l * l * square * 0.5 - l * xd * gm * wide);
                let f = w * l * per;
                let (f, own, apart) =
                    (f64x8::splat(s, f), f64x8::splat(s, f * c * l * along), f64x8::splat(s, -2.0 * f * c * wide * gm));
                for k in (0..d).step_by(STEP) {
                    let (x, g) = (load(s, &x[k..]), load(s, &g[k..]));
                    let (hi, lo) = (f64::load16(s, &hi[k..]), f64::load16(s, &lo[k..]));
                    let mut a = f64::load16(s, &acc[k..]);
                    for j in 0..2 {
                        let v = (x[j] - hi[j]) - lo[j];
                        a[j] = v.mul_add(apart, x[j].mul_add(own, g[j].mul_add(f, a[j])));
                    }
                    f64::store16(s, a, &mut acc[k..]);
                }
            }
            for (dx, a) in dx.iter_mut().zip(acc.iter()) {
                *dx = T::from_f64(*a);
            }
        }
    }
}
