//! What two points have between them. The one rule: the longer vector is taken out of the shorter one element by element, so that
//! nothing which cancels is ever a sum.
//!
//! With l the longer, h = kl + w (k and w of twice f64's precision, w of what is left of h), P = |w|² − ⟨w, l⟩²/|l|² the square of what is
//! across l, μ = √(1 + cP), and hyperbolic angles r and η along l, √c|l| = sinh r, √c⟨h, l⟩/|l| = μ sinh η:
//! cosh √c d = μ cosh(r − η) = 1 + cP/(1 + μ) + μ(E − 1)²/(2E), E = e^(r − η), a quotient of sums without a cancellation.

use base::dd::{Dd, Num};
use base::roots::{arsinh_root, arsinh_root_d};
use base::simd::*;

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
