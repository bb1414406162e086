//! Vectors and the choice of instruction set. The one rule: no other file names the SIMD crate, and an ISA only the
//! hand-written kernels (`vector`, `tail`, `stream`).
//!
//! One logical width everywhere (16 × f32, 8 × f64), so that a sum adds in the same order on every ISA that fuses
//! multiply and add. Code under [`dispatch`] is `#[inline(always)]`, closures included; reductions are written with
//! vectors (a plain loop over a sum falls off a 10× cliff), elementwise loops may be plain.

pub use fearless_simd::prelude::*;
pub use fearless_simd::{
    Level, SimdFloatElement, f32x16, f64x8, i8x64, i32x16, i64x8, mask8x64, mask32x16, mask64x8, u8x64, u16x16, u16x32,
    u32x16, u64x8,
};
use std::sync::atomic::{AtomicU8, Ordering};

/// A computation written once for every instruction set.
pub trait Kernel {
    type Output;
    /// `#[inline(always)]` in every implementation.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// Names of the levels, from the least.
pub const LEVELS: [&str; 4] = ["baseline", "avx2", "avx512", "neon"];

static FORCED: AtomicU8 = AtomicU8::new(u8::MAX);

/// The name of the level in force.
pub fn level_name() -> &'static str {
    LEVELS[rank(level())]
}

/// The names of the levels this machine can run, from the least.
pub fn available() -> Vec<&'static str> {
    let best = rank(Level::new());
    if cfg!(feature = "one-level") {
        return vec!["avx2"];
    }
    if best == 3 { vec!["neon"] } else { LEVELS[..=best].to_vec() }
}

/// Forces a level by name (`None`: the best there is). False if the machine has no such level.
pub fn force(name: Option<&str>) -> bool {
    match name {
        None => FORCED.store(u8::MAX, Ordering::Relaxed),
        Some(n) => match available().iter().position(|&a| a == n) {
            Some(_) => {
                FORCED.store(LEVELS.iter().position(|&l| l == n).map_or(u8::MAX, |i| i as u8), Ordering::Relaxed);
            }
            None => return false,
        },
    }
    true
}

/// Whether a level was forced: then nothing above it runs.
pub fn forced() -> bool {
    FORCED.load(Ordering::Relaxed) != u8::MAX
}

fn rank(level: Level) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if level.as_avx512().is_some() { 2 } else { usize::from(level.as_avx2().is_some()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        if level.is_fallback() { 0 } else { 3 }
    }
}

/// The level in force: the best of the machine unless [`force`] said otherwise.
#[inline]
pub fn level() -> Level {
    let best = Level::new();
    #[cfg(target_arch = "x86_64")]
    match FORCED.load(Ordering::Relaxed) {
        // SAFETY: SSE2 is part of x86-64.
        0 => return Level::Sse2(unsafe { fearless_simd::x86::Sse2::assume_supported() }),
        1 => {
            if let Some(avx2) = best.as_avx2() {
                return Level::Avx2(avx2);
            }
        }
        _ => {}
    }
    best
}

/// Runs `k` compiled for the level in force.
#[cfg(not(feature = "one-level"))]
#[inline]
pub fn dispatch<K: Kernel>(k: K) -> K::Output {
    fearless_simd::dispatch!(level(), s => k.run(s))
}

/// A build for the inner loop of work on kernels: one level is compiled, not three.
#[cfg(feature = "one-level")]
#[inline]
pub fn dispatch<K: Kernel>(k: K) -> K::Output {
    let s = level().as_avx2().expect("this build is for AVX2 alone");
    s.vectorize(
        #[inline(always)]
        || k.run(s),
    )
}

/// Whether `mul_add` rounds once at this level (it is two operations on the x86 baseline).
#[inline(always)]
pub fn fused<S: Simd>(s: S) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        s.level().as_avx2().is_some()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        !s.level().is_fallback()
    }
}

/// Whether S is the portable level of x86: hardly a machine runs that any more, it must be right and not fast, and inlined
/// everywhere it would be half of the machine code. What asks this in a `const` is not compiled where the answer is no.
pub const fn portable<S: Simd>() -> bool {
    cfg!(target_arch = "x86_64") && <S::f64s as SimdBase<S>>::N == 2
}

/// Functions that are inlined, and functions of their own on the [`portable`] level.
#[macro_export]
macro_rules! outlined {
    ($(
        $(#[$doc:meta])*
        $vis:vis fn $name:ident<S: Simd $(, $G:ident: $bound:path)*>($s:ident: S, $($x:ident: $t:ty),+) $(-> $r:ty)?
        $body:block
    )*) => { $(
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name<S: Simd $(, $G: $bound)*>($s: S, $($x: $t),+) $(-> $r)? {
            #[inline(always)]
            #[allow(unused_variables)]
            fn body<S: Simd $(, $G: $bound)*>($s: S, $($x: $t),+) $(-> $r)? $body
            #[inline(never)]
            fn own<S: Simd $(, $G: $bound)*>($s: S, $($x: $t),+) $(-> $r)? {
                body::<S $(, $G)*>($s, $($x),+)
            }
            if const { $crate::simd::portable::<S>() } {
                own::<S $(, $G)*>($s, $($x),+)
            } else {
                body::<S $(, $G)*>($s, $($x),+)
            }
        }
    )* };
}

/// `a * b` as an unevaluated sum `p + e`, exact barring overflow and underflow.
#[inline(always)]
pub fn two_prod<S: Simd>(s: S, a: f64x8<S>, b: f64x8<S>) -> (f64x8<S>, f64x8<S>) {
    let p = a * b;
    if fused(s) {
        return (p, a.mul_sub(b, p));
    }
    // Veltkamp's splitting, Dekker's product
    let split = |x: f64x8<S>| {
        let t = x * 134_217_729.0;
        let hi = t - (t - x);
        (hi, x - hi)
    };
    let ((ah, al), (bh, bl)) = (split(a), split(b));
    (p, ((ah * bh - p) + ah * bl + al * bh) + al * bl)
}

/// `a + b` as an unevaluated sum `s + e`, exact (Knuth).
#[inline(always)]
pub fn two_sum<S: Simd>(a: f64x8<S>, b: f64x8<S>) -> (f64x8<S>, f64x8<S>) {
    let s = a + b;
    let bb = s - a;
    (s, (a - (s - bb)) + (b - bb))
}

/// The sum of the lanes, always in the same order: halves, quarters, neighbours.
#[inline(always)]
pub fn hsum<S: Simd>(v: f64x8<S>) -> f64 {
    let a = v.as_slice();
    ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
}
