//! N of M beside a sort.

use super::super::groups::{MOST, TILE};
use super::*;

/// Which are kept, by the definition: fewer than n of a group come before them.
fn by_sort(keys: &[u64], n: usize, m: usize) -> Vec<u8> {
    let group = |g: &[u64]| {
        (0..g.len()).map(|i| u8::from((0..m).filter(|&j| (g[i], j) < (g[j], i)).count() < n)).collect::<Vec<_>>()
    };
    keys.chunks(m).flat_map(group).collect()
}

fn check<T: Store>(x: &[T], format: Format, key: impl Fn(T) -> u64, nan: Nan) {
    for (n, m) in (1..=MOST).flat_map(|m| [0, 1, m / 2, m - 1, m].map(|n| (n, m))) {
        let x = &x[..x.len() / m * m];
        let want = by_sort(&x.iter().map(|&v| key(v)).collect::<Vec<_>>(), n, m);
        let mut mask = vec![9; x.len()];
        nm_mask(&tensor(x), Order { format, signed: false, nan }, [n, m], &mut mask).unwrap();
        assert!(mask == want, "{n} of {m} of {} {format:?}", x.len());
    }
}

#[test]
fn groups_agree_with_a_sort() {
    for level in simd::available() {
        simd::force(Some(level));
        for n in [0, 5, 64, 16 * 64 + 33, 2 * TILE + 130] {
            for mut x in samples(n, n as u64) {
                x.iter_mut().skip(11).step_by(97).for_each(|v| *v = f32::NAN);
                let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
                let brain: Vec<Bf16> = x.iter().map(|&v| Bf16::from_f32(v)).collect();
                let last = |key: u64, nan: bool| if nan { 0 } else { key };
                check(&x, Format::F32, |v| last(u64::from(v.to_bits() << 1), v.is_nan()), Nan::Lowest);
                check(&wide, Format::F64, |v| last(v.to_bits() << 1, v.is_nan()), Nan::Lowest);
                check(&brain, Format::Bf16, |v| last(u64::from(v.0 << 1), v.to_f32().is_nan()), Nan::Lowest);
            }
        }
    }
    simd::force(None);
}
