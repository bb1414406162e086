//! Pairs whose squares are no ordinary numbers of f64, or that are so far out that an angle of 2⁻¹⁰⁶ is a way. The one rule: rows
//! are brought near 1 by powers of two, what is larger than f64 then, √c|x| = sinh r, is known by its logarithm, and what is
//! across by differences of products, which are exactly nothing on one ray.
//!
//! With radii r and ρ, δ = r − ρ and the angle θ: sinh²(D/2) = sinh²(δ/2) + sinh r sinh ρ sin²(θ/2), D = √c d;
//! ∂D/∂r = (sinh δ + 2 cosh r sinh ρ sin²(θ/2))/sinh D, and ∂D/∂θ = sinh r sinh ρ sin θ/sinh D.

use super::across::{Along, Chord, Pair, Slope, Slopes, exponent, less, pivot};
use super::meet::Meet;
use base::near::{scaled, times};
use base::simd::*;
use std::f64::consts::LN_2;

/// Squares between these are numbers with all their digits, and so are their squares.
const LEAST: f64 = f64::from_bits((1023 - 800) << 52);
const MOST: f64 = f64::from_bits((1023 + 480) << 52);
/// Their product with c, for sums that do not cancel.
const PAST: f64 = f64::from_bits((1023 + 960) << 52);
/// c|x|² from which on sums of twice f64's precision do not say what is across, where they cancel.
const WIDE: f64 = 1e18;
/// The logarithm of √c|x| from which on 1 is nothing beside its square, and the one, negative, from which on it is nothing to 1.
const LONG: f64 = 20.0;

/// The rows whose squares are such that a pair has to come here; of NaN too.
#[inline(always)]
pub fn outside<S: Simd>(xx: f64x8<S>, yy: f64x8<S>, c: f64x8<S>) -> mask64x8<S> {
    let top = xx.max(yy);
    !(top.simd_ge(LEAST) & top.simd_le(MOST) & (c * top).simd_le(PAST) & (xx + yy).simd_ge(LEAST))
}

/// Whether a pair that has been left has to come here.
pub fn rows(x: &[f64], y: &[f64], c: f64) -> bool {
    let [xx, yy] = [x, y].map(|v| v.iter().map(|v| v * v).sum::<f64>());
    let top = xx.max(yy);
    !(LEAST..=MOST).contains(&top) || !(c * top <= WIDE) || (xx + yy).is_nan()
}

/// The slopes of g d in place of the rows, and that by c over g.
pub fn turn(rows: &mut [Vec<f64>; 2], c: f64, g: f64) -> f64 {
    let [x, y] = rows;
    let slopes = pair(x, y, c).1;
    let others = [y.clone(), x.clone()];
    for ((row, other), slope) in [x, y].into_iter().zip(&others).zip(&slopes.rows) {
        dispatch(Along { x: row, y: other, slope });
        for v in row.iter_mut() {
            *v *= g;
        }
    }
    slopes.c
}

/// log(eᵃ + eᵇ)
fn both_of(a: f64, b: f64) -> f64 {
    let (most, least) = if a > b { (a, b) } else { (b, a) };
    if most == f64::NEG_INFINITY { most } else { most + (least - most).exp().ln_1p() }
}

/// log sinh v of v ≥ 0
fn log_sinh(v: f64) -> f64 {
    if v > 1.0 { v - LN_2 + (-(-2.0 * v).exp()).ln_1p() } else { v.sinh().ln() }
}

/// The distance of a pair, and its slopes; of the two in either order, bit for bit.
pub fn pair(x: &mut [f64], y: &mut [f64], c: f64) -> (f64, Slopes) {
    if *x >= *y {
        return ordered(x, y, c);
    }
    let (d, Slopes { rows: [b, a], c }) = ordered(y, x, c);
    (d, Slopes { rows: [a, b], c })
}

fn ordered(x: &mut [f64], y: &mut [f64], c: f64) -> (f64, Slopes) {
    let none = |v: f64| Slope { pull: v, turn: 0.0, kappa: [0.0; 2], pivot: None };
    let (Some(ex), Some(ey)) = (exponent(x), exponent(y)) else {
        return (f64::NAN, Slopes { rows: [none(f64::NAN), none(f64::NAN)], c: f64::NAN });
    };
    let top = ex.max(ey);
    if top == i32::MIN {
        return (0.0, Slopes { rows: [none(0.0), none(0.0)], c: 0.0 });
    }
    // one power where they are alike, or one of them is nothing
    let alike = ex.min(ey) >= top - 8 || ex.min(ey) == i32::MIN;
    let long = c.ln() * 0.5 + f64::from(top) * LN_2;
    let common = alike || long < LONG;
    let (ex, ey) = if common { (top, top) } else { (ex, ey) };
    times(x, -ex);
    times(y, -ey);
    if long <= LONG {
        return near(x, y, c, top, long);
    }
    let pivots = [pivot(x, y), pivot(y, x)];
    let seen = dispatch(Pair { x, y, pivots });
    let [xx, yy] = seen.squares;
    let logs = [xx.ln() * 0.5 + f64::from(ex) * LN_2, yy.ln() * 0.5 + f64::from(ey) * LN_2];
    let [a, b] = logs.map(|v| v + c.ln() * 0.5);
    // r = log 2e^a + rest(a)
    let rest = |a: f64| {
        let z = (-2.0 * a).exp();
        (0.5 * z / (1.0 + (1.0 + z).sqrt())).ln_1p()
    };
    let quotient = match common {
        true if seen.more >= 0.0 => (seen.more / yy).ln_1p() * 0.5,
        true => -(-seen.more / xx).ln_1p() * 0.5,
        false => (xx / yy).ln() * 0.5 + f64::from(ex - ey) * LN_2,
    };
    let radius = |a: f64| if a > LONG { a + LN_2 } else { a.exp().asinh() };
    let delta = if a > 0.0 && b > 0.0 { quotient + (rest(a) - rest(b)) } else { radius(a) - radius(b) };
    // sin θ, by what of the shorter is across the longer, and sin²(θ/2)
    let sine = (if xx >= yy { seen.across[0] / yy } else { seen.across[1] / xx }).clamp(0.0, 1.0);
    let sine = if xx == 0.0 || yy == 0.0 { 0.0 } else { sine };
    let half = if sine > 0.5 {
        (1.0 - seen.product / (xx.sqrt() * yy.sqrt())) * 0.5
    } else {
        let both = 1.0 + (1.0 - sine).sqrt();
        if seen.product >= 0.0 { sine / (2.0 * both) } else { both * 0.5 }
    };
    let half = if xx == 0.0 || yy == 0.0 { 0.0 } else { half };
    // sinh(|δ|/2), where that is possible without the logarithms, which have no more digits than they have places
    let exp = |v: f64, e: i32| {
        let v = scaled(c.sqrt() * v.sqrt(), e);
        v + (1.0 + v * v).sqrt()
    };
    let u = if a.max(b) < 300.0 && delta.abs() > 1.0 {
        let quotient = exp(xx, ex) / exp(yy, ey);
        let e = quotient.max(1.0 / quotient);
        (e - 1.0) / (2.0 * e.sqrt())
    } else {
        (delta.abs() * 0.5).sinh()
    };
    let e = if xx * yy == 0.0 { 0 } else { ex + ey };
    let odd = if e % 2 == 0 { 1.0 } else { std::f64::consts::SQRT_2 };
    let v = scaled(c.sqrt() * (xx.sqrt() * yy.sqrt()).sqrt() * half.sqrt() * odd, e.div_euclid(2));
    let whole = if u < 1e150 && v < 1e150 {
        2.0 * u.hypot(v).asinh()
    } else {
        2.0 * LN_2 + both_of(2.0 * log_sinh(delta.abs() * 0.5), a + b + half.ln())
    };
    let per = 1.0 / c.sqrt();
    if whole == 0.0 {
        return (0.0, Slopes { rows: [none(0.0), none(0.0)], c: 0.0 });
    }
    let rise = log_sinh(whole);
    let cosh = |a: f64| if a > LONG { a } else { (2.0 * a).exp().ln_1p() * 0.5 };
    let apart = (log_sinh(delta.abs()) - rise).exp().copysign(delta);
    let by = |one: f64, other: f64| (LN_2 + half.ln() + cosh(one) + other - rise).exp();
    let out = [apart + by(a, b), by(b, a) - apart];
    let (nx, ny) = (xx.sqrt(), yy.sqrt());
    let slope = |k: usize, n: f64, far: f64, other: f64, b: f64| Slope {
        pull: out[k] * (-cosh(far)).exp() / n,
        turn: if sine > 0.0 { (b + sine.ln() * 0.5 - rise).exp() / (sine.sqrt() * other) } else { 0.0 },
        kappa: seen.along[k],
        pivot: Some(pivots[k]),
    };
    let mut rows = [slope(0, nx, a, ny, b), slope(1, ny, b, nx, a)];
    // at the origin, where a row has no direction, the slope is that of the other's
    if xx == 0.0 || yy == 0.0 {
        let (k, n) = if xx == 0.0 { (0, ny) } else { (1, nx) };
        rows[k] = Slope { pull: 0.0, turn: 1.0 / n, kappa: [0.0; 2], pivot: None };
    }
    let (d, tanh) = (per * whole, |a: f64| (a - cosh(a)).exp());
    (d, Slopes { rows, c: (per * (out[0] * tanh(a) + out[1] * tanh(b)) - d) / (2.0 * c) })
}

/// Pairs of one power of two, whose curvature then is a number: it may be nothing.
fn near(x: &[f64], y: &[f64], c: f64, top: i32, long: f64) -> (f64, Slopes) {
    if long < -LONG {
        let n = dispatch(Chord(x, y)).sqrt();
        let f = if n == 0.0 { 0.0 } else { 1.0 / n };
        // f(x − y) as a turn with κ = 1
        let flat = || Slope { pull: 0.0, turn: f, kappa: [1.0, 0.0], pivot: None };
        return (scaled(n, top), Slopes { rows: [flat(), flat()], c: 0.0 });
    }
    let found = dispatch(Meet { x, y, c: scaled(scaled(c, top), top) });
    let (q, k) = (found.chord, scaled(scaled(c, top), top));
    let f = if q == 0.0 { 0.0 } else { 1.0 / (q * (k * q * 0.25 + 1.0)).sqrt() };
    let [tx, ty] = found.times;
    let dc = q.sqrt() * found.slope * q * 0.25 - f * found.rise / tx * (found.rise / ty) * 0.5;
    let slope = |lean: [f64; 2]| Slope { pull: 0.0, turn: f, kappa: less(lean), pivot: None };
    let rows = found.leans.map(slope);
    (scaled(q.sqrt() * found.s, top), Slopes { rows, c: scaled(scaled(scaled(dc, top), top), top) })
}
