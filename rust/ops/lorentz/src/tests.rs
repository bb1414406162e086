//! Pairs whose distance is known without a computation that could cancel, at every level of instruction set.

use super::*;
use base::simd::{available, force};

fn tensor<'a>(v: &'a mut [f64], shape: &[usize]) -> Tensor<'a> {
    // SAFETY: the memory of this slice, of as many numbers as the shape says.
    unsafe { Tensor::new(v.as_mut_ptr().cast(), shape, Dtype::F64, true).unwrap() }
}

/// A pair at distance across, at 2 arsinh(across/2), and one along, at the logarithm of the quotient.
fn pairs(far: f64, across: f64) -> (Vec<f64>, Vec<f64>, [f64; 2]) {
    let next = f64::from_bits(far.to_bits() - 1);
    let x = vec![far, 0.0, 0.0, far, 0.0, 0.0];
    let y = vec![far, 0.0, across, next, 0.0, 0.0];
    (x, y, [2.0 * (across / 2.0).asinh(), (far - next) / far])
}

#[test]
fn far_pairs_at_every_level() {
    for (far, across) in [(1e9, 1e-3), (3e12, 0.7), (2.154e15, 2.0), (1e22, 40.0)] {
        let mut fused: Vec<Vec<u64>> = Vec::new();
        for level in available() {
            force(Some(level));
            let (mut x, mut y, want) = pairs(far, across);
            let (mut c, mut d, mut g) = ([1.0], [0.0; 2], [1.0, 2.0]);
            let (mut dx, mut dy, mut dc) = ([0.0; 6], [0.0; 6], [0.0]);
            let inputs = [tensor(&mut x, &[2, 3]), tensor(&mut y, &[2, 3]), tensor(&mut g, &[2]), tensor(&mut c, &[])];
            dist(&[inputs[0], inputs[1], inputs[3], tensor(&mut d, &[2])]).unwrap();
            let outputs = [tensor(&mut dx, &[2, 3]), tensor(&mut dy, &[2, 3]), tensor(&mut dc, &[])];
            dist_bwd(&[&inputs[..], &outputs[..]].concat()).unwrap();
            for (d, want) in d.iter().zip(want) {
                assert!((d / want - 1.0).abs() <= 4.0 * f64::EPSILON, "{level}: {d} is not {want}");
            }
            // across, the metric is that of the plane between equal times: f y, f = 1/sinh d
            let f = 1.0 / want[0].sinh();
            assert!((dy[2] / (f * across) - 1.0).abs() <= 8.0 * f64::EPSILON, "{level}: {dy:?}");
            assert!((dx[2] + dy[2]).abs() <= 8.0 * f64::EPSILON, "{level}: {dx:?}");
            // along, one over √c t, as far as twice f64's precision holds so little beside the vectors
            let bound = 8.0 * f64::EPSILON * (1.0 + f64::EPSILON * far * far);
            assert!((dx[3] * far / 2.0 - 1.0).abs() <= bound && (dy[3] * far / 2.0 + 1.0).abs() <= bound, "{level}");
            if level != "baseline" {
                fused.push(d.iter().chain(&dx).chain(&dy).chain(&dc).map(|v| v.to_bits()).collect());
            }
        }
        force(None);
        assert!(fused.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// Whose squares are no numbers: at 2 log across, since the metric across is that of equal times; and on a ray.
#[test]
fn pairs_beyond_at_every_level() {
    for level in available() {
        force(Some(level));
        for far in [200, 530, 990].map(|k| 2f64.powi(k)) {
            let mut x = vec![far, 3.0 * far, 0.0, 3.0 * far, far, 0.0, 0.0, 0.0, 0.0];
            let mut y = vec![far, 3.0 * far, far * 1e-10, 9.0 * far, 3.0 * far, 0.0, far, 0.0, 0.0];
            let want = [2.0 * (far * 1e-10).ln(), 3f64.ln(), std::f64::consts::LN_2 + far.ln()];
            let (mut c, mut d, mut g) = ([1.0], [0.0; 3], [1.0; 3]);
            let (mut dx, mut dy, mut dc) = ([0.0; 9], [0.0; 9], [0.0; 3]);
            let inputs = [tensor(&mut x, &[3, 3]), tensor(&mut y, &[3, 3]), tensor(&mut g, &[3]), tensor(&mut c, &[])];
            dist(&[inputs[0], inputs[1], inputs[3], tensor(&mut d, &[3])]).unwrap();
            let outputs = [tensor(&mut dx, &[3, 3]), tensor(&mut dy, &[3, 3]), tensor(&mut dc, &[])];
            dist_bwd(&[&inputs[..], &outputs[..]].concat()).unwrap();
            for (d, want) in d.iter().zip(want) {
                assert!((d / want - 1.0).abs() <= 4.0 * f64::EPSILON, "{level}: {d} is not {want}");
            }
            let slopes = [dx[2] * far * 1e-10, dx[3] * 10.0 * far, dy[3] * 30.0 * far, dx[6], dy[6] * far];
            for (slope, want) in slopes.iter().zip([-2.0, -3.0, 3.0, -1.0, 1.0]) {
                assert!((slope / want - 1.0).abs() <= 1e-12, "{level}: {dx:?} {dy:?}");
            }
        }
    }
    force(None);
}
