//! What elements are computed in. The one rule: f64 in f64, the others in f32, so that functors are compiled for two types.

use base::store::{Bf16, F16, Store, convert};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A type to compute in.
pub trait Real:
    Compute<Real = Self>
    + PartialOrd
    + std::fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    /// 1.5 · 2^(p − 1) for a significand of p bits: added to |v| ≤ 2^(p − 2), it rounds v to an integer, half to even,
    /// and leaves that integer in the low bits.
    const MAGIC: Self;
    /// The smallest normal number.
    const TINY: Self;
    fn of(v: f64) -> Self;
    fn int(v: i32) -> Self;
    #[must_use]
    fn abs(self) -> Self;
    #[must_use]
    fn trunc(self) -> Self;
    /// The next number up.
    #[must_use]
    fn up(self) -> Self;
    /// The low 32 bits of the representation.
    fn low(self) -> i32;
    /// Whether the sign is set, of zeros and NaN too.
    fn negative(self) -> bool;
    /// The power of two at or below the magnitude of a normal number; of 0 and denormals 0.
    #[must_use]
    fn binade(self) -> Self;
    /// 1/p of a power of two p within 2^±100, without a division.
    #[must_use]
    fn inverse(self) -> Self;
    /// 2^m (log2 p − log2 q) of powers of two p and q.
    fn steps(self, q: Self, m: u32) -> i32;
    fn is_finite(self) -> bool;
    /// ⌊log₂ v⌋ of a normal positive number.
    fn exponent(self) -> i32;
    /// 2^e, if that is a normal number.
    fn power(e: i32) -> Self;
    /// The largest |x|; NaN above infinity above every number. With `FINITE`, what is not finite counts as 0.
    fn amax<const FINITE: bool>(x: &[Self]) -> Self;
    /// The least and the largest of x and 0; whatever is not finite shows in one of them, or, with `FINITE`, in none.
    fn range<const FINITE: bool>(x: &[Self]) -> (Self, Self);
}

/// A type to store in and its type to compute in.
pub trait Compute: Store {
    type Real: Real;
    /// Whether the two are the same, so that a slice needs no conversion.
    const SAME: bool;
    /// The largest finite number of the type.
    const MOST: Self::Real;
    fn widen(x: &[Self], y: &mut [Self::Real]);
    fn narrow(x: &[Self::Real], y: &mut [Self]);
}

macro_rules! real {
    ($t:ty, $u:ty, $i:ty, $magic:expr) => {
        impl Compute for $t {
            type Real = $t;
            const SAME: bool = true;
            const MOST: Self = <$t>::MAX;
            fn widen(x: &[Self], y: &mut [Self]) {
                y.copy_from_slice(x);
            }
            fn narrow(x: &[Self], y: &mut [Self]) {
                y.copy_from_slice(x);
            }
        }
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const MAGIC: Self = $magic;
            const TINY: Self = <$t>::MIN_POSITIVE;
            #[inline(always)]
            fn of(v: f64) -> Self {
                v as $t
            }
            #[inline(always)]
            fn int(v: i32) -> Self {
                v as $t
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn trunc(self) -> Self {
                self.trunc()
            }
            #[inline(always)]
            fn up(self) -> Self {
                self.next_up()
            }
            #[inline(always)]
            fn low(self) -> i32 {
                self.to_bits() as i32
            }
            #[inline(always)]
            fn negative(self) -> bool {
                self.is_sign_negative()
            }
            #[inline(always)]
            fn binade(self) -> Self {
                <$t>::from_bits(self.to_bits() & <$t>::INFINITY.to_bits())
            }
            #[inline(always)]
            fn inverse(self) -> Self {
                const TWICE: $u = 2 * (1.0 as $t).to_bits();
                <$t>::from_bits(TWICE.wrapping_sub(self.to_bits()))
            }
            #[inline(always)]
            fn steps(self, q: Self, m: u32) -> i32 {
                (self.to_bits().wrapping_sub(q.to_bits()) >> (<$t>::MANTISSA_DIGITS - 1 - m)) as i32
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                self.is_finite()
            }
            #[inline(always)]
            fn exponent(self) -> i32 {
                (self.to_bits() >> (<$t>::MANTISSA_DIGITS - 1)) as i32 - (<$t>::MAX_EXP - 1)
            }
            #[inline(always)]
            fn power(e: i32) -> Self {
                <$t>::from_bits(((e + (<$t>::MAX_EXP - 1)) as $u) << (<$t>::MANTISSA_DIGITS - 1))
            }
            // the bits of a number without its sign order as the number does, and integer reductions become vectors
            #[inline(always)]
            fn amax<const FINITE: bool>(x: &[Self]) -> Self {
                const INF: $i = <$t>::INFINITY.to_bits() as $i;
                let mut most: $i = 0;
                for &v in x {
                    let u = v.to_bits() as $i & <$i>::MAX;
                    most = most.max(if FINITE && u >= INF { 0 } else { u });
                }
                <$t>::from_bits(most as $u)
            }
            #[inline(always)]
            fn range<const FINITE: bool>(x: &[Self]) -> (Self, Self) {
                const INF: $i = <$t>::INFINITY.to_bits() as $i;
                // as signed integers the positive numbers are in order and above all others; as unsigned ones the
                // negative numbers are above all others, the lowest on top
                let (mut high, mut low): ($i, $u) = (0, 0);
                for &v in x {
                    let u = v.to_bits();
                    let u = if FINITE && u as $i & <$i>::MAX >= INF { 0 } else { u };
                    high = high.max(u as $i);
                    low = low.max(u);
                }
                let low = if low as $i < 0 { <$t>::from_bits(low) } else { 0.0 };
                (low + 0.0, <$t>::from_bits(high as $u))
            }
        }
    };
}
real!(f32, u32, i32, 12_582_912.0);
real!(f64, u64, i64, 6_755_399_441_055_744.0);

macro_rules! half { ($($t:ty, $most:expr;)*) => { $(
    impl Compute for $t {
        type Real = f32;
        const SAME: bool = false;
        const MOST: f32 = $most;
        fn widen(x: &[Self], y: &mut [f32]) {
            convert(x, y);
        }
        fn narrow(x: &[f32], y: &mut [Self]) {
            convert(x, y);
        }
    }
)* } }
half! { F16, 65504.0; Bf16, f32::from_bits(0x7F7F_0000); }
