//! Sparse times a few vectors, `y = A x + b`, for x that lie as rows. The one rule: a row of A is one chain of fused
//! multiply-adds in ascending column order, in one lane, so that the bits are those of [`super::spmm`].
//!
//! Sixteen rows of about the same number of entries go side by side, the longest first. Their columns are stored so: of each the
//! first, of each the second, and so on, those that have ended left out (jagged diagonals), in two bytes where they are below
//! 65536: few vectors are bound by what is read of A. The values stay where they are, so that they may change at any time:
//! sixteen rows are sixteen streams. What is read of x comes from the first cache.

use super::{Index, Pattern, raced};
use base::pool::{self, Shared};
use base::store::Store;
use base::vector::{Float, Isa, Plain, Set, Vector};
use base::{Element, Error, Result, try_vec};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows side by side.
const ACROSS: usize = 16;
/// Vectors that share a reading of A.
const TOGETHER: usize = 4;
/// Entries in one task, about.
const TASK: usize = 1 << 15;
/// Rows among which those of about the same length are brought together.
const WINDOW: usize = 1024;

/// A column as it is stored: the bits of an unsigned number.
pub trait Place: Element {
    /// Two bytes, not four.
    const SMALL: bool;
    fn of(column: usize) -> Option<Self>;
    fn column(self) -> u32;
}
impl Place for i16 {
    const SMALL: bool = true;
    fn of(column: usize) -> Option<Self> {
        u16::try_from(column).ok().map(u16::cast_signed)
    }
    #[inline(always)]
    fn column(self) -> u32 {
        u32::from(self.cast_unsigned())
    }
}
impl Place for i32 {
    const SMALL: bool = false;
    fn of(column: usize) -> Option<Self> {
        i32::try_from(column).ok()
    }
    #[inline(always)]
    fn column(self) -> u32 {
        self.cast_unsigned()
    }
}

/// The columns of a pattern in the order of this file, and the order of the rows.
pub fn lanes<I: Index, P: Place>(a: &Pattern<I>, places: &mut [P], rows: &mut [I]) -> Result<()> {
    if places.len() != a.entries() || rows.len() != a.rows() {
        return Err(Error::Value("the outputs differ in length from the pattern".into()));
    }
    let mut order: Vec<usize> = try_vec(a.rows(), 0)?;
    for (i, row) in order.iter_mut().enumerate() {
        *row = i;
    }
    let length = |row: usize| a.ptr[row + 1] - a.ptr[row];
    for window in order.chunks_mut(WINDOW) {
        // rows break ties, so this is the stable order
        window.sort_unstable_by_key(|&row| (usize::MAX - length(row), row));
    }
    let mut places = places.iter_mut();
    for chunk in order.chunks(ACROSS) {
        for t in 0..length(chunk[0]) {
            for (&row, place) in chunk.iter().take_while(|&&row| t < length(row)).zip(&mut places) {
                // SAFETY: an element of the slice.
                let column = unsafe { I::read(&raw const a.indices[a.ptr[row] + t]) };
                *place = P::of(column).ok_or_else(raced)?;
            }
        }
    }
    for (to, row) in rows.iter_mut().zip(order) {
        *to = I::new(row).ok_or_else(raced)?;
    }
    Ok(())
}

/// Vectors that read what lies scattered. Places stay in registers: on their way through memory, halves that are stored and
/// then read as a whole would hold up every step.
///
/// # Safety
/// As of `Vector`; `columns` reads as many places as there are lanes, `gather` reads `p[at]` of each lane.
unsafe trait Gather: Vector {
    /// A place for each lane.
    type At: Copy;
    unsafe fn splat_at(at: u32) -> Self::At;
    unsafe fn load_at(p: *const u32) -> Self::At;
    unsafe fn store_at(at: Self::At, p: *mut u32);
    unsafe fn columns<P: Place>(p: *const P) -> Self::At;
    unsafe fn next(at: Self::At) -> Self::At;
    unsafe fn least(a: Self::At, b: Self::At) -> Self::At;
    unsafe fn most(a: Self::At, b: Self::At) -> Self::At;
    unsafe fn gather(p: *const Self::T, at: Self::At) -> Self;
}
// SAFETY: lane by lane.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl<T: Float, const N: usize> Gather for Plain<T, N> {
    type At = [u32; N];
    #[inline(always)]
    unsafe fn splat_at(at: u32) -> [u32; N] {
        [at; N]
    }
    #[inline(always)]
    unsafe fn load_at(p: *const u32) -> [u32; N] {
        unsafe { p.cast::<[u32; N]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_at(at: [u32; N], p: *mut u32) {
        unsafe { p.cast::<[u32; N]>().write_unaligned(at) }
    }
    #[inline(always)]
    unsafe fn columns<P: Place>(p: *const P) -> [u32; N] {
        std::array::from_fn(|l| unsafe { (*p.add(l)).column() })
    }
    #[inline(always)]
    unsafe fn next(at: [u32; N]) -> [u32; N] {
        at.map(|at| at.wrapping_add(1))
    }
    #[inline(always)]
    unsafe fn least(a: [u32; N], b: [u32; N]) -> [u32; N] {
        std::array::from_fn(|l| a[l].min(b[l]))
    }
    #[inline(always)]
    unsafe fn most(a: [u32; N], b: [u32; N]) -> [u32; N] {
        std::array::from_fn(|l| a[l].max(b[l]))
    }
    #[inline(always)]
    unsafe fn gather(p: *const T, at: [u32; N]) -> Self {
        let v: [T; N] = at.map(|at| unsafe { *p.add(at as usize) });
        unsafe { Self::load(v.as_ptr()) }
    }
}
#[cfg(target_arch = "x86_64")]
macro_rules! gather {
    ($($v:ident, $i:ident: $splat:ident $load:ident $store:ident $add:ident $min:ident $max:ident,
        |$p:ident| $small:expr, |$base:ident, $at:ident| $gather:expr;)*) => { $(
        // SAFETY: one or two instructions of the set that makes up the vector, on the lanes promised. Places are below 2^31, as
        // the instruction that gathers takes signed ones.
        unsafe impl Gather for $v {
            type At = $i;
            #[inline(always)]
            unsafe fn splat_at(at: u32) -> $i {
                unsafe { $splat(at.cast_signed()) }
            }
            #[inline(always)]
            unsafe fn load_at(p: *const u32) -> $i {
                unsafe { $load(p.cast()) }
            }
            #[inline(always)]
            unsafe fn store_at(at: $i, p: *mut u32) {
                unsafe { $store(p.cast(), at) }
            }
            #[inline(always)]
            unsafe fn columns<P: Place>($p: *const P) -> $i {
                unsafe { if P::SMALL { $small } else { $load($p.cast()) } }
            }
            #[inline(always)]
            unsafe fn next(at: $i) -> $i {
                unsafe { $add(at, $splat(1)) }
            }
            #[inline(always)]
            unsafe fn least(a: $i, b: $i) -> $i {
                unsafe { $min(a, b) }
            }
            #[inline(always)]
            unsafe fn most(a: $i, b: $i) -> $i {
                unsafe { $max(a, b) }
            }
            #[inline(always)]
            unsafe fn gather($base: *const Self::T, $at: $i) -> Self {
                unsafe { $gather }
            }
        }
    )* };
}
#[cfg(target_arch = "x86_64")]
gather! {
    __m512, __m512i: _mm512_set1_epi32 _mm512_loadu_si512 _mm512_storeu_si512 _mm512_add_epi32 _mm512_min_epu32 _mm512_max_epu32,
        |p| _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())), |base, at| _mm512_i32gather_ps::<4>(at, base);
    __m512d, __m256i: _mm256_set1_epi32 _mm256_loadu_si256 _mm256_storeu_si256 _mm256_add_epi32 _mm256_min_epu32 _mm256_max_epu32,
        |p| _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())), |base, at| _mm512_i32gather_pd::<8>(at, base);
    __m256, __m256i: _mm256_set1_epi32 _mm256_loadu_si256 _mm256_storeu_si256 _mm256_add_epi32 _mm256_min_epu32 _mm256_max_epu32,
        |p| _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())), |base, at| _mm256_i32gather_ps::<4>(base, at);
    __m256d, __m128i: _mm_set1_epi32 _mm_loadu_si128 _mm_storeu_si128 _mm_add_epi32 _mm_min_epu32 _mm_max_epu32,
        |p| _mm_cvtepu16_epi32(_mm_loadl_epi64(p.cast())), |base, at| _mm256_i32gather_pd::<8>(base, at);
}

/// The entries that all rows of a chunk have, and `R` vectors.
struct Steps<'a, T, P> {
    data: &'a [T],
    places: &'a [P],
    /// Where the values of each row begin.
    starts: [u32; ACROSS],
    /// Rows of x, which have `cols` elements and are `cols` apart.
    x: *const T,
    cols: usize,
}

/// Adds them to the sums; false if a column was outside x.
///
/// # Safety
/// The instruction set of `V` is there, `x` has `R` rows, each row has as many values from its start on as `places` has steps,
/// and `1 <= cols < 2^31`, as are the places of values.
#[inline(always)]
unsafe fn steps<V: Gather, P: Place, const R: usize>(s: &Steps<V::T, P>, sums: &mut [[V::T; ACROSS]; R]) -> bool {
    let vectors = ACROSS / V::LANES;
    // SAFETY: sums, starts and a step of places have ACROSS elements; a column is used only where it is not beyond the last.
    unsafe {
        let last = V::splat_at((s.cols - 1) as u32);
        let (mut from, mut most) = ([last; 4], [V::splat_at(0); 4]);
        let mut held = [[V::splat(V::T::default()); 4]; R];
        for z in 0..vectors {
            from[z] = V::load_at(s.starts.as_ptr().add(z * V::LANES));
            for (held, sums) in held.iter_mut().zip(&*sums) {
                held[z] = V::load(sums.as_ptr().add(z * V::LANES));
            }
        }
        for places in s.places.chunks_exact(ACROSS) {
            for z in 0..vectors {
                let column = V::columns(places.as_ptr().add(z * V::LANES));
                most[z] = V::most(most[z], column);
                let column = V::least(column, last);
                let w = V::gather(s.data.as_ptr(), from[z]);
                from[z] = V::next(from[z]);
                for (r, held) in held.iter_mut().enumerate() {
                    held[z] = w.fused(V::gather(s.x.add(r * s.cols), column), held[z]);
                }
            }
        }
        let mut seen = [0_u32; ACROSS];
        for z in 0..vectors {
            V::store_at(most[z], seen.as_mut_ptr().add(z * V::LANES));
            for (held, sums) in held.iter().zip(&mut *sums) {
                held[z].store(sums.as_mut_ptr().add(z * V::LANES));
            }
        }
        seen.iter().all(|&column| (column as usize) < s.cols)
    }
}

/// The types that have kernels.
pub trait Lanes: Float + Store {
    /// As [`steps`], with the vectors of `isa`.
    ///
    /// # Safety
    /// As of [`steps`].
    #[allow(private_interfaces)]
    unsafe fn steps<P: Place, const R: usize>(isa: Isa, s: &Steps<Self, P>, sums: &mut [[Self; ACROSS]; R]) -> bool;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn avx512<V: Gather, P: Place, const R: usize>(s: &Steps<V::T, P>, sums: &mut [[V::T; ACROSS]; R]) -> bool {
    // SAFETY: the instruction set is this function's, the rest is the caller's promise.
    unsafe { steps::<V, P, R>(s, sums) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<V: Gather, P: Place, const R: usize>(s: &Steps<V::T, P>, sums: &mut [[V::T; ACROSS]; R]) -> bool {
    // SAFETY: as above.
    unsafe { steps::<V, P, R>(s, sums) }
}

macro_rules! by_set {
    ($($t:ty, $v512:ident, $v256:ident);*) => { $(
        impl Lanes for $t {
            #[allow(private_interfaces)]
            unsafe fn steps<P: Place, const R: usize>(isa: Isa, s: &Steps<$t, P>, sums: &mut [[$t; ACROSS]; R]) -> bool {
                // SAFETY: an `Isa` was made after the machine was asked; the rest is the caller's promise.
                unsafe {
                    match isa.0 {
                        Set::Generic => steps::<Plain<$t, ACROSS>, P, R>(s, sums),
                        #[cfg(target_arch = "x86_64")]
                        Set::Avx2 => avx2::<$v256, P, R>(s, sums),
                        #[cfg(target_arch = "x86_64")]
                        Set::Avx512 => avx512::<$v512, P, R>(s, sums),
                    }
                }
            }
        }
    )* };
}
by_set!(f32, __m512, __m256; f64, __m512d, __m256d);

/// A matrix with its columns in the order of this file, found whole.
pub struct Lined<'a, T, P> {
    data: &'a [T],
    places: &'a [P],
    rows: Vec<usize>,
    ptr: Vec<usize>,
    /// Where the columns of each chunk begin.
    starts: Vec<usize>,
    cols: usize,
}

impl<'a, T: Lanes, P: Place> Lined<'a, T, P> {
    /// Checks that rows come once each, and that the lengths of their parts of `data` fall in a chunk.
    pub fn new<I: Index>(data: &'a [T], places: &'a [P], rows: &[I], indptr: &[I], cols: usize) -> Result<Self> {
        let (m, ptr) = (rows.len(), crate::index::offsets(indptr, data.len())?);
        if ptr.len() != m + 1 || data.len() != places.len() || cols.max(data.len()) >= 1 << 31 {
            return Err(Error::Value(format!(
                "{} values for {} places, {} offsets for {m} rows of {cols}",
                data.len(),
                places.len(),
                ptr.len()
            )));
        }
        let mut seen = try_vec(m, false)?;
        let mut starts = try_vec(m.div_ceil(ACROSS) + 1, 0)?;
        let (mut before, mut total) = (usize::MAX, 0_usize);
        let rows = crate::index::copied(rows, |i, row| {
            if seen.get(row).is_none_or(|&seen| seen) {
                return Err(Error::Value(format!("rows name each row of 0..{m} once, got {} at {i}", row as i64)));
            }
            seen[row] = true;
            if i % ACROSS == 0 {
                (starts[i / ACROSS], before) = (total, usize::MAX);
            }
            let length = ptr[row + 1] - ptr[row];
            if length > before {
                return Err(Error::Value(format!("row {row} has more entries than the one before it in its lanes")));
            }
            (before, total) = (length, total + length);
            Ok(())
        })?;
        if total > 0 && cols == 0 {
            return Err(Error::Value(format!("{total} entries in no columns")));
        }
        starts[m.div_ceil(ACROSS)] = total;
        Ok(Lined { data, places, rows, ptr, starts, cols })
    }

    /// The sums of a chunk with `R` rows of x; None if a column was outside.
    fn chunk<const R: usize>(&self, isa: Isa, c: usize, x: &[T], bias: Option<&[T]>) -> Option<[[T; ACROSS]; R]> {
        let (first, mut at) = (c * ACROSS, self.starts[c]);
        let rows = &self.rows[first..self.rows.len().min(first + ACROSS)];
        let length = |l: usize| rows.get(l).map_or(0, |&row| self.ptr[row + 1] - self.ptr[row]);
        let (mut sums, mut starts) = ([[T::default(); ACROSS]; R], [0; ACROSS]);
        for (l, &row) in rows.iter().enumerate() {
            starts[l] = self.ptr[row] as u32;
            if let Some(bias) = bias {
                for sums in &mut sums {
                    sums[l] = bias[row];
                }
            }
        }
        // a chunk of fewer rows than lanes goes entry by entry
        let common = length(ACROSS - 1);
        if common > 0 {
            let places = &self.places[at..at + common * ACROSS];
            let s = Steps { data: self.data, places, starts, x: x.as_ptr(), cols: self.cols };
            assert!(x.len() >= R * self.cols);
            // SAFETY: an entry is stored, so there are columns, fewer than 2^31, and values; x has R rows of them, as was just
            // asked; `common` is the length of the shortest of these rows, which lie within `data`.
            if !unsafe { T::steps::<P, R>(isa, &s, &mut sums) } {
                return None;
            }
            at += common * ACROSS;
        }
        for t in common..length(0) {
            for l in (0..rows.len()).take_while(|&l| t < length(l)) {
                let (w, column) = (self.data[self.ptr[rows[l]] + t], self.places[at].column() as usize);
                for (sums, x) in sums.iter_mut().zip(x.chunks_exact(self.cols)) {
                    sums[l] = w.fused(*x.get(column)?, sums[l]);
                }
                at += 1;
            }
        }
        Some(sums)
    }

    /// `y[b] = A x[b] + bias`: x is [batch, cols], y [batch, rows].
    pub fn product(&self, x: &[T], bias: Option<&[T]>, y: &mut [T]) -> Result<()> {
        let (m, cols) = (self.rows.len(), self.cols);
        if m == 0 {
            return Ok(());
        }
        let batch = y.len() / m;
        if y.len() != batch * m || x.len() != batch * cols || bias.is_some_and(|b| b.len() != m) {
            return Err(Error::Value(format!("{} numbers of x and {} of y for {m} rows of {cols}", x.len(), y.len())));
        }
        let (isa, chunks) = (Isa::current(), m.div_ceil(ACROSS));
        let each = (TASK * chunks / self.data.len().max(1)).clamp(1, chunks);
        let (out, wrong) = (Shared(y.as_mut_ptr()), AtomicBool::new(false));
        let work = (self.data.len() + m).saturating_mul(batch);
        pool::run(chunks.div_ceil(each), work, |task| {
            for c in task * each..chunks.min((task + 1) * each) {
                let put = |r: usize, sums: &[T; ACROSS]| {
                    for (&row, &sum) in self.rows[c * ACROSS..].iter().zip(sums) {
                        // SAFETY: a row of y below `m`, which this chunk alone has: rows come once each.
                        unsafe { *out.at(r * m + row) = sum };
                    }
                };
                let mut r = 0;
                while r < batch {
                    let x = &x[r * cols..];
                    let done = if r + TOGETHER <= batch {
                        self.chunk::<TOGETHER>(isa, c, x, bias).map(|sums| {
                            for (i, sums) in sums.iter().enumerate() {
                                put(r + i, sums);
                            }
                            TOGETHER
                        })
                    } else {
                        self.chunk::<1>(isa, c, x, bias).map(|sums| {
                            put(r, &sums[0]);
                            1
                        })
                    };
                    let Some(done) = done else {
                        wrong.store(true, Ordering::Relaxed);
                        return;
                    };
                    r += done;
                }
            }
        })?;
        if wrong.into_inner() { Err(raced()) } else { Ok(()) }
    }
}
