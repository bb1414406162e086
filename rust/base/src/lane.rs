//! Types to compute in, generically. The one rule: a functor written for a [`Lane`] is compiled once for f32 and once for
//! f64, and arrays of the 16-bit types come to it as f32.

use crate::simd::*;
use crate::store::{Bf16, F16, Store};

/// A type to compute in, with its vectors.
pub trait Lane: Stored<Lane = Self> + SimdFloatElement {
    type V<S: Simd>: SimdFloat<S, Element = Self>;
    const LANES: usize;
    fn of(x: f64) -> Self;
}

/// A type to store in, and the one it is computed in.
pub trait Stored: Store {
    type Lane: Lane;
    /// Whether the two are one.
    const SAME: bool;
    /// The vector at the head of a slice.
    fn vector<S: Simd>(s: S, x: &[Self]) -> <Self::Lane as Lane>::V<S>;
    /// Rounds a vector to the head of a slice.
    fn put<S: Simd>(s: S, v: <Self::Lane as Lane>::V<S>, y: &mut [Self]);
}

impl Lane for f32 {
    type V<S: Simd> = f32x16<S>;
    const LANES: usize = 16;
    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }
}

impl Lane for f64 {
    type V<S: Simd> = f64x8<S>;
    const LANES: usize = 8;
    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }
}

impl Stored for f64 {
    type Lane = f64;
    const SAME: bool = true;
    #[inline(always)]
    fn vector<S: Simd>(s: S, x: &[f64]) -> f64x8<S> {
        load::<S, f64>(s, x)
    }
    #[inline(always)]
    fn put<S: Simd>(_: S, v: f64x8<S>, y: &mut [f64]) {
        store::<S, f64>(v, y);
    }
}
macro_rules! by_f32 { ($($t:ty, $same:literal;)*) => { $(
    impl Stored for $t {
        type Lane = f32;
        const SAME: bool = $same;
        #[inline(always)]
        fn vector<S: Simd>(s: S, x: &[$t]) -> f32x16<S> {
            <$t>::load16_f32(s, x)
        }
        #[inline(always)]
        fn put<S: Simd>(s: S, v: f32x16<S>, y: &mut [$t]) {
            <$t>::store16_f32(s, v, y);
        }
    }
)* } }
by_f32! { f32, true; F16, false; Bf16, false; }

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

/// The same memory by its other name, where the type to store in is the one to compute in.
pub fn same<T: Stored>(x: &mut [T]) -> Option<&mut [T::Lane]> {
    // SAFETY: `SAME` says that T and T::Lane are one type.
    T::SAME.then(|| unsafe { std::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), x.len()) })
}

/// Converts an array into the type to compute in.
#[inline(always)]
pub fn read<S: Simd, T: Stored>(s: S, x: &[T], y: &mut [T::Lane]) {
    let lanes = T::Lane::LANES;
    let (mut xs, mut ys) = (x.chunks_exact(lanes), y.chunks_exact_mut(lanes));
    for (x, y) in xs.by_ref().zip(ys.by_ref()) {
        store::<S, T::Lane>(T::vector(s, x), y);
    }
    for (x, y) in xs.remainder().iter().zip(ys.into_remainder()) {
        *y = T::Lane::of(x.to_f64());
    }
}

/// Rounds computed values into an array.
#[inline(always)]
pub fn write<S: Simd, T: Stored>(s: S, x: &[T::Lane], y: &mut [T]) {
    let lanes = T::Lane::LANES;
    let (mut xs, mut ys) = (x.chunks_exact(lanes), y.chunks_exact_mut(lanes));
    for (x, y) in xs.by_ref().zip(ys.by_ref()) {
        T::put(s, load::<S, T::Lane>(s, x), y);
    }
    for (x, y) in xs.remainder().iter().zip(ys.into_remainder()) {
        *y = T::from_f64(x.to_f64());
    }
}

/// Transposes LANES vectors of LANES elements: the rows become columns.
#[inline(always)]
pub fn transpose<S: Simd, L: Lane>(v: &mut [L::V<S>; 16]) {
    // a perfect shuffle of the whole square, once for each bit of the row index
    let half = L::LANES / 2;
    for _ in 0..L::LANES.trailing_zeros() {
        let old = *v;
        for i in 0..half {
            (v[2 * i], v[2 * i + 1]) = old[i].interleave(old[i + half]);
        }
    }
}
