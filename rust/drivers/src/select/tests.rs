mod groups;

use super::*;
use base::store::{Bf16, F16, Store};
use base::{Dtype, Element, Tensor, pool, simd};

/// A small generator: the tests need variety, not randomness.
struct Mix(u64);
impl Mix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn tensor<T: Element>(x: &[T]) -> Tensor<'_> {
    // SAFETY: the slice outlives the description and is not written to.
    unsafe { Tensor::new(x.as_ptr().cast_mut().cast(), &[x.len()], T::DTYPE, false) }.unwrap()
}

fn order(format: Format) -> Order {
    Order { format, signed: false, nan: Nan::Bits }
}

/// Inputs of every temper: spread, ties, zeros of both signs, denormals, all equal.
fn samples(n: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut r = Mix(seed);
    let mut make = |f: &dyn Fn(u64) -> f32| (0..n).map(|_| f(r.next())).collect::<Vec<_>>();
    vec![
        make(&|v| f32::from_bits(v as u32 & 0xbfff_ffff)),
        make(&|v| (v % 7) as f32 - 3.0),
        make(&|v| if v % 2 == 0 { 0.0 } else { -0.0 }),
        make(&|v| f32::from_bits((v % 9) as u32 | ((v as u32) & 0x8000_0000))),
        make(&|v| if v % 100 == 0 { 1e-3 } else { 0.0 }),
        vec![-0.25; n],
        make(&|v| (v >> 40) as f32 / 16_777_216.0 - 0.5),
    ]
}

/// The key of rank `k` (from 1) of several arrays, by rounds of at most `digit` bits.
fn select(arrays: &[Tensor], order: Order, k: usize, digit: u32) -> (u64, usize) {
    let (mut prefix, mut left, mut shift) = (0_i64, k as i64, order.format.bits());
    while shift > 0 {
        let bits = digit.min(shift);
        shift -= bits;
        let mut counts = vec![0; 1 << bits];
        let round = Round { prefixes: &[prefix], shift, bits };
        for x in arrays {
            count(x, order, &round, &mut counts).unwrap();
        }
        let mut d = 0;
        while left > counts[d] {
            left -= counts[d];
            d += 1;
        }
        prefix = ((prefix as u64) << bits | d as u64) as i64;
    }
    (prefix as u64, left as usize)
}

fn check<T: Store>(format: Format, x: &[T], k: usize, digit: u32) {
    let n = x.len();
    let mut by: Vec<usize> = (0..n).collect();
    let value = |i: usize| x[i].to_f64().abs();
    by.sort_by(|&a, &b| value(a).total_cmp(&value(b)).then(b.cmp(&a)));
    let o = order(format);
    let t = tensor(x);
    // in two pieces, as two arrays
    let half = n / 3;
    let pieces = [tensor(&x[..half]), tensor(&x[half..])];
    let (key, place) = select(&pieces, o, k, digit);
    let mut tallied = [0; 2];
    tally(&t, o, &[key as i64], &mut tallied).unwrap();
    let keep = (tallied[1] as usize - place) as u64;
    let mut got = vec![2; n];
    let cut = Cut { threshold: key as i64, keep, high: false };
    let counts = mask(&t, o, cut, &mut got).unwrap();
    assert_eq!([counts.0, counts.1], tallied);
    let mut want = vec![1; n];
    for &i in &by[..k] {
        want[i] = 0;
    }
    assert_eq!(got, want, "{format:?} n {n} k {k}");
    // of equals the last instead of the first
    let high = Cut { high: true, ..cut };
    mask(&t, o, high, &mut got).unwrap();
    by.sort_by(|&a, &b| value(a).total_cmp(&value(b)).then(a.cmp(&b)));
    let mut want = vec![1; n];
    for &i in &by[..k] {
        want[i] = 0;
    }
    assert_eq!(got, want);
}

#[test]
fn masks_agree_with_a_sort() {
    for level in simd::available() {
        simd::force(Some(level));
        for n in (1..=131).chain([255, 2047, 2048, 2049, 4097]) {
            for (s, x) in samples(n, n as u64).iter().enumerate() {
                let k = 1 + (n * (s + 1) * 31) % n;
                let small: Vec<F16> = x.iter().map(|&v| F16::from_f32(v)).collect();
                let finite = small.iter().all(|v| v.to_f32().is_finite());
                let brain: Vec<Bf16> = x.iter().map(|&v| Bf16::from_f32(v)).collect();
                let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
                check(Format::F32, x, k, 16);
                check(Format::F64, &wide, k, 16);
                check(Format::Bf16, &brain, k, 16);
                check(Format::F32, &brain, k, 11);
                if finite {
                    check(Format::F16, &small, k, 16);
                    check(Format::F32, &small, k, 16);
                    check(Format::F64, &small, k, 13);
                }
            }
        }
    }
    simd::force(None);
}

#[test]
fn large_arrays_on_any_number_of_threads() {
    let n = (1 << 20) + 77;
    for x in samples(n, 5) {
        let mut results = Vec::new();
        for threads in [1, 2, 5] {
            let context = pool::Context { runner: None, threads, poll: None };
            results.push(pool::with(context, || {
                let (t, o) = (tensor(&x), order(Format::F32));
                let found = select(&[t], o, n / 2, 16);
                let mut m = vec![0; n];
                let cut = Cut { threshold: found.0 as i64, keep: 1000, high: false };
                let c = mask(&t, o, cut, &mut m).unwrap();
                (found, c, m)
            }));
        }
        assert!(results[0] == results[1] && results[0] == results[2]);
        let ((key, place), (above, equal), m) = &results[0];
        let kept = m.iter().map(|&b| i64::from(b)).sum::<i64>();
        assert_eq!(kept, above + 1000.min(*equal));
        let mut keys: Vec<u32> = x.iter().map(|v| v.to_bits() << 1).collect();
        keys.sort_unstable();
        assert_eq!(*key, u64::from(keys[n / 2 - 1]));
        let below = keys.iter().filter(|&&v| u64::from(v) < *key).count();
        assert_eq!(*place, n / 2 - below);
    }
}

#[test]
fn signed_order_and_nan() {
    let x = [1.0_f32, -1.0, 0.0, -0.0, f32::NAN, -f32::NAN, f32::INFINITY, -f32::INFINITY, 1e-45, -1e-45];
    let keys = |signed, nan| {
        let mut k = [0_u32; 10];
        let order = Order { format: Format::F32, signed, nan };
        keys::Load::load(&tensor(&x), 0, order, &mut k);
        k
    };
    for (signed, rank) in [(false, f32::abs as fn(f32) -> f32), (true, |v| v)] {
        for nan in [Nan::Highest, Nan::Lowest] {
            let k = keys(signed, nan);
            for i in 0..10 {
                for j in 0..10 {
                    let (a, b) = (rank(x[i]), rank(x[j]));
                    if a.is_nan() {
                        assert!(if nan == Nan::Highest { k[i] >= k[j] } else { k[i] <= k[j] });
                    } else if !b.is_nan() {
                        assert_eq!(k[i].cmp(&k[j]), a.partial_cmp(&b).unwrap());
                    }
                }
            }
        }
    }
    assert!(!finite(&tensor(&x)).unwrap());
    assert!(finite(&tensor(&x[..4])).unwrap());
}

#[test]
fn types_widen_exactly() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let halves: Vec<F16> = all.iter().map(|&b| F16(b)).collect();
    let singles: Vec<f32> = halves.iter().map(|h| h.to_f32()).collect();
    let doubles: Vec<f64> = halves.iter().map(|h| h.to_f64()).collect();
    let o = order(Format::F64);
    let load = |t: &Tensor| {
        let mut k = vec![0_u64; t.len()];
        keys::Load::load(t, 0, o, &mut k);
        k
    };
    let (a, b, c) = (load(&tensor(&halves)), load(&tensor(&singles)), load(&tensor(&doubles)));
    for i in 0..a.len() {
        assert!(halves[i].to_f32().is_nan() || (a[i] == b[i] && b[i] == c[i]));
    }
    assert!(order(Format::F16).check(&tensor(&singles)).is_err());
    assert!(order(Format::F16).check(&tensor(&[Bf16(0)])).is_err());
    assert!(order(Format::Bf16).check(&tensor(&halves)).is_err());
    assert!(order(Format::F32).check(&tensor(&doubles)).is_err());
    assert!(order(Format::F64).check(&tensor(&[1_i64])).is_err());
}

fn low(prefixes: &[i64]) -> Round<'_> {
    Round { prefixes, shift: 7, bits: 9 }
}

#[test]
fn many_prefixes_count_as_one_each() {
    for x in samples(5000, 9) {
        let (t, o) = (tensor(&x), order(Format::F32));
        let mut first = vec![0; 1 << 16];
        let all = Round { prefixes: &[0], shift: 16, bits: 16 };
        count(&t, o, &all, &mut first).unwrap();
        assert_eq!(first.iter().sum::<i64>(), 5000);
        let prefixes: Vec<i64> = (0..1_i64 << 16).filter(|&d| first[d as usize] > 0).step_by(2).take(50).collect();
        let mut together = vec![0; prefixes.len() << 9];
        count(&t, o, &low(&prefixes), &mut together).unwrap();
        for (i, p) in prefixes.iter().enumerate() {
            let mut alone = vec![0; 1 << 9];
            count(&t, o, &low(&[*p]), &mut alone).unwrap();
            assert_eq!(alone, together[i << 9..(i + 1) << 9]);
            assert_eq!(alone.iter().sum::<i64>(), first[*p as usize]);
        }
    }
}

#[test]
fn a_wrong_round_is_an_error() {
    let x = [1.0_f32];
    let (t, o) = (tensor(&x), order(Format::F32));
    for (prefixes, shift, bits, n) in [
        (&[0_i64][..], 16, 17, 1 << 17),
        (&[0], 16, 0, 1),
        (&[1], 16, 16, 1 << 16),
        (&[-1], 0, 16, 1 << 16),
        (&[1 << 16], 0, 16, 1 << 16),
        (&[2, 1], 0, 8, 512),
        (&[0, 1], 0, 8, 256),
        (&[0], u32::MAX, 8, 256),
    ] {
        let round = Round { prefixes, shift, bits };
        assert!(count(&t, o, &round, &mut vec![0; n]).is_err());
    }
}

fn topk_check<T: Store>(x: &[T], d: usize, k: usize, signed: bool, format: Format) {
    let rows = x.len() / d;
    // SAFETY: as in `tensor`.
    let t = unsafe { Tensor::new(x.as_ptr().cast_mut().cast(), &[rows, d], T::DTYPE, false) }.unwrap();
    let o = Order { signed, ..order(format) };
    let mut got = vec![-1; rows * k];
    topk_rows(&t, o, k, &mut got).unwrap();
    let mut values = vec![T::default(); rows * k];
    // SAFETY: `values` outlives it and is written through it alone.
    let out = unsafe { Tensor::new(values.as_mut_ptr().cast(), &[rows, k], T::DTYPE, true) };
    gather_rows(&t, &got, &out.unwrap()).unwrap();
    for r in 0..rows {
        let row = &x[r * d..(r + 1) * d];
        let v = |i: usize| {
            let v = row[i].to_f64();
            if signed { v + 0.0 } else { v.abs() }
        };
        let mut by: Vec<usize> = (0..d).collect();
        by.sort_by(|&a, &b| v(b).total_cmp(&v(a)));
        by.truncate(k);
        by.sort_unstable();
        let want: Vec<i64> = by.iter().map(|&i| i as i64).collect();
        assert_eq!(&got[r * k..(r + 1) * k], want, "d {d} k {k}");
        for (j, &i) in by.iter().enumerate() {
            assert_eq!(values[r * k + j].to_f64().to_bits(), row[i].to_f64().to_bits());
        }
    }
}

#[test]
fn topk_agrees_with_a_stable_sort() {
    for d in (1..=131).chain([511, 512, 513, 2048, 5000]) {
        for x in samples(2 * d, d as u64) {
            let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            let brain: Vec<Bf16> = x.iter().map(|&v| Bf16::from_f32(v)).collect();
            for k in [0, 1, d / 3, d - 1, d] {
                for signed in [false, true] {
                    topk_check(&x, d, k, signed, Format::F32);
                    topk_check(&wide, d, k, signed, Format::F64);
                    topk_check(&brain, d, k, signed, Format::Bf16);
                }
            }
        }
    }
}

#[test]
fn scatter_is_the_transpose_of_gather() {
    let (g, indices) = ([1.0_f32, 2.0, 3.0, 4.0], [0_i64, 2, 1, 2]);
    let mut y = [9.0_f32; 6];
    // SAFETY: `g` and `y` outlive the descriptions; only `y` is written.
    let (gt, yt) = unsafe {
        (
            Tensor::new(g.as_ptr().cast_mut().cast(), &[2, 2], Dtype::F32, false).unwrap(),
            Tensor::new(y.as_mut_ptr().cast(), &[2, 3], Dtype::F32, true).unwrap(),
        )
    };
    scatter_rows(&gt, &indices, &yt).unwrap();
    assert_eq!(y, [1.0, 0.0, 2.0, 0.0, 3.0, 4.0]);
    assert!(scatter_rows(&gt, &[0, 3, 0, 0], &yt).is_err());
    assert!(scatter_rows(&gt, &[0, -1, 0, 0], &yt).is_err());
    assert!(topk_rows(&yt, order(Format::F32), 4, &mut [0; 8]).is_err());
}

#[test]
fn a_masked_array_is_positive_zero_where_it_was_pruned() {
    let n = 70_000;
    let x: Vec<f32> = (0..n).map(|i| if i % 3 == 0 { -0.0 } else { f32::NAN }).collect();
    let m: Vec<u8> = (0..n).map(|i| u8::from(i % 2 == 0) * 3).collect();
    // SAFETY: `m` outlives it and is not written to.
    let mt = unsafe { Tensor::new(m.as_ptr().cast_mut(), &[n], Dtype::Bool, false) }.unwrap();
    let mut y = x.clone();
    // SAFETY: `y` outlives it and is written through it alone.
    let yt = unsafe { Tensor::new(y.as_mut_ptr().cast(), &[n], Dtype::F32, true) }.unwrap();
    apply(&tensor(&x), &mt, &yt).unwrap();
    let want: Vec<u32> = (0..n).map(|i| if i % 2 == 0 { x[i].to_bits() } else { 0 }).collect();
    assert_eq!(y.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), want);
    let mut z = x;
    // SAFETY: as above; the array is its own input.
    let zt = unsafe { Tensor::new(z.as_mut_ptr().cast(), &[n], Dtype::F32, true) }.unwrap();
    apply(&zt, &mt, &zt).unwrap();
    assert_eq!(z.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), want);
    assert!(apply(&zt, &tensor(&[1_u8]), &zt).is_err());
}

#[test]
fn a_window_splits_as_a_mask_and_a_list() {
    let o = order(Format::F32);
    for n in [0, 1, 63, 64, 65, 131, 65_535, 65_537, 300_000] {
        for x in samples(n, 3) {
            let mut keys: Vec<u32> = x.iter().map(|v| v.to_bits() << 1).collect();
            let unsorted = keys.clone();
            keys.sort_unstable();
            let at = |i: usize| keys.get(i).map_or(0, |&k| i64::from(k));
            let (lo, hi) = (at(n / 2), at(n / 2 + n / 100));
            let want: Vec<(i64, i64)> = (0_i64..)
                .zip(&unsorted)
                .map(|(i, &k)| (i, i64::from(k)))
                .filter(|(_, k)| (lo..=hi).contains(k))
                .collect();
            let (mut m, mut places, mut found) = (vec![7; n], vec![0; want.len()], vec![0; want.len()]);
            let f = split(&tensor(&x), o, (lo, hi), &mut m, &mut places, &mut found).unwrap();
            assert_eq!(f.inside, want.len());
            assert_eq!(f.below, keys.iter().filter(|&&k| i64::from(k) < lo).count());
            assert_eq!(places.iter().copied().zip(found).collect::<Vec<_>>(), want);
            let above: Vec<u8> = unsorted.iter().map(|&k| u8::from(i64::from(k) > hi)).collect();
            assert_eq!(m, above);
            // lists that are too short: counted all the same
            let short = split(&tensor(&x), o, (lo, hi), &mut m, &mut [], &mut []).unwrap();
            assert_eq!(f, short);
        }
    }
    let bad = [1.0, f32::INFINITY];
    assert!(split(&tensor(&bad), o, (0, 1), &mut [0; 2], &mut [0; 2], &mut [0; 2]).unwrap().nonfinite);
    assert!(split(&tensor(&bad), o, (2, 1), &mut [0; 2], &mut [], &mut []).is_err());
    assert!(split(&tensor(&bad), order(Format::F64), (0, 1), &mut [0; 2], &mut [], &mut []).is_err());
}
