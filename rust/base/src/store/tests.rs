//! Storage types against a search over all 65,536 values: every rounding is the nearest one, even on a tie.

use super::*;

/// Every f32 pattern that matters to a 16-bit type: its own values, the ties between them, and their neighbours.
fn edges<T: Store>(make: impl Fn(u16) -> T) -> Vec<f32> {
    let mut out = vec![f32::MAX, f32::from_bits(1), f32::MIN_POSITIVE, 65519.996, 65520.0, 1e30];
    for h in 0..=u16::MAX {
        let (a, b) = (make(h).to_f32(), make(h.wrapping_add(1)).to_f32());
        let tie = f64::midpoint(f64::from(a), f64::from(b)) as f32;
        for v in [a, tie] {
            for step in [-1i32, 0, 1] {
                out.push(f32::from_bits(v.to_bits().wrapping_add_signed(step)));
            }
        }
    }
    out
}

/// The nearest of all values, by search; even on a tie.
fn nearest<T: Store>(make: impl Fn(u16) -> T, top: u16, limit: f64, x: f64) -> u16 {
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    let a = x.abs();
    if a >= limit {
        return sign | top;
    }
    let (mut lo, mut hi) = (0, top - 1);
    while lo < hi {
        let mid = (lo + hi).div_ceil(2);
        if make(mid).to_f64() <= a {
            lo = mid;
        } else {
            hi = mid - 1;
        }
    }
    let (below, here) = (a - make(lo).to_f64(), make(lo).to_f64());
    let above = if lo + 1 == top { limit + (limit - here) } else { make(lo + 1).to_f64() } - a;
    // exact: both differences are between numbers of a few bits and one of 53, near each other
    let up = match below.partial_cmp(&above) {
        Some(std::cmp::Ordering::Greater) => 1,
        Some(std::cmp::Ordering::Equal) => lo & 1,
        _ => 0,
    };
    sign | (lo + up)
}

fn narrow_is_one_rounding<T: Store>(make: impl Fn(u16) -> T + Copy, bits: impl Fn(T) -> u16, top: u16, limit: f64) {
    for x in edges(make) {
        let got = bits(T::from_f32(x));
        if x.is_nan() {
            assert!(T::from_f32(x).to_f32().is_nan() && T::from_f64(f64::from(x)).to_f32().is_nan(), "{x}");
            continue;
        }
        assert_eq!(got, nearest(make, top, limit, f64::from(x)), "{x:e}");
        // a hair off in f64, invisible in f32: a tie is one no longer
        let w = f64::from(x).to_bits();
        for step in [-1i64, 0, 1] {
            let y = f64::from_bits(w.wrapping_add_signed(step));
            if !y.is_nan() {
                assert_eq!(bits(T::from_f64(y)), nearest(make, top, limit, y), "{y:e}");
            }
        }
    }
    assert_eq!(bits(T::from_f64(f64::MAX)), top);
    assert_eq!(bits(T::from_f64(-f64::from_bits(1))), 0x8000);
    assert!(T::from_f64(f64::from_bits(0x7ff0_0000_0000_0001)).to_f64().is_nan());
}

#[test]
fn f16_rounds_once() {
    narrow_is_one_rounding(F16, |h| h.0, 0x7c00, 65520.0);
}
#[test]
fn bf16_rounds_once() {
    narrow_is_one_rounding(Bf16, |h| h.0, 0x7f80, 3.3961775292304957e38);
}

#[test]
fn widening_is_exact() {
    let pow2 = |e: i32| f64::from_bits(((e + 1023) as u64) << 52);
    for h in 0..=u16::MAX {
        for (x, e_bits, m_bits) in [(F16(h).to_f64(), 5, 10), (Bf16(h).to_f64(), 8, 7)] {
            let sign = if h >> 15 == 1 { -1.0 } else { 1.0 };
            let e = i32::from((h >> m_bits) & ((1 << e_bits) - 1));
            let m = f64::from(h & ((1 << m_bits) - 1)) / f64::from(1 << m_bits);
            let bias = (1 << (e_bits - 1)) - 1;
            if e == (1 << e_bits) - 1 {
                assert_eq!(x.is_nan(), m != 0.0);
                assert!(m != 0.0 || x == sign * f64::INFINITY);
            } else {
                let want = if e == 0 { m * pow2(1 - bias) } else { (1.0 + m) * pow2(e - bias) };
                assert_eq!(x.to_bits(), (sign * want).to_bits());
            }
        }
    }
}

/// Vectors agree with scalars, whatever the tail, and nothing past the tail is read or written.
struct Tails<'a, T>(&'a [T]);
impl<T: Store + PartialEq + std::fmt::Debug> Kernel for Tails<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let same = |a: T, b: T| a == b || (a.to_f64().is_nan() && b.to_f64().is_nan());
        for (at, whole) in self.0.windows(STEP).step_by(5).enumerate() {
            let n = at % (STEP + 1);
            let x = &whole[..n];
            let v = T::load_tail(s, x);
            let w = T::load_tail_f32(s, x);
            for i in 0..STEP {
                let want = if i < n { x[i] } else { T::default() };
                assert!(same(T::from_f64(v[i / 8][i % 8]), want), "{want:?}");
                assert_eq!(w[i].to_bits(), want.to_f32().to_bits());
            }
            // not representable in most types
            let (v, w) = (
                v.map(
                    #[inline(always)]
                    |v| v * 1.000_001,
                ),
                w * 1.000_1,
            );
            let (mut y, mut z) = ([T::default(); STEP + 1], [T::default(); STEP + 1]);
            T::store_tail(s, v, &mut y[..n]);
            T::store_tail_f32(s, w, &mut z[..n]);
            for i in 0..=STEP {
                let (a, b) = if i < n { (v[i / 8][i % 8], w[i]) } else { (0.0, 0.0) };
                assert!(same(y[i], T::from_f64(a)) && same(z[i], T::from_f32(b)), "{a:e} {b:e} {:?} {:?}", y[i], z[i]);
            }
        }
    }
}

#[test]
fn tails_of_every_type_and_level() {
    let h = || (0..=u16::MAX).step_by(7);
    for level in crate::simd::available() {
        crate::simd::force(Some(level));
        dispatch(Tails(&h().map(F16).collect::<Vec<_>>()));
        dispatch(Tails(&h().map(Bf16).collect::<Vec<_>>()));
        dispatch(Tails(&h().map(|i| f32::from_bits(u32::from(i) * 65_521)).collect::<Vec<_>>()));
        dispatch(Tails(&h().map(|i| f64::from_bits(u64::from(i) * 281_474_976_710_597)).collect::<Vec<_>>()));
    }
    crate::simd::force(None);
}
