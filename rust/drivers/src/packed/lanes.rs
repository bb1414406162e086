//! Sixteen outputs side by side. The one rule: a lane computes what its plain twin computes, bit for bit (the payload of a NaN
//! apart): sums are chains of fused multiply-adds or of integers, and no lane ever meets another.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Outputs in a panel.
pub const LANES: usize = 16;
/// 2^23: an integer below it, written into the low bits of this number's significand, is added to it exactly.
const MAGIC: u32 = 0x4B00_0000;

/// A number for each of sixteen outputs, and what it is made of.
///
/// # Safety
/// An implementation touches no memory but the lanes named. Each function asks for the instruction set of its type; pointers
/// are valid for sixteen elements of four bytes.
#[allow(clippy::missing_safety_doc)]
pub unsafe trait Lanes: Copy {
    /// Sixteen words: codes as they lie, or integer sums.
    type Words: Copy;
    /// Sixteen numbers to choose from.
    type Table: Copy;
    /// Rows, and panels beside each other, whose sums the registers hold together.
    const ROWS: usize;
    const PANELS: usize;
    /// Whether a look-up in a table takes no longer than arithmetic.
    const LOOKS: bool;

    unsafe fn splat(v: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// `self * a + b`, rounded once.
    unsafe fn fused(self, a: Self, b: Self) -> Self;

    unsafe fn words(p: *const u8) -> Self::Words;
    unsafe fn same(v: i32) -> Self::Words;
    unsafe fn table(t: &[f32; LANES]) -> Self::Table;
    /// `t[(w >> at) & 15]`.
    unsafe fn look(w: Self::Words, at: u32, t: Self::Table) -> Self;
    /// `((w >> at) & mask) − (less − 2^23)`, exactly, for `less` of [`Lanes::less`].
    unsafe fn number(w: Self::Words, at: u32, mask: u32, less: Self) -> Self;
    /// 2^23 + z for integers 0 ≤ z < 2^22.
    unsafe fn less(z: Self::Words) -> Self;
    /// A number with the sign, exponent and `fraction` bits of the byte at `at`, whatever an exponent is counted from.
    unsafe fn small(w: Self::Words, at: u32, fraction: u32) -> Self;

    /// The four low, or high, half bytes of every word, as bytes.
    unsafe fn halves(w: Self::Words) -> [Self::Words; 2];
    /// `sum + Σ w_i x_i` over four bytes: w without sign, x with.
    unsafe fn dot(sum: Self::Words, w: Self::Words, x: i32) -> Self::Words;
    /// `−a b`, wrapping.
    unsafe fn negated_product(a: Self::Words, b: i32) -> Self::Words;
    unsafe fn add(a: Self::Words, b: Self::Words) -> Self::Words;
    unsafe fn floats(w: Self::Words) -> Self;
    unsafe fn store_words(w: Self::Words, p: *mut i32);
}

/// The twin in plain Rust: what machines without the kernels below run, and what tests compare those with.
#[derive(Clone, Copy)]
pub struct Plain([f32; LANES]);

// SAFETY: needs no instruction set; arrays are read and written within the sixteen elements promised.
unsafe impl Lanes for Plain {
    type Words = [u32; LANES];
    type Table = [f32; LANES];
    const ROWS: usize = 2;
    const PANELS: usize = 1;
    const LOOKS: bool = true;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        Plain([v; LANES])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: sixteen numbers are readable, by the caller's promise.
        Plain(unsafe { p.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: sixteen numbers are writable, by the caller's promise.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn fused(mut self, a: Self, b: Self) -> Self {
        for i in 0..LANES {
            self.0[i] = self.0[i].mul_add(a.0[i], b.0[i]);
        }
        self
    }
    #[inline(always)]
    unsafe fn words(p: *const u8) -> [u32; LANES] {
        // SAFETY: sixteen words are readable, by the caller's promise.
        unsafe { p.cast::<[u32; LANES]>().read_unaligned() }.map(u32::from_le)
    }
    #[inline(always)]
    unsafe fn same(v: i32) -> [u32; LANES] {
        [v as u32; LANES]
    }
    #[inline(always)]
    unsafe fn table(t: &[f32; LANES]) -> [f32; LANES] {
        *t
    }
    #[inline(always)]
    unsafe fn look(w: [u32; LANES], at: u32, t: [f32; LANES]) -> Self {
        Plain(w.map(|w| t[(w >> at & 15) as usize]))
    }
    #[inline(always)]
    unsafe fn number(w: [u32; LANES], at: u32, mask: u32, less: Self) -> Self {
        let mut v = w.map(|w| f32::from_bits(w >> at & mask | MAGIC));
        for i in 0..LANES {
            v[i] -= less.0[i];
        }
        Plain(v)
    }
    #[inline(always)]
    unsafe fn less(z: [u32; LANES]) -> Self {
        Plain(z.map(|z| f32::from_bits(z | MAGIC)))
    }
    #[inline(always)]
    unsafe fn small(w: [u32; LANES], at: u32, fraction: u32) -> Self {
        Plain(w.map(|w| f32::from_bits((w >> at & 0x80) << 24 | (w >> at & 0x7F) << (23 - fraction))))
    }
    #[inline(always)]
    unsafe fn halves(w: [u32; LANES]) -> [[u32; LANES]; 2] {
        [w.map(|w| w & 0x0F0F_0F0F), w.map(|w| w >> 4 & 0x0F0F_0F0F)]
    }
    #[inline(always)]
    unsafe fn dot(mut sum: [u32; LANES], w: [u32; LANES], x: i32) -> [u32; LANES] {
        let x = x.to_le_bytes().map(|b| i32::from(b as i8));
        for i in 0..LANES {
            for (w, x) in w[i].to_le_bytes().into_iter().zip(x) {
                sum[i] = sum[i].wrapping_add((i32::from(w) * x) as u32);
            }
        }
        sum
    }
    #[inline(always)]
    unsafe fn negated_product(a: [u32; LANES], b: i32) -> [u32; LANES] {
        a.map(|a| a.wrapping_mul(b as u32).wrapping_neg())
    }
    #[inline(always)]
    unsafe fn add(mut a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        for i in 0..LANES {
            a[i] = a[i].wrapping_add(b[i]);
        }
        a
    }
    #[inline(always)]
    unsafe fn floats(w: [u32; LANES]) -> Self {
        Plain(w.map(|w| w as i32 as f32))
    }
    #[inline(always)]
    unsafe fn store_words(w: [u32; LANES], p: *mut i32) {
        // SAFETY: sixteen words are writable, by the caller's promise.
        unsafe { p.cast::<[u32; LANES]>().write_unaligned(w) }
    }
}

/// Where the sign, and the other seven bits of a small float, lie in a float32.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fields(fraction: u32) -> i32 {
    (0x8000_0000u32 | 0x7F << (23 - fraction)) as i32
}

// SAFETY: one or two instructions of AVX-512F each, VNNI in `dot`, on the lanes promised.
#[cfg(target_arch = "x86_64")]
unsafe impl Lanes for __m512 {
    type Words = __m512i;
    type Table = __m512;
    const ROWS: usize = 12;
    const PANELS: usize = 2;
    const LOOKS: bool = true;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        unsafe { _mm512_set1_ps(v) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { _mm512_storeu_ps(p, self) }
    }
    #[inline(always)]
    unsafe fn fused(self, a: Self, b: Self) -> Self {
        unsafe { _mm512_fmadd_ps(self, a, b) }
    }
    #[inline(always)]
    unsafe fn words(p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn same(v: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(v) }
    }
    #[inline(always)]
    unsafe fn table(t: &[f32; LANES]) -> __m512 {
        unsafe { _mm512_loadu_ps(t.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn look(w: __m512i, at: u32, t: __m512) -> Self {
        // the instruction reads the four low bits of each index
        unsafe { _mm512_permutexvar_ps(_mm512_srl_epi32(w, _mm_cvtsi32_si128(at as i32)), t) }
    }
    #[inline(always)]
    unsafe fn number(w: __m512i, at: u32, mask: u32, less: Self) -> Self {
        unsafe {
            let w = _mm512_srl_epi32(w, _mm_cvtsi32_si128(at as i32));
            // (w & mask) | magic
            let v =
                _mm512_ternarylogic_epi32::<0xF8>(_mm512_set1_epi32(MAGIC as i32), w, _mm512_set1_epi32(mask as i32));
            _mm512_sub_ps(_mm512_castsi512_ps(v), less)
        }
    }
    #[inline(always)]
    unsafe fn less(z: __m512i) -> Self {
        unsafe { _mm512_castsi512_ps(_mm512_or_si512(z, _mm512_set1_epi32(MAGIC as i32))) }
    }
    #[inline(always)]
    unsafe fn small(w: __m512i, at: u32, fraction: u32) -> Self {
        unsafe {
            // the byte on top, its sign drawn out to the exponent's place, and what it leaves between cut
            let w = _mm512_sll_epi32(w, _mm_cvtsi32_si128(24 - at as i32));
            let w = _mm512_sra_epi32(w, _mm_cvtsi32_si128(1 + fraction as i32));
            _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32(fields(fraction))))
        }
    }
    #[inline(always)]
    unsafe fn halves(w: __m512i) -> [__m512i; 2] {
        unsafe {
            let low = _mm512_set1_epi32(0x0F0F_0F0F);
            [_mm512_and_si512(w, low), _mm512_and_si512(_mm512_srli_epi32::<4>(w), low)]
        }
    }
    #[inline(always)]
    unsafe fn dot(sum: __m512i, w: __m512i, x: i32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(x)) }
    }
    #[inline(always)]
    unsafe fn negated_product(a: __m512i, b: i32) -> __m512i {
        unsafe { _mm512_mullo_epi32(a, _mm512_set1_epi32(b.wrapping_neg())) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn floats(w: __m512i) -> Self {
        unsafe { _mm512_cvtepi32_ps(w) }
    }
    #[inline(always)]
    unsafe fn store_words(w: __m512i, p: *mut i32) {
        unsafe { _mm512_storeu_si512(p.cast(), w) }
    }
}

/// Sixteen lanes of AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Pair([__m256; 2]);

#[cfg(target_arch = "x86_64")]
macro_rules! both {
    (|$i:ident| $e:expr) => {
        [
            {
                let $i = 0;
                $e
            },
            {
                let $i = 1;
                $e
            },
        ]
    };
}

// SAFETY: a few instructions of AVX2 and FMA each, on the lanes promised.
#[cfg(target_arch = "x86_64")]
unsafe impl Lanes for Pair {
    type Words = [__m256i; 2];
    type Table = [__m256; 2];
    const ROWS: usize = 6;
    const PANELS: usize = 1;
    const LOOKS: bool = false;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        Pair(both!(|_i| unsafe { _mm256_set1_ps(v) }))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Pair(both!(|i| unsafe { _mm256_loadu_ps(p.add(8 * i)) }))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        both!(|i| unsafe { _mm256_storeu_ps(p.add(8 * i), self.0[i]) });
    }
    #[inline(always)]
    unsafe fn fused(self, a: Self, b: Self) -> Self {
        Pair(both!(|i| unsafe { _mm256_fmadd_ps(self.0[i], a.0[i], b.0[i]) }))
    }
    #[inline(always)]
    unsafe fn words(p: *const u8) -> [__m256i; 2] {
        both!(|i| unsafe { _mm256_loadu_si256(p.add(32 * i).cast()) })
    }
    #[inline(always)]
    unsafe fn same(v: i32) -> [__m256i; 2] {
        both!(|_i| unsafe { _mm256_set1_epi32(v) })
    }
    #[inline(always)]
    unsafe fn table(t: &[f32; LANES]) -> [__m256; 2] {
        both!(|i| unsafe { _mm256_loadu_ps(t.as_ptr().add(8 * i)) })
    }
    #[inline(always)]
    unsafe fn look(w: [__m256i; 2], at: u32, t: [__m256; 2]) -> Self {
        Pair(both!(|i| unsafe {
            let w = _mm256_srl_epi32(w[i], _mm_cvtsi32_si128(at as i32));
            let (low, high) = (_mm256_permutevar8x32_ps(t[0], w), _mm256_permutevar8x32_ps(t[1], w));
            _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(w)))
        }))
    }
    #[inline(always)]
    unsafe fn number(w: [__m256i; 2], at: u32, mask: u32, less: Self) -> Self {
        Pair(both!(|i| unsafe {
            let w = _mm256_srl_epi32(w[i], _mm_cvtsi32_si128(at as i32));
            let w = _mm256_and_si256(w, _mm256_set1_epi32(mask as i32));
            let v = _mm256_or_si256(w, _mm256_set1_epi32(MAGIC as i32));
            _mm256_sub_ps(_mm256_castsi256_ps(v), less.0[i])
        }))
    }
    #[inline(always)]
    unsafe fn less(z: [__m256i; 2]) -> Self {
        Pair(both!(|i| unsafe { _mm256_castsi256_ps(_mm256_or_si256(z[i], _mm256_set1_epi32(MAGIC as i32))) }))
    }
    #[inline(always)]
    unsafe fn small(w: [__m256i; 2], at: u32, fraction: u32) -> Self {
        Pair(both!(|i| unsafe {
            let w = _mm256_sll_epi32(w[i], _mm_cvtsi32_si128(24 - at as i32));
            let w = _mm256_sra_epi32(w, _mm_cvtsi32_si128(1 + fraction as i32));
            _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32(fields(fraction))))
        }))
    }
    #[inline(always)]
    unsafe fn halves(w: [__m256i; 2]) -> [[__m256i; 2]; 2] {
        unsafe {
            let low = _mm256_set1_epi32(0x0F0F_0F0F);
            [both!(|i| _mm256_and_si256(w[i], low)), both!(|i| _mm256_and_si256(_mm256_srli_epi32::<4>(w[i]), low))]
        }
    }
    #[inline(always)]
    unsafe fn dot(sum: [__m256i; 2], w: [__m256i; 2], x: i32) -> [__m256i; 2] {
        // products of bytes would saturate in pairs: even and odd bytes are multiplied as words of 16 bits
        unsafe {
            let x = _mm256_set1_epi32(x);
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x));
            let odd = _mm256_srai_epi16::<8>(x);
            both!(|i| {
                let a = _mm256_madd_epi16(_mm256_and_si256(w[i], _mm256_set1_epi16(0xFF)), even);
                let b = _mm256_madd_epi16(_mm256_srli_epi16::<8>(w[i]), odd);
                _mm256_add_epi32(sum[i], _mm256_add_epi32(a, b))
            })
        }
    }
    #[inline(always)]
    unsafe fn negated_product(a: [__m256i; 2], b: i32) -> [__m256i; 2] {
        both!(|i| unsafe { _mm256_mullo_epi32(a[i], _mm256_set1_epi32(b.wrapping_neg())) })
    }
    #[inline(always)]
    unsafe fn add(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(|i| unsafe { _mm256_add_epi32(a[i], b[i]) })
    }
    #[inline(always)]
    unsafe fn floats(w: [__m256i; 2]) -> Self {
        Pair(both!(|i| unsafe { _mm256_cvtepi32_ps(w[i]) }))
    }
    #[inline(always)]
    unsafe fn store_words(w: [__m256i; 2], p: *mut i32) {
        both!(|i| unsafe { _mm256_storeu_si256(p.add(8 * i).cast(), w[i]) });
    }
}
