//! Double-double against 256-bit integers, in which sums and products of two are exact.

use super::*;

/// A 256-bit integer, two's complement: enough for the product of two 107-bit numbers.
#[derive(Clone, Copy)]
struct Wide([u64; 4]);
impl Wide {
    /// Of an f64 with an integer value times 2^shift, cut below 1.
    fn of(x: f64, shift: i32) -> Wide {
        let bits = x.abs().to_bits();
        let (e, m) = ((bits >> 52) as i32 - 1075 + shift, u128::from((bits & ((1 << 52) - 1)) | (1 << 52)));
        let mut w = [0; 4];
        if (-52..0).contains(&e) {
            w[0] = (m >> -e) as u64;
        } else if e >= 0 && x != 0.0 {
            let (limb, wide) = (e as usize / 64, m << (e % 64));
            w[limb] = wide as u64;
            if limb < 3 {
                w[limb + 1] = (wide >> 64) as u64;
            }
        }
        if x < 0.0 { Wide(w).neg() } else { Wide(w) }
    }
    fn neg(self) -> Wide {
        Wide(self.0.map(|l| !l)).add(Wide([1, 0, 0, 0]))
    }
    fn add(self, o: Wide) -> Wide {
        let mut carry = 0;
        Wide(std::array::from_fn(|i| {
            let t = u128::from(self.0[i]) + u128::from(o.0[i]) + carry;
            carry = t >> 64;
            t as u64
        }))
    }
    fn mul(self, o: Wide) -> Wide {
        let mut w = [0u64; 4];
        for i in 0..4 {
            let mut carry = 0u128;
            for j in 0..4 - i {
                let t = u128::from(self.0[i]) * u128::from(o.0[j]) + u128::from(w[i + j]) + carry;
                w[i + j] = t as u64;
                carry = t >> 64;
            }
        }
        Wide(w)
    }
    fn value(self) -> f64 {
        if self.0[3] >> 63 == 1 {
            return -self.neg().value();
        }
        self.0.iter().rev().fold(0.0, |a, &l| a * 1.8446744073709552e19 + l as f64)
    }
}

fn wide<S: Simd>(x: Dd<S>, i: usize, shift: i32) -> Wide {
    Wide::of(x.hi[i], shift).add(Wide::of(x.lo[i], shift))
}

const TOLERANCE: f64 = 7.888609052210118e-31; // 2^-100

struct Check;
impl Kernel for Check {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut state = 1u64;
        let mut word = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 11
        };
        for round in 0..4000u64 {
            // 106-bit integers; every third pair nearly cancels
            let mut make = |sign: f64| {
                let hi = f64x8::from_fn(s, |_| sign * (word() | 1 << 52) as f64 * 9007199254740992.0);
                let lo = f64x8::from_fn(s, |_| word() as f64 - 4503599627370496.0);
                Dd::pair(hi, lo)
            };
            let a = make(1.0);
            let sign = if round % 2 == 0 { 1.0 } else { -1.0 };
            let b = if round % 3 == 0 { a * f64x8::splat(s, sign) + Dd::of(make(1.0).lo) } else { make(sign) };
            let positive = if sign > 0.0 { b } else { -b };
            let (sum, difference, product, square) = (a + b, a - b, a * b, b.square());
            let (quotient, root) = (a / b, positive.root());
            let (scaled, shifted, divided) = (a * b.lo, a + Dd::of(b.lo), a / Dd::of(b.hi));
            for i in 0..8 {
                let (wa, wb) = (wide(a, i, 0), wide(b, i, 0));
                let (hi, lo) = (Wide::of(b.hi[i], 0), Wide::of(b.lo[i], 0));
                let near = |what: &str, got: Wide, want: Wide| {
                    let e = got.add(want.neg()).value().abs();
                    let bound = want.value().abs() * TOLERANCE;
                    assert!(e <= bound, "{what}: {e:e} > {bound:e}");
                };
                near("a + b", wide(sum, i, 0), wa.add(wb));
                near("a - b", wide(difference, i, 0), wa.add(wb.neg()));
                near("a * b", wide(product, i, 0), wa.mul(wb));
                near("b * b", wide(square, i, 0), wb.mul(wb));
                near("a * x", wide(scaled, i, 0), wa.mul(lo));
                near("a + x", wide(shifted, i, 0), wa.add(lo));
                // q b = a and r r = b, with q and r as integers over 2^106 and 2^53
                let one = Wide::of(1.0, 106);
                near("a / b", wide(quotient, i, 106).mul(wb), wa.mul(one));
                near("a / x", wide(divided, i, 106).mul(hi), wa.mul(one));
                let r = wide(root, i, 53);
                near("sqrt", r.mul(r), wide(positive, i, 0).mul(one));
            }
        }
        let zero = Dd::of(f64x8::splat(s, 0.0));
        assert_eq!(zero.root().get()[0], 0.0);
        let other = zero;
        assert_eq!((zero - other).get()[3], 0.0);
    }
}

#[test]
fn within_2_to_minus_100() {
    for level in crate::simd::available() {
        crate::simd::force(Some(level));
        dispatch(Check);
    }
    crate::simd::force(None);
}
