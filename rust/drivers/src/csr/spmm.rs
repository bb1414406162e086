//! One panel of a sparse product: rows of `y = A x` for as many columns as the registers hold. The one rule: every
//! element of `y` is one chain of fused multiply-adds in the order stored, so kernels, widths and cuts give the same bits.
//!
//! One body, five vector types. A nonzero costs one broadcast and, per vector of columns, one multiply-add whose operand
//! is read straight from the panel: the loads are the limit, which is why the panel should lie in the L2 cache. Indices
//! are compared with the height of the panel as they are read; beside a handful of multiply-adds that costs nothing.

use super::row::{self, Row};
use crate::index::Index;
use base::store::Store;
use base::vector::{Float, Isa, Plain, Set, Vector};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// What the sums start from.
#[derive(Clone, Copy)]
pub enum Start<'a, T> {
    Zero,
    /// One number per row of the panel.
    Bias(&'a [T]),
    /// What `y` holds: the sum over the columns of A before this panel's.
    Sum,
}

/// Rows of A restricted to columns `first..first + count`, times `width` columns of x, into y.
pub struct Panel<'a, T, I> {
    pub data: &'a [T],
    pub indices: &'a [I],
    /// Where each row's entries begin and end, in `data` and `indices`.
    pub from: &'a [usize],
    pub to: &'a [usize],
    pub first: usize,
    pub count: usize,
    /// Row `first` of x at the panel's first column, and the distance of two rows.
    pub x: *const T,
    pub ldx: usize,
    pub y: *mut T,
    pub ldy: usize,
    pub width: usize,
    pub start: Start<'a, T>,
    /// Bounds of the results, when these columns of A are the last.
    pub clamp: Option<[T; 2]>,
}

/// The types that have kernels.
pub trait Real: Float + Store {
    /// Elements in a vector, and the most vectors of columns in a panel.
    fn shape(isa: Isa) -> (usize, usize);
    /// False if an index lay outside the panel; the rows before it are done, the others untouched.
    ///
    /// # Safety
    /// `x` may be read at `[k * ldx + j]` for `k < count, j < width`, `y` written at `[i * ldy + j]` for every row `i`
    /// by nobody else, `from <= to <= data.len() == indices.len()` row by row, a bias has one number per row, and
    /// `1 <= width <=` lanes × vectors of `isa`.
    unsafe fn panel<I: Index>(isa: Isa, p: &Panel<Self, I>) -> bool;
    /// Adds some rows to sums.
    fn row(isa: Isa, r: &Row<Self>, sums: &mut [Self]);
}

/// A kernel's shape: `Z` vectors of columns, and `R` rows side by side, so that narrow sums do not wait for each other. The
/// last vector ends where the panel ends and may repeat columns of the one before; only a single vector can be `PARTIAL`.
struct Body<'p, V: Vector, I, const R: usize, const Z: usize, const PARTIAL: bool> {
    p: &'p Panel<'p, V::T, I>,
    mask: V::Mask,
    last: usize,
}

/// An index was out of bounds.
struct Out;

impl<V: Vector, I: Index, const R: usize, const Z: usize, const PARTIAL: bool> Body<'_, V, I, R, Z, PARTIAL> {
    /// Where vector z begins.
    #[inline(always)]
    fn at(&self, z: usize) -> usize {
        if z + 1 == Z { self.last } else { z * V::LANES }
    }

    #[inline(always)]
    unsafe fn load(&self, p: *const V::T, z: usize) -> V {
        // SAFETY: vector z of a row, masked if it is partial.
        unsafe {
            let p = p.add(self.at(z));
            if PARTIAL { V::load_masked(p, self.mask) } else { V::load(p) }
        }
    }

    #[inline(always)]
    unsafe fn begin(&self, i: usize) -> [V; Z] {
        // SAFETY: row i of a bias and of y.
        unsafe {
            match self.p.start {
                Start::Zero => [V::splat(V::T::default()); Z],
                Start::Bias(b) => [V::splat(*b.get_unchecked(i)); Z],
                Start::Sum => {
                    let y = self.p.y.add(i * self.p.ldy);
                    let mut sum = [V::splat(V::T::default()); Z];
                    for (z, s) in sum.iter_mut().enumerate() {
                        *s = self.load(y, z);
                    }
                    sum
                }
            }
        }
    }

    /// Adds entry e.
    #[inline(always)]
    unsafe fn step(&self, e: usize, sum: &mut [V; Z]) -> Result<(), Out> {
        // SAFETY: e is an entry, and its index is used only after it was found below `count`.
        unsafe {
            let k = I::read(self.p.indices.as_ptr().add(e)).wrapping_sub(self.p.first);
            if k >= self.p.count {
                return Err(Out);
            }
            let w = V::splat(*self.p.data.get_unchecked(e));
            let x = self.p.x.add(k * self.p.ldx);
            for (z, s) in sum.iter_mut().enumerate() {
                *s = w.fused(self.load(x, z), *s);
            }
            Ok(())
        }
    }

    /// Adds the entries of row i from e on, and stores.
    #[inline(always)]
    unsafe fn finish(&self, i: usize, e: usize, mut sum: [V; Z]) -> Result<(), Out> {
        // SAFETY: entries of row i; row i of y.
        unsafe {
            for e in e..*self.p.to.get_unchecked(i) {
                self.step(e, &mut sum)?;
            }
            if let Some([lo, hi]) = self.p.clamp {
                for s in &mut sum {
                    *s = s.clamp(V::splat(lo), V::splat(hi));
                }
            }
            let y = self.p.y.add(i * self.p.ldy);
            for (z, s) in sum.into_iter().enumerate() {
                let y = y.add(self.at(z));
                if PARTIAL {
                    s.store_masked(y, self.mask);
                } else {
                    s.store(y);
                }
            }
            Ok(())
        }
    }

    #[inline(always)]
    unsafe fn rows(&self) -> Result<(), Out> {
        let Panel { from, to, .. } = self.p;
        let mut i = 0;
        // SAFETY: rows below the number of rows, entries between `from` and `to`.
        unsafe {
            while R > 1 && i + R <= from.len() {
                let (mut start, mut common) = ([0; R], usize::MAX);
                let mut sums = [[V::splat(V::T::default()); Z]; R];
                for r in 0..R {
                    start[r] = from[i + r];
                    common = common.min(to[i + r] - start[r]);
                    sums[r] = self.begin(i + r);
                }
                for t in 0..common {
                    for r in 0..R {
                        self.step(start[r] + t, &mut sums[r])?;
                    }
                }
                for r in 0..R {
                    self.finish(i + r, start[r] + common, sums[r])?;
                }
                i += R;
            }
            while i < from.len() {
                self.finish(i, from[i], self.begin(i))?;
                i += 1;
            }
        }
        Ok(())
    }
}

#[inline(always)]
unsafe fn body<V: Vector, I: Index, const R: usize, const Z: usize, const PARTIAL: bool>(p: &Panel<V::T, I>) -> bool {
    // SAFETY: the caller has the instruction set of V and keeps the promises of `Real::panel`; a panel that is not
    // partial has as many columns as a vector has lanes, or more.
    unsafe {
        let (lanes, last) = if PARTIAL { (p.width, 0) } else { (V::LANES, p.width - V::LANES) };
        Body::<V, I, R, Z, PARTIAL> { p, mask: V::mask(lanes), last }.rows().is_ok()
    }
}

macro_rules! by_width {
    ($p:ident, $v:ty, $i:ty, $($z:literal x $r:literal)*) => {
        match $p.width.div_ceil(<$v>::LANES) {
            _ if $p.width == 1 => body::<Plain<<$v as Vector>::T, 1>, $i, 4, 1, false>($p),
            1 if $p.width < <$v>::LANES => body::<$v, $i, 4, 1, true>($p),
            $( $z => body::<$v, $i, $r, $z, false>($p), )*
            _ => false,
        }
    };
}

/// The most vectors of columns in a panel: eight sums and an operand for AVX-512 (more columns would push the panel of a
/// thousand rows out of a 1 MiB cache), twelve and an operand in the sixteen registers of AVX2.
const MOST: usize = 8;
const MOST_AVX2: usize = 12;
const MOST_PLAIN: usize = 4;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn avx512<V: Vector, I: Index>(p: &Panel<V::T, I>) -> bool {
    // SAFETY: the instruction set is this function's, the rest is the caller's promise.
    unsafe { by_width!(p, V, I, 1 x 4 2 x 2 3 x 1 4 x 1 5 x 1 6 x 1 7 x 1 8 x 1) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<V: Vector, I: Index>(p: &Panel<V::T, I>) -> bool {
    // SAFETY: as above.
    unsafe { by_width!(p, V, I, 1 x 4 2 x 2 3 x 1 4 x 1 5 x 1 6 x 1 7 x 1 8 x 1 9 x 1 10 x 1 11 x 1 12 x 1) }
}

unsafe fn generic<V: Vector, I: Index>(p: &Panel<V::T, I>) -> bool {
    // SAFETY: no instruction set is needed, the rest is the caller's promise.
    unsafe { by_width!(p, V, I, 1 x 1 2 x 1 3 x 1 4 x 1) }
}

macro_rules! real {
    ($($t:ty, $v512:ident, $v256:ident);*) => { $(
        impl Real for $t {
            fn shape(isa: Isa) -> (usize, usize) {
                match isa.0 {
                    Set::Generic => (Plain::<$t, 8>::LANES, MOST_PLAIN),
                    #[cfg(target_arch = "x86_64")]
                    Set::Avx2 => (<$v256>::LANES, MOST_AVX2),
                    #[cfg(target_arch = "x86_64")]
                    Set::Avx512 => (<$v512>::LANES, MOST),
                }
            }
            unsafe fn panel<I: Index>(isa: Isa, p: &Panel<Self, I>) -> bool {
                // SAFETY: an `Isa` was made after the machine was asked; the rest is the caller's promise.
                unsafe {
                    match isa.0 {
                        Set::Generic => generic::<Plain<$t, 8>, I>(p),
                        #[cfg(target_arch = "x86_64")]
                        Set::Avx2 => avx2::<$v256, I>(p),
                        #[cfg(target_arch = "x86_64")]
                        Set::Avx512 => avx512::<$v512, I>(p),
                    }
                }
            }
            fn row(isa: Isa, r: &Row<Self>, sums: &mut [Self]) {
                // SAFETY: as above.
                unsafe {
                    match isa.0 {
                        Set::Generic => row::body::<Plain<$t, 8>>(r, sums),
                        #[cfg(target_arch = "x86_64")]
                        Set::Avx2 => row::avx2::<$v256>(r, sums),
                        #[cfg(target_arch = "x86_64")]
                        Set::Avx512 => row::avx512::<$v512>(r, sums),
                    }
                }
            }
        }
    )* };
}
real!(f32, __m512, __m256; f64, __m512d, __m256d);
