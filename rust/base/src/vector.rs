//! Vectors of `std::arch` behind one trait, for the hand-written kernels. The one rule: a lane computes what its plain
//! twin computes, bit for bit (the payload of a NaN apart).

use crate::simd;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// The instruction set of a kernel. A value says that the machine has it: only [`Isa::current`] makes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Isa(pub Set);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Set {
    Generic,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The best set at the level in force. With no level forced that includes AVX-512 on machines older than the level
    /// of that name asks for: these loops run long enough to be worth the clock they cost there.
    pub fn current() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let level = simd::level_name();
            if is_x86_feature_detected!("avx512f") && (level == "avx512" || !simd::forced()) {
                return Isa(Set::Avx512);
            }
            if level == "avx2" && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa(Set::Avx2);
            }
        }
        Isa(Set::Generic)
    }
}

/// f32 and f64: the types sums are made in.
pub trait Float: Copy + Default + PartialOrd + std::ops::AddAssign + Send + Sync + 'static {
    /// `self * a + b`, rounded once.
    fn fused(self, a: Self, b: Self) -> Self;
}
impl Float for f32 {
    #[inline(always)]
    fn fused(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }
}
impl Float for f64 {
    #[inline(always)]
    fn fused(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }
}

#[inline(always)]
pub fn clamped<T: PartialOrd>(v: T, lo: T, hi: T) -> T {
    // in this form NaN passes and -0 stays, as in the x86 instructions
    let v = if lo > v { lo } else { v };
    if hi < v { hi } else { v }
}

/// A vector of elements.
///
/// # Safety
/// An implementation touches no memory but the lanes named. Each function asks for the instruction set of its type; pointers are valid for the lanes touched.
#[allow(clippy::missing_safety_doc)]
pub unsafe trait Vector: Copy {
    type T: Float;
    type Mask: Copy;
    const LANES: usize;
    unsafe fn splat(v: Self::T) -> Self;
    unsafe fn load(p: *const Self::T) -> Self;
    unsafe fn store(self, p: *mut Self::T);
    /// The first `n` lanes, `1..=LANES`.
    unsafe fn mask(n: usize) -> Self::Mask;
    /// Zeros in the lanes masked out, whose memory is not touched.
    unsafe fn load_masked(p: *const Self::T, m: Self::Mask) -> Self;
    unsafe fn store_masked(self, p: *mut Self::T, m: Self::Mask);
    unsafe fn fused(self, a: Self, b: Self) -> Self;
    unsafe fn clamp(self, lo: Self, hi: Self) -> Self;
}

/// The twin in plain Rust: what machines without the kernels below run, and what tests compare those with.
#[derive(Clone, Copy)]
pub struct Plain<T, const N: usize>([T; N]);

// SAFETY: needs no instruction set; the arrays are read and written lane by lane within the bounds promised.
unsafe impl<T: Float, const N: usize> Vector for Plain<T, N> {
    type T = T;
    type Mask = usize;
    const LANES: usize = N;
    #[inline(always)]
    unsafe fn splat(v: T) -> Self {
        Plain([v; N])
    }
    #[inline(always)]
    unsafe fn load(p: *const T) -> Self {
        // SAFETY: N elements are readable, by the caller's promise.
        Plain(unsafe { p.cast::<[T; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut T) {
        // SAFETY: N elements are writable, by the caller's promise.
        unsafe { p.cast::<[T; N]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn mask(n: usize) -> usize {
        n
    }
    #[inline(always)]
    unsafe fn load_masked(p: *const T, m: usize) -> Self {
        let mut v = [T::default(); N];
        for (i, v) in v.iter_mut().enumerate().take(m) {
            // SAFETY: the lanes within the mask are readable.
            *v = unsafe { *p.add(i) };
        }
        Plain(v)
    }
    #[inline(always)]
    unsafe fn store_masked(self, p: *mut T, m: usize) {
        for (i, v) in self.0.iter().enumerate().take(m) {
            // SAFETY: the lanes within the mask are writable.
            unsafe { *p.add(i) = *v };
        }
    }
    #[inline(always)]
    unsafe fn fused(mut self, a: Self, b: Self) -> Self {
        for i in 0..N {
            self.0[i] = self.0[i].fused(a.0[i], b.0[i]);
        }
        self
    }
    #[inline(always)]
    unsafe fn clamp(mut self, lo: Self, hi: Self) -> Self {
        for i in 0..N {
            self.0[i] = clamped(self.0[i], lo.0[i], hi.0[i]);
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! vector {
    ($v:ident of $t:ty, $lanes:literal; $mask:ty = $bits:expr, $load_masked:expr, $store_masked:expr;
     $splat:ident $load:ident $store:ident $fma:ident $max:ident $min:ident) => {
        // SAFETY: each function is one or two instructions of the set that makes up `$v`, on the lanes promised.
        unsafe impl Vector for $v {
            type T = $t;
            type Mask = $mask;
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn splat(v: $t) -> Self {
                unsafe { $splat(v) }
            }
            #[inline(always)]
            unsafe fn load(p: *const $t) -> Self {
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $t) {
                unsafe { $store(p, self) }
            }
            #[inline(always)]
            #[allow(unused_unsafe)]
            unsafe fn mask(n: usize) -> $mask {
                unsafe { $bits(n) }
            }
            #[inline(always)]
            unsafe fn load_masked(p: *const $t, m: $mask) -> Self {
                unsafe { $load_masked(p, m) }
            }
            #[inline(always)]
            unsafe fn store_masked(self, p: *mut $t, m: $mask) {
                unsafe { $store_masked(p, m, self) }
            }
            #[inline(always)]
            unsafe fn fused(self, a: Self, b: Self) -> Self {
                unsafe { $fma(self, a, b) }
            }
            #[inline(always)]
            unsafe fn clamp(self, lo: Self, hi: Self) -> Self {
                // the second operand comes back when either is NaN and when both are zero
                unsafe { $min(hi, $max(lo, self)) }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
vector! { __m512 of f32, 16; __mmask16 = |n| ((1u32 << n) - 1) as u16, |p, m| _mm512_maskz_loadu_ps(m, p), _mm512_mask_storeu_ps;
_mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_fmadd_ps _mm512_max_ps _mm512_min_ps }
#[cfg(target_arch = "x86_64")]
vector! { __m512d of f64, 8; __mmask8 = |n| ((1u32 << n) - 1) as u8, |p, m| _mm512_maskz_loadu_pd(m, p), _mm512_mask_storeu_pd;
_mm512_set1_pd _mm512_loadu_pd _mm512_storeu_pd _mm512_fmadd_pd _mm512_max_pd _mm512_min_pd }
#[cfg(target_arch = "x86_64")]
vector! { __m256 of f32, 8; __m256i = |n| _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)), _mm256_maskload_ps, _mm256_maskstore_ps;
_mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_fmadd_ps _mm256_max_ps _mm256_min_ps }
#[cfg(target_arch = "x86_64")]
vector! { __m256d of f64, 4; __m256i = |n| _mm256_cmpgt_epi64(_mm256_set1_epi64x(n as i64), _mm256_setr_epi64x(0, 1, 2, 3)), _mm256_maskload_pd, _mm256_maskstore_pd;
_mm256_set1_pd _mm256_loadu_pd _mm256_storeu_pd _mm256_fmadd_pd _mm256_max_pd _mm256_min_pd }
