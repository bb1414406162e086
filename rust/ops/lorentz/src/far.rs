//! Pairs so far out and so near to each other that sums of twice f64's precision leave nothing of their chord. The one rule: such a
//! row is done once more, alone, by [`Meet`].

use super::beyond;
use super::meet::Meet;
use base::dd::{Dd, Num};
use base::pool::{self, Shared};
use base::simd::*;
use base::{Result, Tensor, try_vec};
use drivers::rows::{numbers, put};

/// Elements per block of rows: the unit of threads and of sums.
const BLOCK: usize = 4 * 1024;
/// Lanes of a vector; rows are filled with zeros up to whole ones.
const LANES: usize = 8;

/// f(x − y − kx), in place of x
struct Turn<'a> {
    x: &'a mut [f64],
    y: &'a [f64],
    lean: [f64; 2],
    f: f64,
}

impl Kernel for Turn<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let lean = Dd { hi: f64x8::splat(s, self.lean[0]), lo: f64x8::splat(s, self.lean[1]) };
        for (x, y) in self.x.chunks_exact_mut(LANES).zip(self.y.chunks_exact(LANES)) {
            let (a, b) = (f64x8::from_slice(s, x), f64x8::from_slice(s, y));
            ((Dd::sum(a, -b) - lean * a).get() * self.f).store_slice(x);
        }
    }
}

/// Row `r` of rows that may be one for all, in the head of `into`.
fn row(t: &Tensor, r: usize, into: &mut [f64]) {
    let (rows, d) = t.rows();
    numbers(t, if rows == 1 { 0 } else { r * d }, &mut into[..d]);
}

fn number(t: &Tensor, r: usize) -> f64 {
    let mut v = [0.0];
    numbers(t, r, &mut v);
    v[0]
}

/// Does `each` row that `marks` has a negative number for: the row, its x and y, its curvature, and the block's own sums.
fn walk(
    t: &[Tensor],
    marks: &Tensor,
    sums: usize,
    each: impl Fn(usize, &[Vec<f64>; 2], f64, &mut [f64]) + Sync,
) -> Result<Vec<f64>> {
    let (x, y, c, rows, d) = (&t[0], &t[1], &t[2], marks.len(), t[0].rows().1);
    let block = (BLOCK / d.max(1)).clamp(1, BLOCK);
    let blocks = rows.div_ceil(block);
    let mut partial = try_vec(blocks.saturating_mul(sums), 0.0f64)?;
    let share = Shared(partial.as_mut_ptr());
    let pad = d.next_multiple_of(LANES);
    drop(try_vec(pad.saturating_mul(4), 0.0f64)?); // each thread asks for as much again
    pool::run(blocks, rows.saturating_mul(d), |b| {
        // SAFETY: each block has its own part of the sums.
        let own = unsafe { share.part(b * sums, sums) };
        let mut pair = [vec![0.0; pad], vec![0.0; pad]];
        for r in b * block..rows.min((b + 1) * block) {
            if number(marks, r) < 0.0 {
                row(x, r, &mut pair[0]);
                row(y, r, &mut pair[1]);
                each(r, &pair, number(c, r), own);
            }
        }
    })?;
    // added up in the order of blocks
    let mut whole = try_vec(sums, 0.0f64)?;
    for part in partial.chunks_exact(sums.max(1)) {
        for (v, p) in whole.iter_mut().zip(part) {
            *v += p;
        }
    }
    Ok(whole)
}

/// Writes the distances in place of the negative numbers of d: x, y, c, d.
pub fn distances(t: &[Tensor]) -> Result<()> {
    let d = &t[3];
    walk(&t[..3], d, 0, |r, [x, y], c, _| {
        let found = if beyond::rows(x, y, c) {
            beyond::pair(&mut x.clone(), &mut y.clone(), c).0
        } else {
            let found = dispatch(Meet { x, y, c });
            found.chord.sqrt() * found.s
        };
        // SAFETY: an output of one number for each row, checked by the walk before, and this row is this block's.
        unsafe { put(d, r, &[found]) };
    })?;
    Ok(())
}

/// Adds the gradients of rows that have a negative number in `marks`, where there are zeros now: x, y, g, c, dx, dy, dc.
pub fn gradients(t: &[Tensor], marks: &Tensor) -> Result<()> {
    let (rows, d, g) = (marks.len(), t[0].rows().1, &t[2]);
    let summed = [t[4].rows().0 != rows, t[5].rows().0 != rows];
    let pad = d.next_multiple_of(LANES);
    let sums = walk(&[t[0], t[1], t[3]], marks, 2 * pad + 1, |r, [x, y], c, own| {
        let (g, mut turned) = (number(g, r), [x.clone(), y.clone()]);
        let dc = if beyond::rows(x, y, c) {
            g * beyond::turn(&mut turned, c, g)
        } else {
            let found = dispatch(Meet { x, y, c });
            let (q, [tx, ty]) = (found.chord, found.times);
            let f = if q == 0.0 { 0.0 } else { g / (q * (c * q * 0.25 + 1.0)).sqrt() };
            for (i, (turned, other)) in turned.iter_mut().zip([y, x]).enumerate() {
                dispatch(Turn { x: turned, y: other, lean: found.leans[i], f });
            }
            g * q.sqrt() * found.slope * q * 0.25 - f * found.rise / tx * (found.rise / ty) * 0.5
        };
        for (i, turned) in turned.iter().enumerate() {
            if summed[i] {
                for (sum, v) in own[i * pad..][..d].iter_mut().zip(turned) {
                    *sum += *v;
                }
            } else {
                // SAFETY: an output of a row for each row, checked by the walk before, and this row is this block's.
                unsafe { put(&t[4 + i], r * d, &turned[..d]) };
            }
        }
        if t[6].len() == rows {
            // SAFETY: as above.
            unsafe { put(&t[6], r, &[dc]) };
        } else {
            own[2 * pad] += dc;
        }
    })?;
    let parts = [(&t[4], 0, d * usize::from(summed[0])), (&t[5], pad, d * usize::from(summed[1]))];
    for (out, at, n) in parts.into_iter().chain([(&t[6], 2 * pad, usize::from(t[6].len() != rows))]) {
        for i in 0..n {
            let now = number(out, i) + sums[at + i];
            // SAFETY: an output of so many numbers, and the blocks are done.
            unsafe { put(out, i, &[now]) };
        }
    }
    Ok(())
}
