//! The family against its definitions, written once more as plainly as possible, over tails, types, levels and threads.

use super::OPS;
use super::encode::least;
use base::pool::{self, Context};
use base::simd::{available, force};
use base::store::{Bf16, F16, Store};
use base::{Element, Error, Result, Scalar, Tensor};
use drivers::flat::{Compute, Real};

fn tensor<'a, T: Element>(v: &'a mut [T], shape: &[usize]) -> Tensor<'a> {
    assert_eq!(v.len(), shape.iter().product::<usize>());
    // SAFETY: the slice itself.
    unsafe { Tensor::new(v.as_mut_ptr().cast(), shape, T::DTYPE, true).unwrap() }
}

fn call(name: &str, t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let op = OPS.iter().find(|o| o.name == name).unwrap();
    (op.run)(t, k)
}

fn int(v: i64) -> Scalar {
    Scalar::Int(v)
}

/// Numbers of several magnitudes, with zeros of both signs, ties of the scale 1/4, and denormals.
fn values<T: Store>(n: usize, seed: usize) -> Vec<T> {
    (0..n)
        .map(|i| {
            let k = (i.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503)) % 1009;
            T::from_f64(match k % 11 {
                0 => 0.0,
                1 => -0.0,
                2 => (k as f64 - 500.0) / 8.0,
                3 => 1e-42 * k as f64,
                4 => (500.0 - k as f64) * 3.0,
                _ => (k as f64 - 504.0) / 61.0,
            })
        })
        .collect()
}

/// The definition, in the compute type.
fn code<T: Real>(x: T, s: T, z: i32, (lo, hi): (i32, i32), rounding: i64) -> i32 {
    let v = (x / s).to_f64();
    let r = match rounding {
        0 => v.round_ties_even(),
        1 => v.round(),
        _ => v.trunc(),
    };
    (r + f64::from(z)).clamp(f64::from(lo), f64::from(hi)) as i32
}

/// Shapes of x and of its scale for n elements: a tensor, rows, columns, groups, tiles.
fn grains(n: usize) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut all = vec![(vec![n], vec![1]), (vec![n], vec![n]), (vec![1, n], vec![1, n]), (vec![3, n], vec![3, 1])];
    all.push((vec![3, n], vec![1, n]));
    if n > 0 {
        all.push((vec![2, 3 * n], vec![2, 3]));
        all.push((vec![4, 2 * n, 2], vec![2, n, 1]));
    }
    all
}

/// Position of the scale of element i.
fn place(shape: &[usize], scales: &[usize], mut i: usize) -> usize {
    let (mut at, mut stride) = (0, 1);
    for (&n, &m) in shape.iter().zip(scales).rev() {
        at += i % n / (n / m) * stride;
        i /= n;
        stride *= m;
    }
    at
}

fn quantize_and_back<T: Compute>() {
    for level in available() {
        force(Some(level));
        for n in (0..=40).chain([63, 64, 65, 131, 2047, 2049, 40_000]) {
            for (shape, grain) in grains(n) {
                let (len, count) = (shape.iter().product(), grain.iter().product::<usize>());
                let mut x: Vec<T> = values(len, n);
                let mut s: Vec<f32> = (0..count).map(|i| [0.25, 0.1, 3.0, 1e-3][i % 4]).collect();
                let mut z: Vec<i32> = (0..count).map(|i| [3, 0, -7, 2552][i % 4]).collect();
                let mut q = vec![99u8; len];
                let mut y = vec![T::default(); len];
                for rounding in 0..3 {
                    for (lo, hi) in [(0, 255), (2, 9)] {
                        let k = [int(lo), int(hi), int(0), int(rounding), int(0), Scalar::Bool(false)];
                        let (s_, z_) = (tensor(&mut s, &grain), tensor(&mut z, &grain));
                        let q_ = tensor(&mut q, &shape);
                        let x_ = tensor(&mut x, &shape);
                        call("quantize", &[x_, s_, z_, q_], &k).unwrap();
                        call("dequantize", &[q_, s_, z_, tensor(&mut y, &shape)], &[int(0)]).unwrap();
                        for i in 0..len {
                            let at = place(&shape, &grain, i);
                            let mut wide = [T::Real::ZERO];
                            T::widen(&x[i..=i], &mut wide);
                            let scale = T::Real::from_f32(s[at]);
                            let want = code(wide[0], scale, z[at], (lo as i32, hi as i32), rounding);
                            assert_eq!(i32::from(q[i]), want, "{level} {shape:?} {grain:?} {rounding} {i}");
                            let mut back = [T::default()];
                            T::narrow(&[T::Real::int(want - z[at]) * scale], &mut back);
                            assert_eq!(y[i].to_f64(), back[0].to_f64());
                        }
                    }
                }
            }
        }
    }
    force(None);
}

#[test]
fn quantize_f64() {
    quantize_and_back::<f64>();
}
#[test]
fn quantize_f32() {
    quantize_and_back::<f32>();
}
#[test]
fn quantize_f16() {
    quantize_and_back::<F16>();
}
#[test]
fn quantize_bf16() {
    quantize_and_back::<Bf16>();
}

fn fake<T: Compute>() {
    for level in available() {
        force(Some(level));
        for n in (0..=20).chain([131, 300, 5000]) {
            for (shape, grain) in grains(n) {
                let (len, count) = (shape.iter().product(), grain.iter().product::<usize>());
                let mut x: Vec<T> = values(len, 1);
                let mut g: Vec<T> = values(len, 2);
                let mut s: Vec<f32> = (0..count).map(|i| [0.25, 0.1, 3.0][i % 3]).collect();
                let mut z: Vec<f32> = (0..count).map(|i| [1.0, 0.0, -2.0][i % 3]).collect();
                let (mut y, mut d, mut d2) =
                    (vec![T::default(); len], vec![T::default(); len], vec![T::default(); len]);
                let (mut ds, mut dz) = (vec![0f32; count], vec![0f32; count]);
                let (lo, hi) = (-5, 6);
                let k = [int(lo), int(hi), int(0), Scalar::Float(0.5)];
                let (x_, s_, z_) = (tensor(&mut x, &shape), tensor(&mut s, &grain), tensor(&mut z, &grain));
                let g_ = tensor(&mut g, &shape);
                call("fake_quantize", &[x_, s_, z_, tensor(&mut y, &shape)], &k[..3]).unwrap();
                call("fake_quantize_bwd", &[g_, x_, s_, z_, tensor(&mut d, &shape)], &k[..3]).unwrap();
                let out = [tensor(&mut d2, &shape), tensor(&mut ds, &grain), tensor(&mut dz, &grain)];
                call("fake_quantize_lsq_bwd", &[g_, x_, s_, z_, out[0], out[1], out[2]], &k).unwrap();
                let (mut want_s, mut want_z) = (vec![0.0; count], vec![0.0; count]);
                let mut size = vec![0.0; count];
                for i in 0..len {
                    let at = place(&shape, &grain, i);
                    let (mut wide, mut back) = ([T::Real::ZERO], [T::default()]);
                    T::widen(&x[i..=i], &mut wide);
                    let (s, z) = (T::Real::from_f32(s[at]), z[at] as i32);
                    let q = code(wide[0], s, z, (lo as i32, hi as i32), 0);
                    T::narrow(&[T::Real::int(q - z) * s], &mut back);
                    assert_eq!(y[i].to_f64(), back[0].to_f64(), "{level} {shape:?} {grain:?} {i}");
                    let v = (wide[0] / s).to_f64();
                    let inside = (lo as f64..=hi as f64).contains(&(v.round_ties_even() + f64::from(z)));
                    assert_eq!(d[i].to_f64(), if inside { g[i].to_f64() } else { 0.0 }, "{level} {i} {v}");
                    assert_eq!(d[i].to_f64(), d2[i].to_f64());
                    let g = g[i].to_f64() * 0.5;
                    let slope = if inside { v.round_ties_even() - v } else { f64::from(q - z) };
                    want_s[at] += g * slope;
                    want_z[at] -= if inside { 0.0 } else { g * s.to_f64() };
                    size[at] += g.abs() * (slope.abs() + s.to_f64());
                }
                for at in 0..count {
                    assert!(
                        (f64::from(ds[at]) - want_s[at]).abs() <= 1e-6 * size[at] + 1e-44,
                        "{} {}",
                        ds[at],
                        want_s[at]
                    );
                    assert!(
                        (f64::from(dz[at]) - want_z[at]).abs() <= 1e-6 * size[at] + 1e-44,
                        "{} {}",
                        dz[at],
                        want_z[at]
                    );
                }
            }
        }
    }
    force(None);
}

#[test]
fn fake_f64() {
    fake::<f64>();
}
#[test]
fn fake_f32() {
    fake::<f32>();
}
#[test]
fn fake_f16() {
    fake::<F16>();
}
#[test]
fn fake_bf16() {
    fake::<Bf16>();
}

#[test]
fn fake_is_a_map() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let mut x = [nan, inf, -inf, f32::MAX, -f32::MAX, 1e30, -0.1];
    let (mut s, mut none, mut y) = ([1e-3f32], [0i32; 0], [0f32; 7]);
    let mut one = [1f32; 7];
    let k = [int(-128), int(127), int(0)];
    let (x, s, none) = (tensor(&mut x, &[7]), tensor(&mut s, &[1]), tensor(&mut none, &[0]));
    call("fake_quantize", &[x, s, none, tensor(&mut y, &[7])], &k).unwrap();
    assert!(y[0].is_nan());
    assert_eq!(y[1..], [127.0 * 1e-3, -128.0 * 1e-3, 127.0 * 1e-3, -128.0 * 1e-3, 127.0 * 1e-3, -100.0 * 1e-3]);
    call("fake_quantize_bwd", &[tensor(&mut one, &[7]), x, s, none, tensor(&mut y, &[7])], &k).unwrap();
    assert_eq!(y, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    // in place
    call("fake_quantize", &[x, s, none, x], &k).unwrap();
    assert_eq!(x.slice::<f32>().unwrap()[6], -100.0 * 1e-3);
}

/// Scales, codes and zero points of the definition, and the same from the kernel.
fn encode<T: Compute>(bits: u32, groups: usize, group: usize, saturate: bool) {
    let len = groups * group;
    let mut x: Vec<T> = values(3 * len, 5);
    if saturate {
        for (i, v) in [(0, f64::NAN), (len / 2, f64::INFINITY), (len, f64::NEG_INFINITY)] {
            if let Some(x) = x.get_mut(i) {
                *x = T::from_f64(v);
            }
        }
    }
    let mut wide = vec![T::Real::ZERO; 3 * len];
    T::widen(&x, &mut wide);
    let bytes = base::bits::bytes(len, bits as usize);
    let (mut data, mut scale, mut zero) =
        (vec![0x55u8; 3 * bytes], vec![T::Real::ZERO; 3 * groups], vec![9u8; 3 * groups]);
    let mut back = vec![T::default(); 3 * len];
    let mut none = [0u8; 0];
    let k = [int(bits.into()), int(group as i64), Scalar::Bool(saturate)];
    for affine in [false, true] {
        if bits < 2 && !affine {
            continue;
        }
        let (x_, s_) = (tensor(&mut x, &[3, len]), tensor(&mut scale, &[3, groups]));
        let (d_, z_) = (tensor(&mut data, &[3, bytes]), tensor(&mut zero, &[3, groups]));
        if affine {
            call("encode_affine", &[x_, d_, s_, z_], &k).unwrap();
        } else {
            call("encode_symmetric", &[x_, d_, s_], &k).unwrap();
        }
        let given = if affine { z_ } else { tensor(&mut none, &[0]) };
        let k = [int(bits.into()), int(len as i64), int(0)];
        call("decode", &[d_, s_, given, tensor(&mut back, &[3, len])], &k).unwrap();
        let mut codes = vec![0u8; 3 * len];
        for r in 0..3 {
            base::bits::unpack(&data[r * bytes..][..bytes], bits as usize, &mut codes[r * len..][..len]);
        }
        for (i, x) in wide.chunks(group).enumerate() {
            let finite = || x.iter().map(|v| v.to_f64()).filter(|v| v.is_finite());
            let (low, high) = (finite().fold(0.0, f64::min), finite().fold(0.0, f64::max));
            let most = f64::from((1 << bits) - 1);
            let (s, z, range) = if affine {
                let s = T::Real::of(high / most - low / most);
                let s = least(s, T::Real::of(high) - T::Real::of(low), T::Real::of(most));
                (s, (-low / s.to_f64()).round_ties_even().min(most) as i32, (0, most as i32))
            } else {
                let half = (1 << (bits - 1)) - 1;
                let (amax, n) = (T::Real::of(high.max(-low)), T::Real::int(half));
                (least(amax / n, amax, n), half + 1, (1, 2 * half + 1))
            };
            assert_eq!(scale[i], s);
            if affine {
                assert_eq!(i32::from(zero[i]), z);
            }
            for (j, &v) in x.iter().enumerate() {
                let v = if v == v { v } else { T::Real::ZERO };
                let want = code(v, s, z, range, 0);
                assert_eq!(
                    i32::from(codes[i * group + j]),
                    want,
                    "{bits} bits, group {group}, {affine}, {i} {j}: {v:?} {s:?} {z}"
                );
                let mut b = [T::default()];
                T::narrow(&[T::Real::int(want - z) * s], &mut b);
                assert_eq!(back[i * group + j].to_f64(), b[0].to_f64());
                if v.is_finite() {
                    let (v, d) = (v.to_f64(), (f64::from(want - z) * s.to_f64() - v.to_f64()).abs());
                    assert!(d <= s.to_f64() * 0.500_001 + v.abs() * 1e-6, "{v} {d} {s:?}");
                }
            }
        }
    }
}

#[test]
fn encode_every_width() {
    for level in available() {
        force(Some(level));
        for bits in 1..=8 {
            for (groups, group) in
                [(1, 1), (1, 3), (5, 1), (3, 5), (4, 8), (2, 32), (3, 128), (1, 129), (1, 1025), (2, 300), (70, 2)]
            {
                encode::<f32>(bits, groups, group, false);
            }
            encode::<f32>(bits, 3, 64, true);
        }
        for (groups, group) in [(3, 128), (1, 4096), (1, 5000), (300, 128), (1, 70_001)] {
            for bits in [3, 4, 8] {
                encode::<f64>(bits, groups, group, false);
                encode::<F16>(bits, groups, group, false);
                encode::<Bf16>(bits, groups, group, false);
                encode::<f32>(bits, groups, group, true);
            }
        }
    }
    force(None);
}

#[test]
fn denormals_come_back() {
    let unit = f32::from_bits(1);
    for k in [1.0f32, 2.0, 100.0, 127.0, 190.0, 191.0, 5000.0, 1e6] {
        let mut x = [k * unit, -k * unit, 0.0, (k * 0.5).round_ties_even() * unit];
        let (mut q, mut s, mut y) = ([0i8; 4], [0f32; 1], [0f32; 4]);
        let mut none = [0u8; 0];
        let (q_, s_) = (tensor(&mut q, &[1, 4]), tensor(&mut s, &[1, 1]));
        call("encode_symmetric", &[tensor(&mut x, &[1, 4]), q_, s_], &[int(8), int(0), Scalar::Bool(false)]).unwrap();
        let y_ = tensor(&mut y, &[1, 4]);
        call("decode", &[q_, s_, tensor(&mut none, &[0]), y_], &[int(8), int(4), int(1)]).unwrap();
        for (x, y) in x.iter().zip(&y) {
            assert!(f64::from((x - y).abs()) <= f64::from(s[0]) * 0.5, "{k}: {x:e} became {y:e}");
        }
    }
}

#[test]
fn what_was_finite_comes_back_finite() {
    fn check<T: Compute>(bits: i64, dtype: i64) {
        let most = T::MOST.to_f64();
        let mut x = [most, -most, 0.0, most * 0.3].map(T::from_f64);
        let (mut q, mut s, mut z) =
            (vec![0u8; (4 * bits as usize).div_ceil(8)], [<T::Real as Real>::ZERO; 1], [0u8; 1]);
        let mut y = [T::default(); 4];
        let (x_, q_, s_, z_) = (
            tensor(&mut x, &[1, 4]),
            tensor(&mut q, &[1, (4 * bits as usize).div_ceil(8)]),
            tensor(&mut s, &[1, 1]),
            tensor(&mut z, &[1, 1]),
        );
        call("encode_affine", &[x_, q_, s_, z_], &[int(bits), int(0), Scalar::Bool(false)]).unwrap();
        let y_ = tensor(&mut y, &[1, 4]);
        call("decode", &[q_, s_, z_, y_], &[int(bits), int(4), int(dtype)]).unwrap();
        let step = s[0].to_f64();
        for (x, y) in x.iter().zip(&y) {
            assert!((x.to_f64() - y.to_f64()).abs() <= step, "{:e} became {:e}", x.to_f64(), y.to_f64());
        }
    }
    for bits in [1, 2, 8] {
        check::<f64>(bits, 0);
        check::<f32>(bits, 1);
        check::<F16>(bits, 2);
        check::<Bf16>(bits, 3);
    }
}

#[test]
fn int8_is_signed() {
    let mut x = [1.0f32, -1.0, 0.5, f32::MIN_POSITIVE];
    let (mut q, mut s, mut y) = ([0i8; 4], [0f32; 1], [0f32; 4]);
    let mut none = [0u8; 0];
    let (q_, s_) = (tensor(&mut q, &[1, 4]), tensor(&mut s, &[1, 1]));
    call("encode_symmetric", &[tensor(&mut x, &[1, 4]), q_, s_], &[int(8), int(0), Scalar::Bool(false)]).unwrap();
    let y_ = tensor(&mut y, &[1, 4]);
    call("decode", &[q_, s_, tensor(&mut none, &[0]), y_], &[int(8), int(4), int(1)]).unwrap();
    assert_eq!(q, [127, -127, 64, 0]);
    assert_eq!(y, [127.0 / 127.0, -127.0 * s[0], 64.0 * s[0], 0.0]);
}

#[test]
fn non_finite_is_an_error() {
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 7, 127, 128, 255] {
            let mut x = vec![1.0f32; 256];
            x[at] = bad;
            let (mut s, mut none, mut q) = ([1f32; 2], [0i32; 0], [0i8; 256]);
            let (mut lo, mut hi) = ([5f32; 2], [5f32; 2]);
            let (x, s, q) = (tensor(&mut x, &[2, 128]), tensor(&mut s, &[2, 1]), tensor(&mut q, &[2, 128]));
            let k = |saturate| [int(-128), int(127), int(0), int(0), int(0), Scalar::Bool(saturate)];
            let none = tensor(&mut none, &[0]);
            assert!(matches!(call("quantize", &[x, s, none, q], &k(false)), Err(Error::Value(_))));
            call("quantize", &[x, s, none, q], &k(true)).unwrap();
            let want = if bad.is_nan() { 0 } else { (127.5 * bad.signum() - 0.5) as i8 };
            assert_eq!(q.slice::<i8>().unwrap()[at], want);
            let range = [tensor(&mut lo, &[2, 1]), tensor(&mut hi, &[2, 1])];
            let k = |saturate| [int(1), int(0), Scalar::Bool(saturate)];
            assert!(matches!(call("value_range", &[x, range[0], range[1]], &k(false)), Err(Error::Value(_))));
            assert_eq!(range[0].slice::<f32>().unwrap(), [5.0; 2], "nothing was changed");
            call("value_range", &[x, range[0], range[1]], &k(true)).unwrap();
            assert_eq!(range[1].slice::<f32>().unwrap(), [1.0; 2]);
            assert!(call("encode_symmetric", &[x, q, s], &[int(8), int(0), Scalar::Bool(false)]).is_err());
        }
    }
}

#[test]
fn ranges() {
    for level in available() {
        force(Some(level));
        for n in (0..=40).chain([300, 40_000]) {
            for (shape, grain) in grains(n) {
                let (len, count) = (shape.iter().product(), grain.iter().product::<usize>());
                let mut x: Vec<f32> = values(len, 3);
                let (mut lo, mut hi) = (vec![7f32; count], vec![7f32; count]);
                let t = [tensor(&mut x, &shape), tensor(&mut lo, &grain), tensor(&mut hi, &grain)];
                call("value_range", &t, &[int(0), int(0), Scalar::Bool(false)]).unwrap();
                let mut want = vec![(0f32, 0f32); count];
                for i in 0..len {
                    let w = &mut want[place(&shape, &grain, i)];
                    *w = (w.0.min(x[i]), w.1.max(x[i]));
                }
                assert_eq!(lo.into_iter().zip(hi).collect::<Vec<_>>(), want, "{level} {shape:?} {grain:?}");
            }
        }
    }
    force(None);
}

#[test]
fn same_bits_for_any_number_of_threads_and_level() {
    let n = 100_003;
    let mut x: Vec<f32> = values(n, 8);
    let mut g: Vec<f32> = values(n, 9);
    let (mut s, mut z) = ([0.37f32], [1f32]);
    let t = [tensor(&mut g, &[n]), tensor(&mut x, &[n]), tensor(&mut s, &[1]), tensor(&mut z, &[1])];
    let mut seen: Option<(Vec<f32>, Vec<u8>)> = None;
    for level in available() {
        force(Some(level));
        for threads in [1, 2, 5] {
            let (mut d, mut ds, mut dz, mut q) = (vec![0f32; n], [0f32; 1], [0f32; 1], vec![0u8; n]);
            pool::with(Context { runner: None, threads, poll: None }, || {
                let out = [tensor(&mut d, &[n]), tensor(&mut ds, &[1]), tensor(&mut dz, &[1])];
                let k = [int(-8), int(7), int(0), Scalar::Float(1.0)];
                call("fake_quantize_lsq_bwd", &[t[0], t[1], t[2], t[3], out[0], out[1], out[2]], &k).unwrap();
                let k = [int(0), int(255), int(0), int(3), int(-1), Scalar::Bool(false)];
                call("quantize", &[t[1], t[2], t[3], tensor(&mut q, &[n])], &k).unwrap();
            });
            let now = (vec![ds[0], dz[0]], q);
            assert_eq!(seen.get_or_insert_with(|| now.clone()), &now, "{level} {threads}");
        }
    }
    force(None);
}

#[test]
fn stochastic_rounding_is_fair_and_leaves_integers() {
    let n = 1 << 18;
    for (x, mean) in [(2.0, 2.0), (2.25, 2.25), (-2.25, -2.25), (0.125, 0.125), (-1.0, -1.0)] {
        let mut x = vec![x; n];
        let (mut s, mut none, mut q) = ([1f32], [0i32; 0], vec![0i8; n]);
        let k = [int(-128), int(127), int(0), int(3), int(7), Scalar::Bool(false)];
        let t = [tensor(&mut x, &[n]), tensor(&mut s, &[1]), tensor(&mut none, &[0]), tensor(&mut q, &[n])];
        call("quantize", &t, &k).unwrap();
        let got = q.iter().map(|&q| f64::from(q)).sum::<f64>() / n as f64;
        // five standard deviations of at most 1/2 each
        assert!((got - mean).abs() <= 2.5 / (n as f64).sqrt(), "{got} {mean}");
        if mean == mean.trunc() {
            assert!(q.iter().all(|&q| f64::from(q) == mean));
        }
    }
}

#[test]
fn packed_rows() {
    for bits in 1..=8usize {
        for n in (0..=70).chain([2047, 2049, 40_000]) {
            for (rows, words) in [(1, false), (3, false), (3, true)] {
                let mut q: Vec<u8> = (0..rows * n).map(|i| ((i * 89 + 13) % (1 << bits)) as u8).collect();
                let mut back = vec![0u8; rows * n];
                let stride = base::bits::bytes(n, bits).next_multiple_of(if words { 4 } else { 1 });
                let mut w = vec![0xa5a5_a5a5_u32; rows * stride.div_ceil(4)];
                // SAFETY: the words as bytes, or as int32.
                let packed = unsafe {
                    let (size, kind) = if words { (4, base::Dtype::I32) } else { (1, base::Dtype::U8) };
                    Tensor::new(w.as_mut_ptr().cast(), &[rows, stride / size], kind, true).unwrap()
                };
                let (q_, b_) = (tensor(&mut q, &[rows, n]), tensor(&mut back, &[rows, n]));
                call("pack", &[q_, packed], &[int(bits as i64), Scalar::Bool(words)]).unwrap();
                call("unpack", &[packed, b_], &[int(bits as i64), int(n as i64), Scalar::Bool(false)]).unwrap();
                assert_eq!(q, back, "{bits} {n}");
                // SAFETY: `rows * stride` bytes were written.
                let bytes = unsafe { std::slice::from_raw_parts(w.as_ptr().cast::<u8>(), rows * stride) };
                for row in bytes.chunks(stride.max(1)) {
                    let used = n * bits;
                    assert!((used..row.len() * 8).all(|b| row[b / 8] >> (b % 8) & 1 == 0), "padding is zero");
                }
            }
        }
    }
}

#[test]
fn what_is_refused() {
    let mut x = [1f32; 8];
    let (mut q, mut none) = ([0i8; 8], [0i32; 0]);
    let (x, q, none) = (tensor(&mut x, &[2, 4]), tensor(&mut q, &[2, 4]), tensor(&mut none, &[0]));
    let k = |lo, hi| [int(lo), int(hi), int(0), int(0), int(0), Scalar::Bool(false)];
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let mut s = [bad];
        assert!(matches!(call("quantize", &[x, tensor(&mut s, &[1]), none, q], &k(-8, 7)), Err(Error::Value(_))));
    }
    let mut s = [1f32; 3];
    assert!(matches!(call("quantize", &[x, tensor(&mut s, &[3]), none, q], &k(-8, 7)), Err(Error::Value(_))));
    let mut s = [1f32];
    let s = tensor(&mut s, &[1, 1]);
    for (lo, hi) in [(7, 7), (-129, 3), (-1, 128), (0, 256)] {
        assert!(matches!(call("quantize", &[x, s, none, q], &k(lo, hi)), Err(Error::Value(_))));
    }
    assert!(matches!(call("quantize", &[x, s, none, q], &k(0, 255)), Err(Error::Type(_))));
    let mut z = [3_000_000i32];
    assert!(matches!(call("quantize", &[x, s, tensor(&mut z, &[1, 1]), q], &k(-8, 7)), Err(Error::Value(_))));
    let (mut over, mut w) = ([16u8, 0], [0u8]);
    let t = [tensor(&mut over, &[2]), tensor(&mut w, &[1])];
    assert!(matches!(call("pack", &t, &[int(4), Scalar::Bool(false)]), Err(Error::Value(_))));
    let mut g = [0f32; 2];
    let e = call("encode_symmetric", &[x, q, tensor(&mut g, &[2, 1])], &[int(8), int(3), Scalar::Bool(false)]);
    assert!(matches!(e, Err(Error::Value(_))));
}
