//! What the gradients of rows need of their groups. The one rule: what is the same for all rows of a group is found once.

use super::groups::Groups;
use super::lift::{LANES, Lines, eight, load};
use super::polar;
use super::sums::{Solved, Sums, solve};
use base::pool::Shared;
use base::simd::*;
use base::store::{STEP, Store};
use base::{Result, try_vec};
use drivers::rows::{Acc, Wide};
use drivers::segments::SLOTS;
use std::ops::Range;

/// Sums in plain f64, whatever the data.
pub type Plain<S> = <f32 as Wide>::Acc<S>;

/// Of every group, in padded rows: the midpoint, or its direction; the gradient, or its part across that direction; and what
/// the midpoint leaves out (of f64 points), or the gradient and k times the midpoint. Then 1/P, ⟨g, m⟩/α and |m|² of
/// points; or what [`polar`] needs.
pub struct Centres {
    rows: Lines,
    pub numbers: Vec<[f64; 6]>,
    pub pad: usize,
}

impl Centres {
    pub fn new<T: Store>(groups: &Groups<T>, n: usize) -> Result<Self> {
        let pad = groups.d.next_multiple_of(STEP);
        Ok(Centres { rows: Lines::new(3 * n * pad)?, numbers: try_vec(n, [0.0; 6])?, pad })
    }
    /// m, up and what is beside them, of a group.
    #[inline(always)]
    pub fn row(&self, group: usize) -> [&[f64]; 3] {
        let (m, rest) = self.rows[3 * group * self.pad..][..3 * self.pad].split_at(self.pad);
        let (up, beside) = rest.split_at(self.pad);
        [m, up, beside]
    }
    /// Where they are written.
    pub fn places(&mut self) -> Places {
        Places { rows: Shared(self.rows.as_mut_ptr()), numbers: Shared(self.numbers.as_mut_ptr()) }
    }
}

pub struct Places {
    rows: Shared<f64>,
    numbers: Shared<[f64; 6]>,
}

/// What the gradients of the groups' rows need, from place `at` on; what dc has of it beside the rows. A function of its own
/// at every level.
#[inline(never)]
pub fn centres<S: Simd, T: Wide>(
    s: S,
    groups: &Groups<T>,
    range: Range<usize>,
    sums: &mut Sums,
    g: &[T],
    into: &Places,
    at: usize,
) -> f64 {
    s.vectorize(
        #[inline(always)]
        || {
            let (d, pad, n) = (groups.d, sums.pad, range.len());
            // SAFETY: each group is done once, and there is a place for each.
            let (rows, numbers) = unsafe { (into.rows.part(3 * at * pad, 3 * n * pad), into.numbers.part(at, n)) };
            let (zero, one) = (f64x8::splat(s, 0.0), f64x8::splat(s, 1.0));
            let solved = if groups.tangent { Solved::NONE } else { solve::<S, T>(s, groups.c, sums, n) };
            let mut lanes = Plain::<S>::EMPTY;
            for (k, i) in range.enumerate() {
                let (m, rest) = rows[3 * k * pad..][..3 * pad].split_at_mut(pad);
                m.copy_from_slice(sums.axis(k));
                let (g, mut along) = (&g[i * d..][..d], [Plain::<S>::zero(s); 2]);
                for ((g, up), m) in g.chunks(STEP).zip(rest.chunks_exact_mut(STEP)).zip(m.chunks_exact(STEP)) {
                    let (g, m) = (load(s, g), f64::load16(s, m));
                    along[0].dot(g[0], m[0]);
                    along[1].dot(g[1], m[1]);
                    f64::store16(s, g, up);
                }
                along[0].and(along[1]).keep(&mut lanes, k);
            }
            let (mut by, mut per, mut gm) = ([0.0; SLOTS], [0.0; SLOTS], [0.0; SLOTS]);
            for at in (0..n).step_by(LANES) {
                let (p, r) = (eight(s, &solved.p, at), eight(s, &solved.r, at));
                let along = Plain::totals(s, &lanes, at);
                // at the edge, or where nothing has a weight, there is no gradient
                let some = (r * p).simd_gt(0.0);
                let put = at..at + LANES;
                some.select(one / p, zero).store_slice(&mut per[put.clone()]);
                some.select(along * p / (r + r), zero).store_slice(&mut by[put.clone()]);
                along.store_slice(&mut gm[put]);
            }
            let mut own = 0.0;
            for k in 0..n {
                let (m, rest) = rows[3 * k * pad..][..3 * pad].split_at_mut(pad);
                let (up, beside) = rest.split_at_mut(pad);
                let mut off = f64x8::splat(s, 0.0);
                if groups.tangent {
                    let (of, rest) = polar::centre(groups.c, sums, k, gm[k]);
                    (numbers[k], off) = (of, f64x8::splat(s, -gm[k]));
                    own += rest;
                } else {
                    numbers[k] = [per[k], by[k], solved.square[k], 0.0, 0.0, 0.0];
                }
                if groups.exact() {
                    beside.copy_from_slice(sums.row(k)[1]);
                    continue;
                }
                let on = f64x8::splat(s, if groups.tangent { 0.0 } else { 2.0 * groups.c * by[k] });
                for ((m, up), beside) in
                    m.chunks_exact(LANES).zip(up.chunks_exact_mut(LANES)).zip(beside.chunks_exact_mut(LANES))
                {
                    let (m, v) = (f64x8::from_slice(s, m), f64x8::from_slice(s, up));
                    if groups.tangent {
                        m.mul_add(off, v).store_slice(up);
                        on.store_slice(beside);
                    } else {
                        m.mul_add(on, v).store_slice(beside);
                    }
                }
            }
            own
        },
    )
}
