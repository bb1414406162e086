//! The order in which sparse times a few vectors ([`super::few`]) reads columns. The one rule: values stay where they are, so that
//! they may change at any time, and whatever says where is checked in every call.
//!
//! Sixteen rows of about the same number of entries go side by side, the longest first. Their columns are stored so: of each the
//! first, of each the second, and so on, those that have ended left out (jagged diagonals), in two bytes where they are below
//! 65536: few vectors are bound by what is read of A.

use super::few::Chunk;
use super::{Index, Pattern, raced};
use base::store::Store;
use base::vector::Float;
use base::{Element, Error, Result, try_vec};

/// Rows side by side.
pub(super) const ACROSS: usize = 16;
/// Rows among which those of about the same length are brought together.
const WINDOW: usize = 1024;

/// A column as it is stored: the bits of an unsigned number.
pub trait Place: Element + Default {
    fn of(column: usize) -> Option<Self>;
    fn column(self) -> u32;
    /// The one of the larger column.
    fn larger(self, other: Self) -> Self;
    /// Four columns, read at once.
    ///
    /// # Safety
    /// There are four.
    unsafe fn four(from: *const Self) -> [usize; 4];
}
impl Place for i16 {
    fn of(column: usize) -> Option<Self> {
        u16::try_from(column).ok().map(u16::cast_signed)
    }
    #[inline(always)]
    fn column(self) -> u32 {
        u32::from(self.cast_unsigned())
    }
    #[inline(always)]
    fn larger(self, other: i16) -> i16 {
        self.cast_unsigned().max(other.cast_unsigned()).cast_signed()
    }
    #[inline(always)]
    unsafe fn four(from: *const i16) -> [usize; 4] {
        // SAFETY: the caller's promise.
        let all = u64::from_le(unsafe { from.cast::<u64>().read_unaligned() });
        [all as u16 as usize, (all >> 16) as u16 as usize, (all >> 32) as u16 as usize, (all >> 48) as usize]
    }
}
impl Place for i32 {
    fn of(column: usize) -> Option<Self> {
        i32::try_from(column).ok()
    }
    #[inline(always)]
    fn column(self) -> u32 {
        self.cast_unsigned()
    }
    #[inline(always)]
    fn larger(self, other: i32) -> i32 {
        self.cast_unsigned().max(other.cast_unsigned()).cast_signed()
    }
    #[inline(always)]
    unsafe fn four(from: *const i32) -> [usize; 4] {
        // SAFETY: the caller's promise.
        let [a, b] = unsafe { from.cast::<[u64; 2]>().read_unaligned() };
        let (a, b) = (u64::from_le(a), u64::from_le(b));
        [a as u32 as usize, (a >> 32) as usize, b as u32 as usize, (b >> 32) as usize]
    }
}

/// Entries of each row that are multiplied before those of the next.
pub(super) const STEPS: usize = 16;

/// A value as it is stored, for sums in T: itself, or a code of one byte.
pub trait Value<T>: Element {
    /// Whether it is itself.
    const PLAIN: bool;
    fn wide(self) -> T;

    /// Where `steps` values are found from `from` on as numbers of T: there, or in the room.
    ///
    /// # Safety
    /// `from` points to as many; `steps <= STEPS`.
    unsafe fn ready(from: *const Self, steps: usize, room: &mut [T; STEPS]) -> *const T;
}
impl<T: Lanes> Value<T> for T {
    const PLAIN: bool = true;
    #[inline(always)]
    fn wide(self) -> T {
        self
    }
    #[inline(always)]
    unsafe fn ready(from: *const T, _: usize, _: &mut [T; STEPS]) -> *const T {
        from
    }
}
impl Value<f32> for i8 {
    const PLAIN: bool = false;
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    unsafe fn ready(from: *const i8, steps: usize, room: &mut [f32; STEPS]) -> *const f32 {
        // SAFETY: the caller's promise.
        let codes = unsafe { std::slice::from_raw_parts(from, steps) };
        for (to, &code) in room.iter_mut().zip(codes) {
            *to = code.wide();
        }
        room.as_ptr()
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

/// The types that a product takes: all that there are sums in.
pub trait Lanes: Float + Store {
    /// Adds the entries of a chunk to the sums of one vector, with AVX2, where that is not done as for several.
    ///
    /// # Safety
    /// As `few::chunk`; the machine has AVX2 and FMA.
    #[inline(always)]
    unsafe fn one<V: Value<Self>, P: Place>(_: &Chunk<Self, V, P>, _: &mut [Self]) -> Option<bool> {
        None
    }
}
impl Lanes for f64 {}
impl Lanes for f32 {
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn one<V: Value<f32>, P: Place>(c: &Chunk<f32, V, P>, sums: &mut [f32]) -> Option<bool> {
        // SAFETY: the caller's promise.
        <&mut [f32; ACROSS]>::try_from(sums).ok().map(|sums| unsafe { super::one::chunk(c, sums) })
    }
}

/// A matrix with its columns in the order of this file, found whole.
pub struct Lined<'a, T, P> {
    pub(super) data: &'a [T],
    pub(super) places: &'a [P],
    pub(super) rows: Vec<usize>,
    pub(super) ptr: Vec<usize>,
    /// Where the columns of each chunk begin.
    pub(super) starts: Vec<usize>,
    pub(super) cols: usize,
}

impl<'a, T: Element, P: Place> Lined<'a, T, P> {
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
}
