//! The levels of instruction set against each other. The one rule: with a fused multiply-add the same bits come out at
//! every width; without it, results of the same accuracy.

use base::math::{NAMES, eval_f32, eval_f64};
use base::simd;
use tersor_drivers::pairs::{Distance, Hyperbolic, LogSumExp, Write, run};

/// Runs `f` at every level; the results of those that fuse are all the same.
fn same_bits<T: PartialEq>(what: &str, f: impl Fn() -> Vec<T>) {
    let mut fused = Vec::new();
    for level in simd::available() {
        simd::force(Some(level));
        let out = f();
        if level != "baseline" {
            fused.push((level, out));
        }
    }
    simd::force(None);
    for pair in fused.windows(2) {
        assert!(pair[0].1 == pair[1].1, "{what}: {} and {} differ", pair[0].0, pair[1].0);
    }
}

// one test: the level is a global of the process, and this file compares levels
#[test]
fn fused_levels_agree() {
    let bits = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // all magnitudes, and the middle ones again
    let mut x: Vec<f64> = (0..30_011).map(|i| f64::from_bits(bits(i))).collect();
    x.extend((0..30_011).map(|i| (bits(i) >> 11) as f64 * f64::powi(2.0, -49) - 8.0));
    x.extend((0..30_011).map(|i| (bits(i) >> 11) as f64 * f64::powi(2.0, -53)));
    let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    for name in NAMES {
        same_bits(name, || {
            let mut y = vec![0.0; x.len()];
            assert!(eval_f64(name, &x, &mut y));
            y.into_iter().map(f64::to_bits).collect()
        });
        same_bits(name, || {
            let mut y = vec![0.0; x.len()];
            assert!(eval_f32(name, &narrow, &mut y));
            y.into_iter().map(f32::to_bits).collect()
        });
    }
    let (n, m, d) = (37, 151, 141);
    let rows = |n: usize, at: u64| -> Vec<f32> {
        (0..(n * d) as u64).map(|i| (bits(i + at) >> 40) as f32 * f32::powi(2.0, -29)).collect()
    };
    let (x, y) = (rows(n, 1), rows(m, 7777));
    same_bits("hyperbolic distances", || {
        let mut out = vec![0.0f64; n * m];
        run(&Hyperbolic { c: 1.0 }, &Write::new(n, m, &mut out).unwrap(), &x, &y, n, m, d).unwrap();
        out.into_iter().map(f64::to_bits).collect()
    });
    same_bits("log-sum-exp of distances", || {
        let mut out = vec![0.0f64; n];
        run(&Distance, &LogSumExp::new(n, -3.0, &mut out).unwrap(), &x, &y, n, m, d).unwrap();
        out.into_iter().map(f64::to_bits).collect()
    });
}
