//! The last, partial step of a row. The one rule: memory past the tail is neither read nor written.
//!
//! A step put together from pieces is stored in parts and loaded whole, which no machine forwards: the load waits until
//! all parts have left for the cache. One masked instruction has no such wait.

use crate::simd::Simd;
use crate::vector::Float;
#[cfg(target_arch = "x86_64")]
use crate::vector::Vector;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Tails of a type that has masked vectors.
pub trait Tail: Float {
    #[cfg(target_arch = "x86_64")]
    type Wide: Vector<T = Self>;
    #[cfg(target_arch = "x86_64")]
    type Narrow: Vector<T = Self>;
}
impl Tail for f32 {
    #[cfg(target_arch = "x86_64")]
    type Wide = __m512;
    #[cfg(target_arch = "x86_64")]
    type Narrow = __m256;
}
impl Tail for f64 {
    #[cfg(target_arch = "x86_64")]
    type Wide = __m512d;
    #[cfg(target_arch = "x86_64")]
    type Narrow = __m256d;
}

/// `x`, at most N elements (of which vectors hold a whole number), and zeros after them; `None` at levels without masked loads.
#[inline(always)]
pub fn load<S: Simd, T: Tail, const N: usize>(s: S, x: &[T]) -> Option<[T; N]> {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: the level says that the instructions exist.
        if s.level().as_avx512().is_some() {
            return Some(unsafe { parts::<T::Wide, N>(x) });
        }
        // SAFETY: as above.
        if s.level().as_avx2().is_some() {
            return Some(unsafe { parts::<T::Narrow, N>(x) });
        }
    }
    let _ = (s, x);
    None
}

/// Writes the elements of `y`, at most N, from the head of `x`; false, and nothing done, at levels where masked stores
/// are missing or slower than pieces (AVX2's take a dozen cycles on some machines).
#[inline(always)]
pub fn store<S: Simd, T: Tail, const N: usize>(s: S, x: &[T; N], y: &mut [T]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if s.level().as_avx512().is_some() {
        let n = y.len().min(N);
        let mut at = 0;
        while at < N {
            let lanes = T::Wide::LANES;
            // SAFETY: the level says that the instructions exist; the lanes within the mask are in `y`.
            unsafe {
                let mask = T::Wide::mask(n.saturating_sub(at).min(lanes));
                T::Wide::load(x.as_ptr().add(at)).store_masked(y.as_mut_ptr().wrapping_add(at), mask);
            }
            at += lanes;
        }
        return true;
    }
    let _ = (s, x, y);
    false
}

/// # Safety
/// The instruction set of `V` exists.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn parts<V: Vector, const N: usize>(x: &[V::T]) -> [V::T; N] {
    let n = x.len().min(N);
    let mut whole = [V::T::default(); N];
    let mut at = 0;
    while at < N {
        // SAFETY: promised by the caller; the lanes within the mask are in `x`, and `whole` is N long.
        unsafe {
            let mask = V::mask(n.saturating_sub(at).min(V::LANES));
            V::load_masked(x.as_ptr().wrapping_add(at), mask).store(whole.as_mut_ptr().add(at));
        }
        at += V::LANES;
    }
    whole
}
