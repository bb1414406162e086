//! Every tail size, dtype and level against plain loops; one row for all; sums over rows; the edge of the ball.

use super::*;
use crate::row;
use base::simd::*;
use base::store::{Bf16, F16, Store};
use base::{Dtype, Error};

/// y = <a, b> a + 2b, n = <a, b> c: a product, a combination and a number.
struct Probe;
row! { Probe(a, b; c) -> (y; n)
    dots(ab) { ab.dot(a, b); }
    solve(self) { ([ab.get()], [ab.get() * c]) }
    combine(w) { [a.mul_add(w, b + b)] }
}

/// y = x − b top, at the mark n c; n = Σ b (x − top), m = x at the mark, z = Σ over rows of x c: a peak before the sums, and a
/// mark. b is 0 past its end, where x is -inf.
struct Peaked;
row! { Peaked(x, b; c) -> (y, z; n, m)
    mark(at)
    peak(top) { [x] }
    dots(below) { below.dot(b, b.simd_eq(0.0).select(b, x - top)); }
    solve(self) { ([top, c], [below.get(), at], [below.get() * c]) }
    combine(top, c) { [x - b * top, x * c] }
}

fn tensor<'a, T: Store>(x: &'a [T], shape: &[usize]) -> Tensor<'a> {
    // SAFETY: a slice of that many elements; tests write through it only where they own it mutably.
    unsafe { Tensor::new(x.as_ptr().cast_mut().cast(), shape, T::DTYPE, true).unwrap() }
}

/// Small integers: exact in every type, products and sums included.
fn whole<T: Store>(n: usize, k: usize) -> Vec<T> {
    (0..n).map(|i| T::from_f64(((i * 7 + k) % 5) as f64 - 2.0)).collect()
}

fn check<T: Store>(rows: usize, d: usize) {
    let (a, b, c) = (whole::<T>(rows * d, 1), whole::<T>(rows * d, 3), whole::<T>(rows, 2));
    let (y, n) = (vec![T::default(); rows * d], vec![T::default(); rows]);
    let t = [
        tensor(&a, &[rows, d]),
        tensor(&b, &[rows, d]),
        tensor(&c, &[rows]),
        tensor(&y, &[rows, d]),
        tensor(&n, &[rows]),
    ];
    run(&Probe, &t).unwrap();
    for r in 0..rows {
        let (a, b) = (&a[r * d..][..d], &b[r * d..][..d]);
        let ab: f64 = a.iter().zip(b).map(|(a, b)| a.to_f64() * b.to_f64()).sum();
        assert_eq!(n[r].to_f64(), T::from_f64(ab * c[r].to_f64()).to_f64(), "{} rows, d = {d}", T::DTYPE.name());
        for i in 0..d {
            let want = T::from_f64(a[i].to_f64() * ab + 2.0 * b[i].to_f64());
            assert_eq!(y[r * d + i].to_f64(), want.to_f64(), "{} row {r} of {rows}, {i} of {d}", T::DTYPE.name());
        }
    }
}

#[test]
fn all_tails_types_and_levels() {
    for level in available() {
        force(Some(level));
        for d in (0..=131).chain([255, 256, 257]) {
            for rows in [0, 1, 7, 8, 9, 33] {
                check::<f64>(rows, d);
                check::<f32>(rows, d);
            }
            check::<F16>(33, d.min(40));
            check::<Bf16>(33, d.min(40));
        }
        check::<f32>(20_000, 3);
    }
    force(None);
}

/// Outputs beyond the caches take another way to memory; any place in a line may be their first.
#[test]
fn large_outputs_at_every_offset() {
    for (d, first) in [(3, 1), (64, 0), (64, 5), (64, 16), (1000, 3)] {
        let rows = call::LARGE / 4 / d + 1;
        let (a, b, c) = (whole::<f32>(rows * d, 1), whole::<f32>(rows * d, 3), whole::<f32>(1, 2));
        let (y, n) = (vec![9f32; rows * d + first + 16], vec![0f32; rows]);
        // from the first line on, and so many elements after it
        let first = first + y.as_ptr().align_offset(64);
        let out = &y[first..first + rows * d];
        let t = [
            tensor(&a, &[rows, d]),
            tensor(&b, &[rows, d]),
            tensor(&c, &[]),
            tensor(out, &[rows, d]),
            tensor(&n, &[rows]),
        ];
        run(&Probe, &t).unwrap();
        for ((a, b), y) in a.chunks(d).zip(b.chunks(d)).zip(out.chunks(d)) {
            let ab: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            assert!(y.iter().zip(a.iter().zip(b)).all(|(y, (a, b))| *y == a * ab + 2.0 * b));
        }
        assert!(y[..first].iter().all(|&v| v == 9.0));
    }
}

#[test]
fn one_row_for_all_and_sums_over_rows() {
    let (rows, d) = (1000, 19);
    let (a, b, c) = (whole::<f64>(d, 1), whole::<f64>(rows * d, 3), whole::<f64>(1, 2));
    let (y, n) = (vec![9.0; d], vec![9.0; 1]);
    let t = [tensor(&a, &[d]), tensor(&b, &[rows, d]), tensor(&c, &[]), tensor(&y, &[1, d]), tensor(&n, &[])];
    run(&Probe, &t).unwrap();
    let dots: Vec<f64> = b.chunks(d).map(|b| b.iter().zip(&a).map(|(b, a)| a * b).sum()).collect();
    assert_eq!(n[0], dots.iter().sum::<f64>() * c[0]);
    for i in 0..d {
        let want: f64 = (0..rows).map(|r| a[i] * dots[r] + 2.0 * b[r * d + i]).sum();
        assert_eq!(y[i], want);
    }
}

#[test]
fn wrong_arguments_are_named_and_nothing_is_written() {
    let (x, y, n) = (vec![1f32; 12], vec![7f32; 12], vec![7f32; 3]);
    let (half, wide) = (vec![F16(0); 12], vec![0f64; 12]);
    let t = |a, b| [a, b, tensor(&x[..1], &[]), tensor(&y, &[3, 4]), tensor(&n, &[3])];
    let x = tensor(&x, &[3, 4]);
    for (bad, kind) in [
        (t(x, tensor(&wide, &[3, 4])), true),
        (t(x, tensor(&half, &[3, 4])), true),
        (t(x, tensor(&y[..9], &[3, 3])), false),
        (t(x, tensor(&y[..8], &[2, 4])), false),
    ] {
        let e = run(&Probe, &bad).unwrap_err();
        assert_eq!(matches!(e, Error::Type(_)), kind, "{e}");
        assert!(y.iter().chain(&n).all(|&v| v == 7.0));
    }
}

#[test]
fn the_edge() {
    assert_eq!(Margin::of(0.0), Ok(Margin::Tight));
    assert_eq!(Margin::of(-1.0), Ok(Margin::Compat));
    assert!(Margin::of(1.0).is_err());
    for c in [1.0, 0.3, 7.0] {
        for d in [1, 2, 17] {
            let v = (1.0 / (c * d as f64)).sqrt() * (1.0 + 1e-7);
            let mut row = vec![v as f32; d];
            ball::inside(&mut row, c, Margin::Tight);
            let gap = 1.0 - c * row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            assert!(gap > 0.0 && gap < 4.0 * eps(Dtype::F32), "{gap:e}");
            let mut row = vec![v; d];
            ball::inside(&mut row, c, Margin::Compat);
            let norm = (c * row.iter().map(|v| v * v).sum::<f64>()).sqrt();
            assert!((norm - (1.0 - 1e-5)).abs() < 1e-15);
        }
    }
}

fn check_peaks<T: Store>(rows: usize, d: usize) {
    // all below 0, so that a peak is not what lies past the end
    let x: Vec<T> = whole::<T>(rows * d, 1).iter().map(|v| T::from_f64(v.to_f64() - 7.0)).collect();
    let (b, c) = (whole::<T>(d, 3), whole::<T>(rows, 2));
    // some rows have no mark
    let at: Vec<usize> = (0..rows).map(|r| if r % 5 == 3 { NONE } else { r * 11 % d }).collect();
    for summed in [false, true] {
        let (y, z) = (vec![T::from_f64(9.0); rows * d], vec![T::from_f64(9.0); if summed { d } else { rows * d }]);
        let (n, m) = (vec![T::from_f64(9.0); rows], vec![9f64; rows]);
        let shape = [if summed { 1 } else { rows }, d];
        let t = [
            tensor(&x, &[rows, d]),
            tensor(&b, &[1, d]),
            tensor(&c, &[rows]),
            tensor(&y, &[rows, d]),
            tensor(&z, &shape),
            tensor(&n, &[rows]),
            tensor(&m, &[rows]),
        ];
        marked(&Peaked, &t, &at).unwrap();
        let mut total = vec![0.0; d];
        for r in 0..rows {
            let (row, c) = (&x[r * d..][..d], c[r].to_f64());
            let top = row.iter().fold(f64::NEG_INFINITY, |a, v| a.max(v.to_f64()));
            let below: f64 = row.iter().zip(&b).map(|(x, b)| b.to_f64() * (x.to_f64() - top)).sum();
            let out = at[r] == NONE;
            assert_eq!(
                n[r].to_f64(),
                if out { 0.0 } else { T::from_f64(below).to_f64() },
                "row {r} of {rows}, d = {d}"
            );
            assert_eq!(m[r], if out { 0.0 } else { row[at[r]].to_f64() });
            for i in 0..d {
                let (x, b) = (row[i].to_f64(), b[i].to_f64());
                let want = if out { 0.0 } else { [x - b * top, below * c][usize::from(i == at[r])] };
                assert_eq!(y[r * d + i].to_f64(), T::from_f64(want).to_f64(), "{i} of row {r} of {rows}, d = {d}");
                let part = if out { 0.0 } else { x * c };
                total[i] += part;
                if !summed || rows == 1 {
                    assert_eq!(z[r * d + i].to_f64(), part);
                }
            }
        }
        if summed {
            assert!(z.iter().zip(&total).all(|(z, t)| z.to_f64() == T::from_f64(*t).to_f64()));
        }
    }
}

#[test]
fn peaks_and_marks_of_all_tails_types_and_levels() {
    for level in available() {
        force(Some(level));
        for d in (1..=67).chain([128, 131]) {
            for rows in [1, 7, 33] {
                check_peaks::<f64>(rows, d);
                check_peaks::<f32>(rows, d);
            }
            check_peaks::<F16>(33, d.min(8));
            check_peaks::<Bf16>(33, d.min(8));
        }
        check_peaks::<f32>(call::LARGE / 4 / 67 + 1, 67);
        check_peaks::<f32>(call::LARGE / 4 / 64 + 1, 64);
    }
    force(None);
    let x = [1f32; 4];
    let t = [4, 4, 1, 4, 4, 1, 1].map(|n| tensor(&x[..n], if n == 1 { &[] } else { &[1, 4] }));
    assert!(matches!(run(&Peaked, &t), Err(Error::Value(_))));
}
