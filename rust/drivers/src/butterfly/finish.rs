//! What is done to the numbers of a last level as they are written. The one rule: it is one rounding of each number.

use base::lane::{Lane, store};
use base::simd::*;

pub trait Finish<L: Lane>: Copy + Send + Sync {
    fn one(self, v: L) -> L;
    fn put<S: Simd>(self, s: S, v: L::V<S>, y: &mut [L]);
}

/// Nothing.
#[derive(Clone, Copy)]
pub struct Kept;
impl<L: Lane> Finish<L> for Kept {
    #[inline(always)]
    fn one(self, v: L) -> L {
        v
    }
    #[inline(always)]
    fn put<S: Simd>(self, _: S, v: L::V<S>, y: &mut [L]) {
        store::<S, L>(v, y);
    }
}

/// A factor of the type that is computed in.
#[derive(Clone, Copy)]
pub struct Times<L>(pub L);
impl<L: Lane> Finish<L> for Times<L> {
    #[inline(always)]
    fn one(self, v: L) -> L {
        v * self.0
    }
    #[inline(always)]
    fn put<S: Simd>(self, _: S, v: L::V<S>, y: &mut [L]) {
        store::<S, L>(v * self.0, y);
    }
}

/// A float64 factor: the product is rounded once.
#[derive(Clone, Copy)]
pub struct Scaled(pub f64);
impl<L: Lane> Finish<L> for Scaled {
    #[inline(always)]
    fn one(self, v: L) -> L {
        L::of(v.to_f64() * self.0)
    }
    #[inline(always)]
    fn put<S: Simd>(self, s: S, v: L::V<S>, y: &mut [L]) {
        if L::LANES == 16 {
            let mut line = [L::of(0.0); 16];
            store::<S, L>(v, &mut line);
            L::store16(
                s,
                L::load16(s, &line).map(
                    #[inline(always)]
                    |v| v * self.0,
                ),
                y,
            );
        } else {
            store::<S, L>(v * L::of(self.0), y);
        }
    }
}

/// The same, if so written past the caches where a line begins; the caller owes a fence.
#[derive(Clone, Copy)]
pub struct Past<F>(pub F, pub bool);
impl<L: Lane, F: Finish<L>> Finish<L> for Past<F> {
    #[inline(always)]
    fn one(self, v: L) -> L {
        self.0.one(v)
    }
    #[inline(always)]
    fn put<S: Simd>(self, s: S, v: L::V<S>, y: &mut [L]) {
        #[cfg(target_arch = "x86_64")]
        if const { S::f32s::N == 16 } && self.1 && (y.as_ptr() as usize).is_multiple_of(64) {
            let mut line = [L::of(0.0); 16];
            let line = &mut line[..L::LANES];
            self.0.put(s, v, line);
            // SAFETY: a line of 64 bytes, on a machine with AVX-512; the caller fences before others look.
            unsafe {
                use std::arch::x86_64::*;
                _mm512_stream_si512(y.as_mut_ptr().cast(), _mm512_loadu_si512(line.as_ptr().cast()));
            }
            return;
        }
        self.0.put(s, v, y);
    }
}
