//! The levels inside one vector. The one rule: every lane gets the sum or the difference of the two that a level pairs, rounded once.

use base::lane::{Lane, load, store};
use base::simd::*;

/// All levels over the lane bits of each of R vectors, and with them the first level across vectors where that comes for nothing.
/// Returns how many levels across vectors are done.
#[inline(always)]
pub fn inside<S: Simd, L: Lane, const R: usize>(v: &mut [L::V<S>; R]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if const { S::f32s::N == 16 } {
        for v in v {
            // SAFETY: vectors of sixteen f32 are those of AVX-512, whose level S then is.
            *v = unsafe { avx512::<S, L>(*v) };
        }
        return 0;
    }
    for r in (0..R).step_by(2) {
        (v[r], v[r + 1]) = turns::<S, L>(v[r], v[r + 1], u32::MAX);
    }
    1
}

/// The levels inside a pair of vectors whose index bits are `bits` of all its bits; the other turns only rotate.
///
/// Even and odd lanes are taken, added and subtracted: after as many turns as the pair has index bits every lane is back in its
/// place (Pease's constant geometry).
#[inline(always)]
fn turns<S: Simd, L: Lane>(a: L::V<S>, b: L::V<S>, bits: u32) -> (L::V<S>, L::V<S>) {
    let (mut a, mut b) = (a, b);
    for turn in 0..(2 * L::LANES).trailing_zeros() {
        let (even, odd) = a.deinterleave(b);
        (a, b) = if turn < bits { (even + odd, even - odd) } else { (even, odd) };
    }
    (a, b)
}

/// p ± v with p the vector whose lanes are swapped: one shuffle and one product with ±1, which is exact, so that the units that
/// multiply take what those that add have no room for.
///
/// # Safety
/// V<S> is a vector of AVX-512, on a machine that has it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn avx512<S: Simd, L: Lane>(v: L::V<S>) -> L::V<S> {
    use std::arch::x86_64::*;
    use std::mem::transmute_copy;
    // SAFETY: 64 bytes in either name.
    unsafe {
        if L::LANES == 16 {
            let mut v: __m512 = transmute_copy(&v);
            let one = |minus| _mm512_mask_blend_ps(minus, _mm512_set1_ps(1.0), _mm512_set1_ps(-1.0));
            v = _mm512_fmadd_ps(v, one(0xaaaa), _mm512_permute_ps::<0b10_11_00_01>(v));
            v = _mm512_fmadd_ps(v, one(0xcccc), _mm512_permute_ps::<0b01_00_11_10>(v));
            v = _mm512_fmadd_ps(v, one(0xf0f0), _mm512_shuffle_f32x4::<0b10_11_00_01>(v, v));
            v = _mm512_fmadd_ps(v, one(0xff00), _mm512_shuffle_f32x4::<0b01_00_11_10>(v, v));
            transmute_copy(&v)
        } else {
            let mut v: __m512d = transmute_copy(&v);
            let one = |minus| _mm512_mask_blend_pd(minus, _mm512_set1_pd(1.0), _mm512_set1_pd(-1.0));
            v = _mm512_fmadd_pd(v, one(0xaa), _mm512_permute_pd::<0b01_01_01_01>(v));
            v = _mm512_fmadd_pd(v, one(0xcc), _mm512_shuffle_f64x2::<0b10_11_00_01>(v, v));
            v = _mm512_fmadd_pd(v, one(0xf0), _mm512_shuffle_f64x2::<0b01_00_11_10>(v, v));
            transmute_copy(&v)
        }
    }
}

/// Rows shorter than a pair of vectors, one pair after the other.
#[inline(always)]
pub fn packed<S: Simd, L: Lane>(s: S, x: &mut [L], size: usize) {
    let pair = 2 * L::LANES;
    let mut chunks = x.chunks_exact_mut(pair);
    for chunk in chunks.by_ref() {
        short(s, chunk, size);
    }
    let rest = chunks.into_remainder();
    let mut whole = [L::of(0.0); 32];
    whole[..rest.len()].copy_from_slice(rest);
    short(s, &mut whole[..pair], size);
    rest.copy_from_slice(&whole[..rest.len()]);
}

#[inline(always)]
fn short<S: Simd, L: Lane>(s: S, x: &mut [L], size: usize) {
    let (a, b) = (load::<S, L>(s, x), load::<S, L>(s, &x[L::LANES..]));
    let (a, b) = turns::<S, L>(a, b, size.trailing_zeros());
    store::<S, L>(a, x);
    store::<S, L>(b, &mut x[L::LANES..]);
}
