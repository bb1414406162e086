//! Types to compute in, generically. The one rule: a functor written for a [`Lane`] is compiled once for f32 and once for
//! f64, and arrays of the 16-bit types come to it as f32.

use crate::simd::*;
use crate::store::{Bf16, F16, STEP, Store};

/// A type to compute in, with its vectors.
pub trait Lane: Stored<Lane = Self> + SimdFloatElement {
    type V<S: Simd>: SimdFloat<S, Element = Self>;
    const LANES: usize;
    fn of(x: f64) -> Self;
    /// The first 16 elements of `x`, converted into `y`.
    fn read16<S: Simd, T: Store>(s: S, x: &[T], y: &mut [Self]);
    /// The first 16 elements of `x`, rounded into `y`.
    fn write16<S: Simd, T: Store>(s: S, x: &[Self], y: &mut [T]);
}

/// A type to store in, and the one it is computed in.
pub trait Stored: Store {
    type Lane: Lane;
    /// Whether the two are one.
    const SAME: bool;
}

impl Lane for f32 {
    type V<S: Simd> = f32x16<S>;
    const LANES: usize = 16;
    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn read16<S: Simd, T: Store>(s: S, x: &[T], y: &mut [Self]) {
        T::load16_f32(s, x).store_slice(&mut y[..STEP]);
    }
    #[inline(always)]
    fn write16<S: Simd, T: Store>(s: S, x: &[Self], y: &mut [T]) {
        T::store16_f32(s, f32x16::from_slice(s, &x[..STEP]), y);
    }
}

impl Lane for f64 {
    type V<S: Simd> = f64x8<S>;
    const LANES: usize = 8;
    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn read16<S: Simd, T: Store>(s: S, x: &[T], y: &mut [Self]) {
        let [a, b] = T::load16(s, x);
        a.store_slice(&mut y[..8]);
        b.store_slice(&mut y[8..STEP]);
    }
    #[inline(always)]
    fn write16<S: Simd, T: Store>(s: S, x: &[Self], y: &mut [T]) {
        let v = [f64x8::from_slice(s, &x[..8]), f64x8::from_slice(s, &x[8..STEP])];
        T::store16(s, v, y);
    }
}

macro_rules! stored { ($($t:ty => $lane:ty, $same:literal;)*) => { $(
    impl Stored for $t {
        type Lane = $lane;
        const SAME: bool = $same;
    }
)* } }
stored! { f32 => f32, true; f64 => f64, true; F16 => f32, false; Bf16 => f32, false; }

/// The vector at the head of a slice.
#[inline(always)]
pub fn load<S: Simd, L: Lane>(s: S, x: &[L]) -> L::V<S> {
    L::V::<S>::from_slice(s, &x[..L::LANES])
}

/// Writes a vector to the head of a slice.
#[inline(always)]
pub fn store<S: Simd, L: Lane>(v: L::V<S>, y: &mut [L]) {
    v.store_slice(&mut y[..L::LANES]);
}

/// Converts an array of any float type into one to compute with.
#[inline(always)]
pub fn read<S: Simd, L: Lane, T: Store>(s: S, x: &[T], y: &mut [L]) {
    let (mut xs, mut ys) = (x.chunks_exact(STEP), y.chunks_exact_mut(STEP));
    for (x, y) in xs.by_ref().zip(ys.by_ref()) {
        L::read16(s, x, y);
    }
    for (x, y) in xs.remainder().iter().zip(ys.into_remainder()) {
        *y = L::of(x.to_f64());
    }
}

/// Rounds computed values into an array of any float type.
#[inline(always)]
pub fn write<S: Simd, L: Lane, T: Store>(s: S, x: &[L], y: &mut [T]) {
    let (mut xs, mut ys) = (x.chunks_exact(STEP), y.chunks_exact_mut(STEP));
    for (x, y) in xs.by_ref().zip(ys.by_ref()) {
        L::write16(s, x, y);
    }
    for (x, y) in xs.remainder().iter().zip(ys.into_remainder()) {
        *y = T::from_f64(x.to_f64());
    }
}
