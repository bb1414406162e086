//! Places of rows on the hyperboloid, and how far two are apart. The one rule: a row is X = (τ, f x), whether rows are tangent
//! vectors at 0 or points of the ball, so that no radius rounds it onto an edge.
//!
//! With σ = 2√c|x| of a tangent vector f = 2 sinh σ/σ, τ = cosh σ; with α = 1 − c|x|² of a point f = 2/α, τ = f − 1. Two
//! rows are at distance d with sinh²(√c d/2) = cD, D = (|x| − |y|)² sinhc²(√c(|x| − |y|)) + f f'(|x − y|² − (|x| − |y|)²)/4,
//! or D = f f'|x − y|²/4 in the ball: sums of positive terms.

use base::dd::Num;
use base::math;
use base::roots::*;
use base::simd::*;

/// Beyond this σ coordinates would overflow: vectors count as of this length.
pub const LONGEST: f64 = 160.0;
/// So small a curvature changes no digit, and lets c = 0 be no case of its own.
pub const FLAT: f64 = 1e-100;

#[inline(always)]
pub fn bent<S: Simd>(c: f64x8<S>) -> f64x8<S> {
    c.max(f64x8::splat(c.witness(), FLAT))
}

/// A row on the hyperboloid, and how that changes: dx = f dX + 2c(r ⟨dX, x⟩ + t dτ) x, dc = |x|²(r ⟨dX, x⟩ + t dτ).
#[derive(Clone, Copy)]
pub struct Place<S: Simd, N> {
    pub f: f64x8<S>,
    pub tau: f64x8<S>,
    pub r: f64x8<S>,
    pub t: f64x8<S>,
    pub length: N,
    pub square: N,
}

#[inline(always)]
pub fn places<S: Simd, N: Num<S>, const K: usize>(ball: bool, c: f64x8<S>, squares: [N; K]) -> [Place<S, N>; K] {
    let s = c.witness();
    let one = f64x8::splat(s, 1.0);
    let mut out = [Place { f: one, tau: one, r: one, t: one, length: squares[0], square: squares[0] }; K];
    for i in 0..K {
        let square = squares[i];
        let length = square.root();
        out[i] = if ball {
            let f = 2.0 / gap(c, square);
            let half = f * f * 0.5;
            Place { f, tau: f - 1.0, r: half, t: half, length, square }
        } else {
            let whole = c.sqrt() * length.get() * 2.0;
            let sigma = whole.min(f64x8::splat(s, LONGEST));
            let sinh = sinh(s, sigma);
            let f = over_root(sinh, whole) * 2.0;
            let tau = sinh.mul_add(sinh, 1.0).sqrt();
            Place { f, tau, r: f * sinh_log_d(sigma, f * 0.5, tau) * 4.0, t: f, length, square }
        };
    }
    out
}

/// As [`sinh_over_log_d`], from sinh(s)/s and cosh(s).
#[inline(always)]
pub fn sinh_log_d<S: Simd>(s: f64x8<S>, sinh: f64x8<S>, cosh: f64x8<S>) -> f64x8<S> {
    const FEW: &[f64; 13] = SINH_LOG_D.first_chunk().unwrap();
    let z = s * s;
    z.simd_lt(0.5).select(math::poly(z.witness(), z, FEW), (cosh / sinh - 1.0) / (z + z))
}

/// Two rows: D, cosh √c d = 1 + 2cD, the derivatives of D by c, and by one row, f f'((x − y) + k x)/2.
pub struct Apart<S: Simd> {
    pub d: f64x8<S>,
    pub cosh: f64x8<S>,
    pub by_c: f64x8<S>,
    /// f f'
    pub both: f64x8<S>,
    /// f f'k by the first row and by the second
    pub k: [f64x8<S>; 2],
}

#[inline(always)]
pub fn apart<S: Simd, N: Num<S>>(ball: bool, c: f64x8<S>, x: &Place<S, N>, y: &Place<S, N>, q: N) -> Apart<S> {
    let s = c.witness();
    let zero = f64x8::splat(s, 0.0);
    let (xx, yy, both) = (x.square.get(), y.square.get(), x.f * y.f);
    // f' changes by r' |y|² with c
    let bend = (x.r * xx).mul_add(y.f, x.f * y.r * yy);
    if ball {
        let q = q.get();
        let d = both * q * 0.25;
        return Apart {
            d,
            cosh: (c * d).mul_add(2.0, 1.0),
            by_c: bend * q * 0.25,
            both,
            k: [c * q * both * x.f * 0.5, c * q * both * y.f * 0.5],
        };
    }
    // |x| − |y|, which rounds less than the lengths; 0 of two zeros
    let step = (x.square - y.square) / (x.length + y.length + N::of(f64x8::splat(s, 1e-300)));
    let across = (q - step * step).get().max(zero);
    let step = step.get();
    let arg = (c.sqrt() * step).abs().min(f64x8::splat(s, LONGEST / 2.0));
    let sinh = sinh(s, arg);
    let shape = over_root(sinh, arg);
    let cosh = sinh.mul_add(sinh, 1.0).sqrt();
    let radial = step * shape * (step * shape);
    let d = across.mul_add(both * 0.25, radial);
    let bend = (bend * 0.25).mul_add(across, radial * (step * step) * sinh_log_d(arg, shape, cosh) * 2.0);
    // 4 sinh(√c step) cosh(√c step)/√c
    let slope = step * shape * cosh * 4.0;
    Apart {
        d,
        cosh: (c * d).mul_add(2.0, 1.0),
        by_c: bend,
        both,
        k: [along(c, x, y, q, across, slope, step), along(c, y, x, q, across, -slope, -step)],
    }
}

/// f f'k of x, where the lengths differ by `step`.
#[inline(always)]
fn along<S: Simd, N: Num<S>>(
    c: f64x8<S>,
    x: &Place<S, N>,
    y: &Place<S, N>,
    q: N,
    across: f64x8<S>,
    slope: f64x8<S>,
    step: f64x8<S>,
) -> f64x8<S> {
    let (xx, both, length) = (x.square.get(), x.f * y.f, x.length.get());
    let far = (length * slope + x.tau * y.f * across - both * (step * length + across * 0.5)) / xx;
    // ⟨x, y⟩ as half of |x|² + |y|² − |x − y|²
    let inner = ((xx + y.square.get()) - q.get()) * 0.5;
    let near = (y.tau * x.t - c * x.r * y.f * inner) * 2.0 - both;
    (c * xx).simd_gt(0.25).select(far, near)
}

/// A function of its own at every level: kernels need it several times, and it is most of what a build of them takes.
#[inline(never)]
pub fn sinh<S: Simd>(s: S, x: f64x8<S>) -> f64x8<S> {
    s.vectorize(
        #[inline(always)]
        || math::sinh(s, x),
    )
}

/// arsinh √u/√u, a function of its own too
#[inline(never)]
pub fn arsinh<S: Simd>(s: S, u: f64x8<S>) -> f64x8<S> {
    s.vectorize(
        #[inline(always)]
        || arsinh_root(u),
    )
}
