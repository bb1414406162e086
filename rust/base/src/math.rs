//! Elementary functions on vectors. The one rule: every function states the largest error that was measured, in units
//! in the last place (ulp) of the result, on a million arguments and the hard ones; no level of instruction set
//! exceeds 2.
//!
//! Three forms of each of the eleven functions, all generic over [`Simd`] and inlined:
//! * `math::exp(s, x)`: f64 lanes to f64 accuracy;
//! * `math::single::exp(s, x)`: f64 lanes to f32 accuracy (relative error below 2^-29), half the work: for kernels
//!   that hold f32 data in f64 lanes;
//! * `math::exp_f32(s, x)`: f32 lanes, through the second form. Range and precision to spare make every result the
//!   nearest f32 or its neighbour, denormals included.
//!
//! IEEE specials everywhere: NaN to NaN, a domain error to NaN, a pole to infinity, zeros keep their sign. Polynomials
//! are our own minimax fits (Remez in 260 bits with the relative error of the function as weight). Where a result is
//! the sum of a large and a small part, the rounding error of the large one is carried (`two_sum`, `two_prod`), which
//! also holds on levels without a fused multiply-add.

mod erf;
mod exp;
mod log;
pub mod single;

pub use erf::erf;
pub use exp::{cosh, exp, expm1, sinh, tanh, tanh_sech2};
pub use log::{acosh, asinh, atanh, log, log1p};

use crate::simd::*;
use crate::store::{STEP, Store};

/// `c[0] + c[1] x + …`, at most 32 terms, by halves (Estrin): what follows waits for the logarithm of their number. The
/// lanes of a few rows are all there is to work on, so that waiting is what a function costs.
#[inline(always)]
pub fn poly<S: Simd, const N: usize>(s: S, x: f64x8<S>, c: &[f64; N]) -> f64x8<S> {
    let zero = f64x8::splat(s, 0.0);
    let mut pairs = [zero; 16];
    for i in 0..16 {
        if 2 * i + 1 < N {
            pairs[i] = x.mul_add(c[2 * i + 1], f64x8::splat(s, c[2 * i]));
        } else if 2 * i < N {
            pairs[i] = f64x8::splat(s, c[2 * i]);
        }
    }
    let x = x * x;
    let mut fours = [zero; 8];
    for i in 0..8 {
        fours[i] = if 4 * i + 2 < N { x.mul_add(pairs[2 * i + 1], pairs[2 * i]) } else { pairs[2 * i] };
    }
    let x = x * x;
    let mut eights = [zero; 4];
    for i in 0..4 {
        eights[i] = if 8 * i + 4 < N { x.mul_add(fours[2 * i + 1], fours[2 * i]) } else { fours[2 * i] };
    }
    let x = x * x;
    let mut halves = [zero; 2];
    for i in 0..2 {
        halves[i] = if 16 * i + 8 < N { x.mul_add(eights[2 * i + 1], eights[2 * i]) } else { eights[2 * i] };
    }
    if N > 16 { (x * x).mul_add(halves[1], halves[0]) } else { halves[0] }
}

/// `a + b` as a sum and its error, for `|a| >= |b|` or `a = 0` (Dekker).
#[inline(always)]
fn fast_two_sum<S: Simd>(a: f64x8<S>, b: f64x8<S>) -> (f64x8<S>, f64x8<S>) {
    let s = a + b;
    (s, b - (s - a))
}

/// 1.5 * 2^52 + 1023: adding it rounds to an integer n and leaves n + 1023, an exponent, in the low bits.
const ROUND: f64 = 6_755_399_441_056_767.0;

/// 2^n for `t` = n + [`ROUND`], -1023 < n < 1024.
#[inline(always)]
fn pow2<S: Simd>(t: f64x8<S>) -> f64x8<S> {
    (t.bitcast::<u64x8<S>>() << 52).bitcast()
}

/// 2^-n for `t` as in [`pow2`]; 0 for n = 1023.
#[inline(always)]
fn pow2_neg<S: Simd>(s: S, t: f64x8<S>) -> f64x8<S> {
    (u64x8::splat(s, 2046 << 52) - (t.bitcast::<u64x8<S>>() << 52)).bitcast()
}

/// 1 / ln 2
const LOG2_E: f64 = std::f64::consts::LOG2_E;
/// ln 2 in two parts, the first of 42 bits: its product with an exponent is exact.
const LN2_HI: f64 = 0.693_147_180_559_890_3;
const LN2_LO: f64 = 5.497_923_018_708_371e-14;

macro_rules! f32_forms { ($($f:ident $g:ident $ulp:literal),* $(,)?) => { $(
    #[doc = concat!("[`", stringify!($f), "`] of f32 lanes, at most ", $ulp, " ulp off: measured on all 2^32.")]
    #[inline(always)]
    pub fn $g<S: Simd>(s: S, x: f32x16<S>) -> f32x16<S> {
        let (a, b) = x.widen();
        single::$f(s, a).narrow(single::$f(s, b))
    }
)* } }
f32_forms!(
    exp exp_f32 "0.502",
    expm1 expm1_f32 "0.508",
    log log_f32 "0.513",
    log1p log1p_f32 "0.513",
    tanh tanh_f32 "0.505",
    atanh atanh_f32 "0.513",
    asinh asinh_f32 "0.513",
    acosh acosh_f32 "0.513",
    sinh sinh_f32 "0.503",
    cosh cosh_f32 "0.502",
    erf erf_f32 "0.508",
);

/// Walks `x` in steps of sixteen, the last one padded with zeros. `f` is written out once: that is most of the time a
/// build of this file takes.
#[inline(always)]
fn map<S: Simd, T: Store>(s: S, x: &[T], y: &mut [T], f: impl Fn(f64x8<S>) -> f64x8<S>) {
    for (x, y) in x.chunks(STEP).zip(y.chunks_mut(STEP)) {
        let whole = x.len() == STEP;
        let mut v = if whole { T::load16(s, x) } else { T::load_tail(s, x) };
        for v in &mut v {
            *v = f(*v);
        }
        if whole {
            T::store16(s, v, y);
        } else {
            T::store_tail(s, v, y);
        }
    }
}

macro_rules! by_name { ($($f:ident),*) => {
    /// The functions that [`eval_f64`] and [`eval_f32`] know.
    pub const NAMES: &[&str] = &[$(stringify!($f)),*];

    #[allow(non_camel_case_types)]
    mod door {
        use super::*;
        $(
            pub struct $f<'a, T>(pub &'a [T], pub &'a mut [T]);
            impl Kernel for $f<'_, f64> {
                type Output = ();
                #[inline(always)]
                fn run<S: Simd>(self, s: S) {
                    map(s, self.0, self.1, #[inline(always)] |v| super::$f(s, v));
                }
            }
            impl Kernel for $f<'_, f32> {
                type Output = ();
                #[inline(always)]
                fn run<S: Simd>(self, s: S) {
                    map(s, self.0, self.1, #[inline(always)] |v| single::$f(s, v));
                }
            }
        )*
    }

    /// Applies the function of this name to every element: the door for tests and for Python. False, and nothing done,
    /// if there is no such function or the lengths differ.
    pub fn eval_f64(name: &str, x: &[f64], y: &mut [f64]) -> bool {
        eval(name, x, y, |name, x, y| match name {
            $(stringify!($f) => dispatch(door::$f(x, y)),)*
            _ => (),
        })
    }
    /// As [`eval_f64`], for f32.
    pub fn eval_f32(name: &str, x: &[f32], y: &mut [f32]) -> bool {
        eval(name, x, y, |name, x, y| match name {
            $(stringify!($f) => dispatch(door::$f(x, y)),)*
            _ => (),
        })
    }
} }
by_name!(exp, expm1, log, log1p, tanh, atanh, asinh, acosh, sinh, cosh, erf);

fn eval<T>(name: &str, x: &[T], y: &mut [T], run: fn(&str, &[T], &mut [T])) -> bool {
    let fits = NAMES.contains(&name) && x.len() == y.len();
    if fits {
        run(name, x, y);
    }
    fits
}
