//! Numbers that stochastic rounding is decided by. The one rule: an element has that of its index, whoever asks.

use base::random::Source;
use base::simd::Simd;
use drivers::flat::Real;

/// u = (w >> 8)·2⁻²⁴ of word i mod 2^34 of column ⌊i / 2^34⌋, for the indices from `at` on.
#[inline(always)]
pub(super) fn uniform<S: Simd, T: Real>(s: S, source: Source, at: usize, u: &mut [T]) {
    let (mut i, mut u) = (at as u64, u);
    while !u.is_empty() {
        let first = (i % 64) as usize;
        let words = source.along(s, i >> 34, ((i - i % 64) >> 2) as u32);
        let (now, later) = u.split_at_mut(u.len().min(64 - first));
        for (j, u) in now.iter_mut().enumerate() {
            let w = words[(first + j) % 4][(first + j) / 4];
            *u = T::int((w >> 8) as i32) * T::of(1.0 / 16_777_216.0);
        }
        i += now.len() as u64;
        u = later;
    }
}
