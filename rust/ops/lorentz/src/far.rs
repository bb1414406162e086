//! Pairs so far out and so near to each other that sums of twice f64's precision leave nothing of their chord. The one rule:
//! the longer vector is taken out of the shorter one element by element, so that nothing which cancels is ever a sum.
//!
//! With l the longer, h = kl + w (k and w of twice f64's precision, w of what is left of h), P = |w|² − ⟨w, l⟩²/|l|² the square of what is
//! across l, μ = √(1 + cP), and hyperbolic angles r and η along l, √c|l| = sinh r, √c⟨h, l⟩/|l| = μ sinh η:
//! cosh √c d = μ cosh(r − η) = 1 + cP/(1 + μ) + μ(E − 1)²/(2E), E = e^(r − η), a quotient of sums without a cancellation.

use super::beyond;
use base::dd::{Dd, Num};
use base::pool::{self, Shared};
use base::roots::{arsinh_root, arsinh_root_d};
use base::simd::*;
use base::{Result, Tensor, try_vec};
use drivers::rows::{numbers, put};

/// Elements per block of rows: the unit of threads and of sums.
const BLOCK: usize = 4 * 1024;
/// Lanes of a vector; rows are filled with zeros up to whole ones.
const LANES: usize = 8;

/// What two points have between them; pairs are numbers of twice f64's precision.
#[derive(Clone, Copy)]
pub struct Found {
    /// Q, S(cQ/4), S'(cQ/4)
    pub chord: f64,
    pub s: f64,
    pub slope: f64,
    /// √c t
    pub times: [f64; 2],
    /// τ_x − τ_y over c
    pub rise: f64,
    /// 1 − τ_y/τ_x, 1 − τ_x/τ_y
    pub leans: [[f64; 2]; 2],
}

pub struct Meet<'a> {
    pub x: &'a [f64],
    pub y: &'a [f64],
    pub c: f64,
}

/// The sum over the lanes of all vectors.
#[inline(always)]
pub fn total<S: Simd>(s: S, sum: Dd<S>) -> Dd<S> {
    let (mut hi, mut lo) = ([0.0; LANES], [0.0; LANES]);
    sum.hi.store_slice(&mut hi);
    sum.lo.store_slice(&mut lo);
    let mut whole = of(s, 0.0);
    for i in 0..LANES {
        whole = whole + Dd { hi: f64x8::splat(s, hi[i]), lo: f64x8::splat(s, lo[i]) };
    }
    whole
}

#[inline(always)]
pub fn of<S: Simd>(s: S, v: f64) -> Dd<S> {
    Dd::of(f64x8::splat(s, v))
}

#[inline(always)]
pub fn one<S: Simd>(v: f64x8<S>) -> f64 {
    let mut lanes = [0.0; LANES];
    v.store_slice(&mut lanes);
    lanes[0]
}

#[inline(always)]
pub fn both<S: Simd>(v: Dd<S>) -> [f64; 2] {
    [one(v.hi), one(v.lo)]
}

impl Kernel for Meet<'_> {
    type Output = Found;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Found {
        let Meet { x, y, c } = self;
        let n = x.len().min(y.len()) / LANES * LANES;
        let mut sums = [of(s, 0.0); 4];
        for i in (0..n).step_by(LANES) {
            let (a, b) = (f64x8::from_slice(s, &x[i..i + LANES]), f64x8::from_slice(s, &y[i..i + LANES]));
            sums[0] = sums[0] + Dd::product(a, a);
            sums[1] = sums[1] + Dd::product(b, b);
            sums[2] = sums[2] + Dd::product(a, b);
            sums[3] = sums[3] + Dd::sum(a, -b) * Dd::sum(a, b);
        }
        let (xx, yy, xy, p) = (total(s, sums[0]), total(s, sums[1]), total(s, sums[2]), total(s, sums[3]));
        // a choice that does not change with the order of the two
        let first = match both(xx).partial_cmp(&both(yy)) {
            Some(std::cmp::Ordering::Equal) | None => x > y,
            Some(order) => order.is_gt(),
        };
        let (long, short, ll) = if first { (x, y, xx) } else { (y, x, yy) };
        let k = xy / ll;
        let mut sums = [of(s, 0.0); 2];
        for i in (0..n).step_by(LANES) {
            let (l, h) = (f64x8::from_slice(s, &long[i..i + LANES]), f64x8::from_slice(s, &short[i..i + LANES]));
            let w = (Dd::of(h) - Dd::product(k.hi, l)) - Dd::product(k.lo, l);
            sums[0] = sums[0] + w.square();
            sums[1] = sums[1] + w * l;
        }
        let (ww, wl) = (total(s, sums[0]), total(s, sums[1]));
        let (unit, curve) = (of(s, 1.0), of(s, c));
        let across = curve * (ww - wl * (wl / ll));
        // of a pair along one line rounding may leave less than nothing
        let (zero, some) = (f64x8::splat(s, 0.0), across.hi.simd_gt(0.0));
        let across = Dd { hi: some.select(across.hi, zero), lo: some.select(across.lo, zero) };
        let mass = (unit + across).root();
        let length = (curve * ll).root();
        let along = (k + wl / ll) * length;
        let late = (unit + curve * ll).root();
        let early = (mass * mass + along * along).root();
        // e^r, and e^η or, where that is less than 1, e^−η
        let same = one(along.get()) >= 0.0;
        let (big, other) = (late + length, early + if same { along } else { -along });
        let e = if same { mass * big / other } else { big * other / mass };
        let past = e - unit;
        let height = across / (unit + mass) + mass * (past * past) / (e + e);
        let u = height.get() * 0.5;
        let root = arsinh_root(u);
        let (tx, ty) = if first { (late, early) } else { (early, late) };
        let rise = p / (tx + ty);
        Found {
            chord: one(((height + height) / curve).get()),
            s: one(root),
            slope: one(arsinh_root_d(u, root)),
            times: [one(tx.get()), one(ty.get())],
            rise: one(rise.get()),
            leans: [both(curve * rise / tx), both(-(curve * rise / ty))],
        }
    }
}

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
