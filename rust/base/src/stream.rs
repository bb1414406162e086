//! Writing past the caches. The one rule: the bytes are those of a plain copy, and other threads may see them only after
//! a [`fence`].
//!
//! A plain store to memory that is not in the cache reads it first. An output larger than the caches is therefore read,
//! written, and pushes everything else out; written past the caches it costs a third less traffic.

use crate::Tensor;
use crate::simd::{Simd, portable};

/// Outputs of so many bytes are beyond the caches.
pub const LARGE: usize = 8 << 20;

/// Makes what this thread copied visible before whatever it writes next.
pub fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// The last element up to `from + n` at which a line of `t` begins, counted from `from`; 0 if there is none.
pub fn line(t: &Tensor, from: usize, n: usize) -> usize {
    let size = t.dtype().size();
    let past = (t.as_ptr() as usize + (from + n) * size) % 64;
    n.saturating_sub(past / size)
}

/// Whether there are stores of whole vectors that go past the caches.
pub const fn passes<S: Simd>() -> bool {
    cfg!(target_arch = "x86_64") && !portable::<S>()
}

/// Writes the lines that `from` is to `to`, past the caches; the caller owes a [`fence`].
///
/// # Safety
/// `to` has as many bytes that belong to the caller, and begins a line; the level [`passes`].
#[inline(always)]
pub unsafe fn lines<S: Simd, T: Copy>(s: S, from: &[T], to: *mut T) {
    debug_assert!((to as usize).is_multiple_of(64) && size_of_val(from).is_multiple_of(64));
    #[cfg(target_arch = "x86_64")]
    for at in (0..size_of_val(from)).step_by(64) {
        use std::arch::x86_64::*;
        let (from, to) = (from.as_ptr().cast::<u8>().wrapping_add(at), to.cast::<u8>().wrapping_add(at));
        // SAFETY: a line of both, and the level says that the instructions exist.
        unsafe {
            if s.level().as_avx512().is_some() {
                _mm512_stream_si512(to.cast(), _mm512_loadu_si512(from.cast()));
            } else {
                for at in [0, 32] {
                    _mm256_stream_si256(to.add(at).cast(), _mm256_loadu_si256(from.add(at).cast()));
                }
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (s, from, to);
}

/// Copies `from` to `to`, past the caches where the machine can; the caller owes a [`fence`].
pub fn copy<T: Copy>(from: &[T], to: &mut [T]) {
    assert_eq!(from.len(), to.len());
    #[cfg(target_arch = "x86_64")]
    {
        let bytes = size_of_val(from);
        let at = to.as_mut_ptr().cast::<u8>();
        // up to the first whole line, lines, and the rest
        let head = at.align_offset(LINE).min(bytes);
        let lines = (bytes - head) / LINE;
        let (source, tail) = (from.as_ptr().cast::<u8>(), head + lines * LINE);
        // SAFETY: both are `bytes` long and apart, `at + head` is aligned to a line, and the three parts tile them; each
        // function is called where its instructions exist.
        unsafe {
            std::ptr::copy_nonoverlapping(source, at, head);
            if std::arch::is_x86_feature_detected!("avx512f") {
                lines512(source.add(head), at.add(head), lines);
            } else {
                lines128(source.add(head), at.add(head), lines);
            }
            std::ptr::copy_nonoverlapping(source.add(tail), at.add(tail), bytes - tail);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    to.copy_from_slice(from);
}

#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// # Safety
/// `lines` lines are readable at `from` and writable at `to`, which is aligned to a line.
#[cfg(target_arch = "x86_64")]
unsafe fn lines128(from: *const u8, to: *mut u8, lines: usize) {
    use std::arch::x86_64::*;
    // SAFETY: promised by the caller; SSE2 is part of x86-64.
    unsafe {
        for i in 0..lines * LINE / 16 {
            _mm_stream_si128(to.add(16 * i).cast(), _mm_loadu_si128(from.add(16 * i).cast()));
        }
    }
}

/// # Safety
/// As `lines128`, on a machine with AVX-512F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn lines512(from: *const u8, to: *mut u8, lines: usize) {
    use std::arch::x86_64::*;
    // SAFETY: promised by the caller.
    unsafe {
        for i in 0..lines {
            _mm512_stream_si512(to.add(LINE * i).cast(), _mm512_loadu_si512(from.add(LINE * i).cast()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_offset() {
        let from: Vec<u8> = (0..500u32).map(|i| (i * 7) as u8).collect();
        for start in 0..70 {
            for len in (0..200).chain([400]) {
                let mut to = vec![255u8; 500];
                copy(&from[3..3 + len], &mut to[start..start + len]);
                assert!(to[start..start + len] == from[3..3 + len]);
                assert!(to[..start].iter().chain(&to[start + len..]).all(|&b| b == 255));
            }
        }
        #[cfg(target_arch = "x86_64")]
        {
            #[repr(align(64))]
            struct Lines([u8; 256]);
            let mut to = Lines([0; 256]);
            // SAFETY: four lines each, the second aligned.
            unsafe { lines128(from.as_ptr(), to.0.as_mut_ptr(), 4) };
            assert!(to.0 == from[..256]);
        }
    }
}
