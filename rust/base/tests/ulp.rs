//! Accuracy of the elementary functions, in ulp of the exact result. The one rule: the reference is wider than what it
//! judges (f64 for f32; for f64, values computed in 160 bits).

use std::thread;
use tersor_base::math::{self, NAMES, eval_f32, eval_f64};
use tersor_base::simd::{self, Kernel, Simd, SimdBase, dispatch, f64x8};

/// erf by Kummer's series 2/sqrt(pi) e^-x^2 (x + 2/3 x^3 + …), all terms of one sign.
fn erf(x: f64) -> f64 {
    if x.is_nan() || x == 0.0 {
        return x;
    }
    if x.abs() > 6.0 {
        return 1f64.copysign(x);
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while (term / sum).abs() > 1e-18 {
        term *= 2.0 * x * x / (n + 2.0);
        sum += term;
        n += 2.0;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// The standard library's inverse hyperbolic functions lose digits; these do not.
fn asinh(x: f64) -> f64 {
    let a = x.abs();
    if a.is_infinite() {
        return x;
    }
    (a + a * a / (1.0 + (a * a + 1.0).sqrt())).ln_1p().copysign(x)
}
fn acosh(x: f64) -> f64 {
    if x < 1.0 {
        return f64::NAN;
    }
    ((x - 1.0) + ((x - 1.0) * (x + 1.0)).sqrt()).ln_1p()
}
fn atanh(x: f64) -> f64 {
    let a = x.abs();
    (0.5 * (2.0 * a / (1.0 - a)).ln_1p()).copysign(x)
}

fn reference(name: &str) -> fn(f64) -> f64 {
    match name {
        "exp" => f64::exp,
        "expm1" => f64::exp_m1,
        "log" => f64::ln,
        "log1p" => f64::ln_1p,
        "tanh" => f64::tanh,
        "atanh" => atanh,
        "asinh" => asinh,
        "acosh" => acosh,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "erf" => erf,
        _ => unreachable!("{name}"),
    }
}

/// The error of `y` in ulp of the exact result `want`.
fn ulps(y: f32, want: f64) -> f64 {
    let right = |yes: bool| if yes { 0.0 } else { f64::INFINITY };
    if want.is_nan() {
        return right(y.is_nan());
    }
    // what rounds to infinity must be infinite, and nothing else
    if (want as f32).is_infinite() || y.is_infinite() {
        return right(y == want as f32);
    }
    if want == 0.0 {
        return right(y == 0.0 && y.is_sign_negative() == want.is_sign_negative());
    }
    let exponent = ((want.abs().to_bits() >> 52) as i32 - 1023).max(-126);
    let ulp = f64::from_bits(((exponent - 23 + 1023) as u64) << 52);
    let e = (f64::from(y) - want).abs() / ulp;
    if e.is_nan() { f64::INFINITY } else { e }
}

/// The largest error over the f32 patterns `start, start + stride, …` below `end`, and where.
fn sweep(name: &str, start: u64, stride: u64, end: u64) -> (f64, f32) {
    const CHUNK: u64 = 65_536;
    let f = reference(name);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let mut worst = (0.0, 0.0);
    let mut at = start;
    while at < end {
        x.clear();
        x.extend((0..CHUNK).map(|i| at + i * stride).take_while(|&b| b < end).map(|b| f32::from_bits(b as u32)));
        at += CHUNK * stride;
        y.resize(x.len(), 0.0);
        assert!(eval_f32(name, &x, &mut y));
        for (&x, &y) in x.iter().zip(&y) {
            let e = ulps(y, f(f64::from(x)));
            if e > worst.0 {
                worst = (e, x);
            }
        }
    }
    worst
}

const ALL: u64 = 1 << 32;
/// Stated in `math`; the target is 2.
const BOUND: f64 = 0.52;

#[test]
fn f32_strided() {
    let levels = simd::available();
    for (i, level) in levels.iter().enumerate() {
        simd::force(Some(level));
        // the best level closely; another stride at every other: more patterns seen
        let stride = if i + 1 == levels.len() { 61 } else { 991 + 6 * i as u64 };
        for name in NAMES {
            let (e, x) = sweep(name, 0, stride, ALL);
            println!("{name} at {level}: {e:.4} ulp at {x:e}");
            assert!(e <= BOUND, "{name}({x:e}) at {level}: {e} ulp");
        }
    }
    simd::force(None);
}

#[test]
#[ignore = "exhaustive: make test-full"]
fn f32_exhaustive() {
    let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    let part = ALL.div_ceil(threads);
    for name in NAMES {
        let run = |t: u64| sweep(name, part * t, 1, ALL.min(part * (t + 1)));
        let (e, x) = thread::scope(|s| {
            let parts: Vec<_> = (0..threads).map(|t| s.spawn(move || run(t))).collect();
            parts.into_iter().map(|p| p.join().expect("a sweep")).fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
        });
        println!("{name}: {e:.4} ulp at {x:e}");
        assert!(e <= BOUND, "{name}({x:e}): {e} ulp");
    }
}

#[test]
fn specials() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    // at -inf, -2, -0, 0, inf
    let table: [(&str, [f64; 5]); 11] = [
        ("exp", [0.0, 0.1353352832366127, 1.0, 1.0, inf]),
        ("expm1", [-1.0, -0.8646647167633873, -0.0, 0.0, inf]),
        ("log", [nan, nan, -inf, -inf, inf]),
        ("log1p", [nan, nan, -0.0, 0.0, inf]),
        ("tanh", [-1.0, -0.9640275800758169, -0.0, 0.0, 1.0]),
        ("atanh", [nan, nan, -0.0, 0.0, nan]),
        ("asinh", [-inf, -1.4436354751788103, -0.0, 0.0, inf]),
        ("acosh", [nan, nan, nan, nan, inf]),
        ("sinh", [-inf, -3.626860407847019, -0.0, 0.0, inf]),
        ("cosh", [inf, 3.7621956910836314, 1.0, 1.0, inf]),
        ("erf", [-1.0, -0.9953222650189527, -0.0, 0.0, 1.0]),
    ];
    assert_eq!(table.map(|t| t.0), NAMES);
    let x = [-inf, -2.0, -0.0, 0.0, inf, nan];
    for level in simd::available() {
        simd::force(Some(level));
        for (name, want) in table {
            let (mut y, mut z) = ([9.0; 6], [9.0; 6]);
            assert!(eval_f64(name, &x, &mut y));
            assert!(eval_f32(name, &x.map(|v| v as f32), &mut z));
            for i in 0..6 {
                let want = if i < 5 { want[i] } else { nan };
                let near = y[i].to_bits().abs_diff(want.to_bits()) <= 1;
                assert!(near || (y[i].is_nan() && want.is_nan()), "{name}({}) = {} at {level}", x[i], y[i]);
                let e = ulps(z[i], want);
                assert!(e <= BOUND, "{name}({}) = {} at {level}", x[i], z[i]);
            }
        }
        let at = |name: &str, x: f64| {
            let mut y = [0.0];
            assert!(eval_f64(name, &[x], &mut y));
            y[0]
        };
        assert_eq!(at("log1p", -1.0), -inf);
        assert_eq!(at("atanh", 1.0), inf);
        assert_eq!(at("atanh", -1.0), -inf);
        assert_eq!(at("acosh", 1.0).to_bits(), 0);
        assert_eq!(at("log", 1.0).to_bits(), 0);
        // odd functions of slope 1 leave the least numbers alone
        for name in ["expm1", "log1p", "tanh", "atanh", "asinh", "sinh"] {
            for x in [5e-324, -5e-324, 1e-310, f64::MIN_POSITIVE, -1e-300] {
                assert_eq!(at(name, x), x, "{name} at {level}");
            }
        }
    }
    simd::force(None);
}

#[test]
fn doors_refuse() {
    let mut y = [7.0; 3];
    assert!(!eval_f64("cos", &[1.0; 3], &mut y));
    assert!(!eval_f64("exp", &[1.0; 2], &mut y));
    assert_eq!(y, [7.0; 3]);
    assert!(eval_f64("exp", &[], &mut []));
}

/// tanh and sech² at once, in the full and in the short form.
struct Pairs<'a>(&'a [f64; 8], &'a mut [[f64; 8]; 4]);
impl Kernel for Pairs<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let x = f64x8::from_slice(s, self.0);
        let ((a, b), (c, d)) = (math::tanh_sech2(s, x), math::single::tanh_sech2(s, x));
        a.store_slice(&mut self.1[0]);
        b.store_slice(&mut self.1[1]);
        c.store_slice(&mut self.1[2]);
        d.store_slice(&mut self.1[3]);
    }
}

#[test]
fn tanh_and_sech2() {
    for level in simd::available() {
        simd::force(Some(level));
        for i in 0..40_000 {
            let mut x = [0.0; 8];
            for (k, x) in x.iter_mut().enumerate() {
                let at = f64::from(i * 8 + k as i32);
                *x = [at * 1e-5, at * 1.1e-3, (at * -2e-3).exp(), -at * 1e-4][k % 4].clamp(-350.0, 350.0);
            }
            let mut y = [[0.0; 8]; 4];
            dispatch(Pairs(&x, &mut y));
            for k in 0..8 {
                let e = (-2.0 * x[k].abs()).exp();
                let want = 4.0 * e / ((1.0 + e) * (1.0 + e));
                // the reference is 3 ulp off itself
                assert!((y[1][k] / want - 1.0).abs() < 6.0 * f64::EPSILON, "sech²({:e}) at {level}", x[k]);
                assert!(x[k].abs() > 170.0 || (y[3][k] / want - 1.0).abs() < 2f64.powi(-29), "short sech²({:e})", x[k]);
                assert!((y[0][k] - x[k].tanh()).abs() <= 2.0 * f64::EPSILON * x[k].tanh().abs(), "tanh({:e})", x[k]);
                assert!((y[2][k] - x[k].tanh()).abs() <= 2f64.powi(-29) * x[k].tanh().abs(), "short tanh({:e})", x[k]);
            }
        }
        let mut y = [[0.0; 8]; 4];
        dispatch(Pairs(&[0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e300, -1e300, 1e-310], &mut y));
        for form in [0, 2] {
            assert_eq!(y[form][..4], [0.0, 0.0, 1.0, -1.0]);
            assert!(y[form][1].is_sign_negative() && y[form][4].is_nan() && y[form + 1][4].is_nan());
            assert_eq!((y[form + 1][0], y[form + 1][1], y[form + 1][7]), (1.0, 1.0, 1.0));
            assert!(y[form + 1][2] < 1e-140 && y[form + 1][5] < 1e-140 && y[form + 1][6] < 1e-140);
        }
    }
    simd::force(None);
}
