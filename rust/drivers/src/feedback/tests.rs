//! What the walk gives is what the formula gives, in the same order: the same codes and, but for the order of lanes, the same sums.

use super::*;
use base::random::{Source, tag};
use base::simd::{available, force};
use base::store::{Bf16, F16};

/// Multiples of a half, from −4 to 4.
struct Halves;
impl<L: Lane> Decide<L> for Halves {
    type Rows = usize;
    fn rows(&self, first: usize, _: usize) -> Result<usize> {
        Ok(first)
    }
    #[inline(always)]
    fn decide<S: Simd>(&self, s: S, _: &usize, _: usize, x: L::V<S>) -> [L::V<S>; 2] {
        let of = |v| L::V::<S>::splat(s, L::of(v));
        let q = (x * of(2.0)).round_ties_even().max(of(-8.0)).min(of(8.0));
        [q * of(0.5), q]
    }
}

fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let source = Source::new(seed, tag::ROUNDING, 0);
    (0..n).map(|i| f64::from(source.word(0, i as u64) >> 25) / 32.0 - 2.0).collect()
}

fn check<T: Stored>() {
    let mut first = None;
    for level in available() {
        force(Some(level));
        for (rows, n) in [(0, 5), (3, 0), (1, 1), (7, 5), (16, 6), (33, 97), (150, 200), (19, 700)] {
            let w: Vec<T> = numbers(rows * n, 1).into_iter().map(T::from_f64).collect();
            let ldl: Vec<T::Lane> = numbers(n * n, 2).into_iter().map(|v| T::Lane::of(v / 16.0)).collect();
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by_key(|k| k * 7919 % 101);
            let (mut codes, mut errors) = (vec![99u8; rows * n], vec![0.0; rows]);
            let factor = Factor { ldl: &ldl, order: &order, damp: 0.25 };
            run(&Halves, &w, factor, &Tensor::of(&mut codes), &mut errors).unwrap();
            for row in 0..rows {
                let (mut e, mut error) = (vec![0.0; n], 0.0);
                for k in 0..n {
                    let own = w[row * n + order[k]].to_f64();
                    // all of it is exact: few bits, and no sum is long
                    let x = own + (0..k).map(|j| e[j] * ldl[j * n + k].to_f64()).sum::<f64>();
                    let q = (x * 2.0).round_ties_even().clamp(-8.0, 8.0);
                    e[k] = own - q / 2.0;
                    error += (x - q / 2.0).powi(2) * ldl[k * (n + 1)].to_f64() - 0.25 * e[k].powi(2);
                    assert_eq!(codes[row * n + order[k]], q as i32 as u8, "{level} {rows} {n} {row} {k}");
                }
                assert!((errors[row] - error).abs() <= 1e-9 * error.abs().max(1.0), "{level} {rows} {n} {row}");
            }
            if (rows, n) == (150, 200) {
                let made = (codes, errors);
                assert_eq!(*first.get_or_insert_with(|| made.clone()), made, "{level}");
            }
        }
    }
    force(None);
}

#[test]
fn f64s() {
    check::<f64>();
}
#[test]
fn f32s() {
    check::<f32>();
}
#[test]
fn halves() {
    check::<F16>();
    check::<Bf16>();
}

#[test]
fn what_is_refused() {
    let (w, ldl, mut codes, mut errors) = ([0.0; 4], [0.0; 4], [0; 4], [0.0; 2]);
    let mut refused = |order: &[usize], ldl: &[f64], codes: &mut [u8]| {
        let factor = Factor { ldl, order, damp: 0.0 };
        matches!(run(&Halves, &w, factor, &Tensor::of(codes), &mut errors), Err(Error::Value(_)))
    };
    assert!(!refused(&[1, 0], &ldl, &mut codes));
    assert!(refused(&[1, 1], &ldl, &mut codes));
    assert!(refused(&[0, 2], &ldl, &mut codes));
    assert!(refused(&[0, 1], &ldl[..3], &mut codes));
    assert!(refused(&[0, 1], &ldl, &mut codes[..3]));
}
