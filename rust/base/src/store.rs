//! Storage types: f32, f64, f16, bf16 in memory, one compute type in registers. The one rule: a value is rounded once,
//! to nearest even, from the lane it was computed in to the type it is kept in.
//!
//! Sixteen elements at a time are two vectors of f64 or one of f32; what is left of an array goes through the `_tail`
//! functions, which read zeros past its end and never touch memory there.
//!
//! From f64 lanes to the 16-bit types the way leads through f32 and would round twice. The lanes are therefore first
//! rounded *to odd* at 13 bits: the low bits are cut off and the last bit kept is set if any of them was.
//! Such a value is never on a tie of a format with 11 bits or fewer and lies on the same side of each tie as the
//! exact one, so rounding it to nearest is rounding once (Boldo and Melquiond, 2008). 13 bits fit in an f32 exactly down to
//! 2^-137, and what is smaller rounds to zero in both formats (half of bf16's least number is 2^-134).

mod convert;

use crate::Element;
use crate::simd::*;
use crate::tail;
pub use convert::convert;

/// IEEE binary16.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct F16(pub u16);

/// The upper half of an f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Bf16(pub u16);

/// Elements per step of a row: the lanes of two f64 vectors or one f32 vector.
pub const STEP: usize = 16;

/// A float type as it lies in memory.
pub trait Store: Element + Default {
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
    /// To nearest even; NaN stays NaN, overflow becomes infinite.
    fn from_f32(x: f32) -> Self;
    /// As [`Store::from_f32`], rounding once.
    fn from_f64(x: f64) -> Self;

    /// The first 16 elements as f64 lanes.
    fn load16<S: Simd>(s: S, x: &[Self]) -> [f64x8<S>; 2];
    /// Writes the first 16 elements from f64 lanes.
    fn store16<S: Simd>(s: S, v: [f64x8<S>; 2], y: &mut [Self]);
    /// The first 16 elements as f32 lanes (f64 elements are rounded).
    fn load16_f32<S: Simd>(s: S, x: &[Self]) -> f32x16<S>;
    /// Writes the first 16 elements from f32 lanes.
    fn store16_f32<S: Simd>(s: S, v: f32x16<S>, y: &mut [Self]);

    /// At most 16 elements and zeros after them.
    #[inline(always)]
    fn whole<S: Simd>(_: S, x: &[Self]) -> [Self; STEP] {
        padded(x)
    }
    /// Copies the elements of `y`, at most 16, from the head of `x`.
    #[inline(always)]
    fn head<S: Simd>(_: S, x: &[Self; STEP], y: &mut [Self]) {
        copy_head(x, y);
    }
    /// At most 16 elements as f64 lanes, zeros after them.
    #[inline(always)]
    fn load_tail<S: Simd>(s: S, x: &[Self]) -> [f64x8<S>; 2] {
        Self::load16(s, &Self::whole(s, x))
    }
    /// Writes `y.len()`, at most 16, elements from f64 lanes.
    #[inline(always)]
    fn store_tail<S: Simd>(s: S, v: [f64x8<S>; 2], y: &mut [Self]) {
        let mut whole = [Self::default(); STEP];
        Self::store16(s, v, &mut whole);
        Self::head(s, &whole, y);
    }
    /// At most 16 elements as f32 lanes, zeros after them.
    #[inline(always)]
    fn load_tail_f32<S: Simd>(s: S, x: &[Self]) -> f32x16<S> {
        Self::load16_f32(s, &Self::whole(s, x))
    }
    /// Writes `y.len()`, at most 16, elements from f32 lanes.
    #[inline(always)]
    fn store_tail_f32<S: Simd>(s: S, v: f32x16<S>, y: &mut [Self]) {
        let mut whole = [Self::default(); STEP];
        Self::store16_f32(s, v, &mut whole);
        Self::head(s, &whole, y);
    }
}

/// Copies the elements of `y` from the head of `x`, in pieces of fixed size: a copy of unknown size is a call.
#[inline(always)]
fn copy_head<T: Copy>(x: &[T; STEP], y: &mut [T]) {
    let (n, mut at) = (y.len(), 0);
    debug_assert!(n <= STEP);
    if n >= STEP {
        y[..STEP].copy_from_slice(x);
        return;
    }
    macro_rules! piece { ($($k:literal)*) => { $(
        if n & $k != 0 {
            y[at..at + $k].copy_from_slice(&x[at..at + $k]);
            at += $k;
        }
    )* } }
    piece!(8 4 2 1);
    debug_assert_eq!(at, n);
}

#[inline(always)]
fn padded<T: Store>(x: &[T]) -> [T; STEP] {
    let (n, mut at) = (x.len(), 0);
    debug_assert!(n <= STEP);
    let mut whole = [T::default(); STEP];
    if n >= STEP {
        whole.copy_from_slice(&x[..STEP]);
        return whole;
    }
    macro_rules! piece { ($($k:literal)*) => { $(
        if n & $k != 0 {
            whole[at..at + $k].copy_from_slice(&x[at..at + $k]);
            at += $k;
        }
    )* } }
    piece!(8 4 2 1);
    debug_assert_eq!(at, n);
    whole
}

impl Store for f64 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        f64::from(x)
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn load16<S: Simd>(s: S, x: &[Self]) -> [f64x8<S>; 2] {
        [f64x8::from_slice(s, &x[..8]), f64x8::from_slice(s, &x[8..16])]
    }
    #[inline(always)]
    fn store16<S: Simd>(_: S, [a, b]: [f64x8<S>; 2], y: &mut [Self]) {
        a.store_slice(&mut y[..8]);
        b.store_slice(&mut y[8..16]);
    }
    #[inline(always)]
    fn load16_f32<S: Simd>(s: S, x: &[Self]) -> f32x16<S> {
        let [a, b] = Self::load16(s, x);
        a.narrow(b)
    }
    #[inline(always)]
    fn store16_f32<S: Simd>(s: S, v: f32x16<S>, y: &mut [Self]) {
        let (a, b) = v.widen();
        Self::store16(s, [a, b], y);
    }
    #[inline(always)]
    fn whole<S: Simd>(s: S, x: &[Self]) -> [Self; STEP] {
        tail::load(s, x).unwrap_or_else(
            #[inline(always)]
            || padded(x),
        )
    }
    #[inline(always)]
    fn head<S: Simd>(s: S, x: &[Self; STEP], y: &mut [Self]) {
        if !tail::store(s, x, y) {
            copy_head(x, y);
        }
    }
}

impl Store for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn load16<S: Simd>(s: S, x: &[Self]) -> [f64x8<S>; 2] {
        let (a, b) = Self::load16_f32(s, x).widen();
        [a, b]
    }
    #[inline(always)]
    fn store16<S: Simd>(s: S, [a, b]: [f64x8<S>; 2], y: &mut [Self]) {
        Self::store16_f32(s, a.narrow(b), y);
    }
    #[inline(always)]
    fn load16_f32<S: Simd>(s: S, x: &[Self]) -> f32x16<S> {
        f32x16::from_slice(s, &x[..16])
    }
    #[inline(always)]
    fn store16_f32<S: Simd>(_: S, v: f32x16<S>, y: &mut [Self]) {
        v.store_slice(&mut y[..16]);
    }
    #[inline(always)]
    fn whole<S: Simd>(s: S, x: &[Self]) -> [Self; STEP] {
        tail::load(s, x).unwrap_or_else(
            #[inline(always)]
            || padded(x),
        )
    }
    #[inline(always)]
    fn head<S: Simd>(s: S, x: &[Self; STEP], y: &mut [Self]) {
        if !tail::store(s, x, y) {
            copy_head(x, y);
        }
    }
}

/// The 16-bit types differ only in how bits become an f32 and back, one at a time and sixteen at a time.
macro_rules! half {
    ($t:ident, $to:ident, $from:ident, $to16:ident, $from16:ident) => {
        impl Store for $t {
            #[inline(always)]
            fn to_f32(self) -> f32 {
                $to(self.0)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from($to(self.0))
            }
            #[inline(always)]
            fn from_f32(x: f32) -> Self {
                $t($from(x))
            }
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                const LOW: u64 = (1 << 40) - 1;
                let u = x.to_bits();
                $t($from(f64::from_bits((u | ((u & LOW) + LOW)) & !LOW) as f32))
            }
            #[inline(always)]
            fn load16<S: Simd>(s: S, x: &[Self]) -> [f64x8<S>; 2] {
                let (a, b) = Self::load16_f32(s, x).widen();
                [a, b]
            }
            #[inline(always)]
            fn store16<S: Simd>(s: S, [a, b]: [f64x8<S>; 2], y: &mut [Self]) {
                Self::store16_f32(s, sticky(a).narrow(sticky(b)), y);
            }
            #[inline(always)]
            fn load16_f32<S: Simd>(s: S, x: &[Self]) -> f32x16<S> {
                let x = &x[..16];
                let h: [u16; 16] = std::array::from_fn(
                    #[inline(always)]
                    |i| x[i].0,
                );
                let h: u16x16<S> = h.simd_into(s);
                let (a, b) = h.widen();
                $to16(s, a.combine(b))
            }
            #[inline(always)]
            fn store16_f32<S: Simd>(_: S, v: f32x16<S>, y: &mut [Self]) {
                let h = $from16(v);
                let (h, y) = (h.narrow(h), &mut y[..16]);
                for i in 0..16 {
                    y[i] = $t(h[i]);
                }
            }
        }
    };
}
half!(F16, f16_to_f32, f32_to_f16, f16_to_f32x16, f32x16_to_f16);
half!(Bf16, bf16_to_f32, f32_to_bf16, bf16_to_f32x16, f32x16_to_bf16);

/// Each lane to 13 significant bits, rounded to odd. NaN keeps a set bit and stays NaN.
#[inline(always)]
fn sticky<S: Simd>(x: f64x8<S>) -> f64x8<S> {
    const LOW: u64 = (1 << 40) - 1;
    let u: u64x8<S> = x.bitcast();
    ((u | ((u & LOW) + LOW)) & !LOW).bitcast()
}

#[inline(always)]
fn bf16_to_f32(h: u16) -> f32 {
    f32::from_bits(u32::from(h) << 16)
}
#[inline(always)]
fn bf16_to_f32x16<S: Simd>(_: S, h: u32x16<S>) -> f32x16<S> {
    (h << 16).bitcast()
}

#[inline(always)]
fn f32_to_bf16(x: f32) -> u16 {
    let u = x.to_bits();
    let rounded = u.wrapping_add(0x7fff + ((u >> 16) & 1));
    let nan = u | 0x0040_0000;
    ((if x.is_nan() { nan } else { rounded }) >> 16) as u16
}
#[inline(always)]
fn f32x16_to_bf16<S: Simd>(x: f32x16<S>) -> u32x16<S> {
    let u: u32x16<S> = x.bitcast();
    let rounded = u + (((u >> 16) & 1) + 0x7fff);
    x.simd_eq(x).select(rounded, u | 0x0040_0000) >> 16
}

// f16's exponent is 112 less than f32's. A subnormal m * 2^-24 is made as (2^-14 + m * 2^-24) - 2^-14: exact, and no
// denormal is an operand, so nothing depends on the mode of the thread or costs a trap.
const REBIAS: u32 = 112 << 23;
const LEAST: u32 = 113 << 23;

#[inline(always)]
fn f16_to_f32(h: u16) -> f32 {
    let h = u32::from(h);
    let m = (h & 0x7fff) << 13;
    let bits = match h & 0x7c00 {
        0 => (f32::from_bits(m + LEAST) - f32::from_bits(LEAST)).to_bits(),
        0x7c00 => m + 2 * REBIAS,
        _ => m + REBIAS,
    };
    f32::from_bits(bits | ((h & 0x8000) << 16))
}
#[inline(always)]
fn f16_to_f32x16<S: Simd>(s: S, h: u32x16<S>) -> f32x16<S> {
    let m = (h & 0x7fff) << 13;
    let signed: i32x16<S> = m.bitcast();
    let least: f32x16<S> = u32x16::splat(s, LEAST).bitcast();
    let subnormal: f32x16<S> = (m + LEAST).bitcast();
    let subnormal: u32x16<S> = (subnormal - least).bitcast();
    let special = signed.simd_ge(i32x16::splat(s, 0x7c00 << 13));
    let normal = special.select(m + 2 * REBIAS, m + REBIAS);
    let bits = signed.simd_lt(i32x16::splat(s, 0x0400 << 13)).select(subnormal, normal);
    (bits | ((h & 0x8000) << 16)).bitcast()
}

// Towards f16: everything from 2^16 on is infinite, and the carry of the rounding makes 65520 and more infinite too.
// Below 2^-14 the rounding is left to an addition: the ulp of a number just over 0.5 is 2^-24, f16's least.
const CAP: u32 = 0x4780_0000;

#[inline(always)]
fn f32_to_f16(x: f32) -> u16 {
    let u = x.to_bits();
    let m = u & 0x7fff_ffff;
    let bits = if m > 0x7f80_0000 {
        0x7e00 | ((m >> 13) & 0x3ff)
    } else if m < LEAST {
        (f32::from_bits(m) + 0.5).to_bits() - 0.5f32.to_bits()
    } else {
        (m.min(CAP) - REBIAS + 0xfff + ((m >> 13) & 1)) >> 13
    };
    (bits | ((u >> 16) & 0x8000)) as u16
}
#[inline(always)]
fn f32x16_to_f16<S: Simd>(x: f32x16<S>) -> u32x16<S> {
    let s = x.witness();
    let u: u32x16<S> = x.bitcast();
    let m = u & 0x7fff_ffff;
    let signed: i32x16<S> = m.bitcast();
    let magnitude: f32x16<S> = m.bitcast();
    let subnormal: u32x16<S> = (magnitude + 0.5).bitcast();
    let subnormal = subnormal - 0.5f32.to_bits();
    let capped: u32x16<S> = signed.min(i32x16::splat(s, CAP as i32)).bitcast();
    let normal = (capped + (((m >> 13) & 1) + 0xfffu32.wrapping_sub(REBIAS))) >> 13;
    let finite = signed.simd_lt(i32x16::splat(s, LEAST as i32)).select(subnormal, normal);
    let nan = ((m >> 13) & 0x3ff) | 0x7e00;
    x.simd_eq(x).select(finite, nan) | ((u >> 16) & 0x8000)
}

/// `by_number!(tensor, T => body)`: as [`by_float!`], and with signed integers and bytes as they are.
#[macro_export]
macro_rules! by_number {
    ($x:expr, $t:ident => $body:expr) => {
        $crate::by_number!(@ $x, $t [I64 i64, I32 i32, I16 i16, I8 i8, U8 u8] => $body)
    };
    (@ $x:expr, $t:ident [$($dtype:ident $int:ty),*] => $body:expr) => {
        match $x.dtype() {
            $($crate::Dtype::$dtype => {
                type $t = $int;
                $body
            })*
            _ => $crate::by_float!($x, $t => $body),
        }
    };
}

/// `by_float!(tensor, T => body)`: the body with `T` the storage type of a float array; `by_float!(wide tensor, T => body)` where
/// 16-bit data comes as f32.
#[macro_export]
macro_rules! by_float {
    (wide $x:expr, $t:ident => $body:expr) => {
        $crate::by_float!(@ $x, $t [F64 f64, F32 f32] => $body)
    };
    ($x:expr, $t:ident => $body:expr) => {
        $crate::by_float!(@ $x, $t [F64 f64, F32 f32, F16 $crate::store::F16, Bf16 $crate::store::Bf16] => $body)
    };
    (@ $x:expr, $t:ident [$($dtype:ident $float:ty),*] => $body:expr) => {
        match $x.dtype() {
            $($crate::Dtype::$dtype => {
                type $t = $float;
                $body
            })*
            other => Err($crate::Error::Type(format!(
                "expected float64, float32, float16 or bfloat16, got {}", other.name()
            ))),
        }
    };
}
