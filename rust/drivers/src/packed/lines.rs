//! Memory in whole cache lines. The one rule: it begins on one, since a tile that is read across two takes three times as long.

use base::{Element, Result, try_vec};

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Numbers that begin on a cache line.
pub struct Lines<T> {
    lines: Vec<Line>,
    len: usize,
    of: std::marker::PhantomData<T>,
}

impl<T: Element> Lines<T> {
    /// So many zeros.
    pub fn zeros(len: usize) -> Result<Self> {
        let lines = try_vec((len * size_of::<T>()).div_ceil(64), Line([0; 64]))?;
        Ok(Lines { lines, len, of: std::marker::PhantomData })
    }
}

impl<T: Element> std::ops::Deref for Lines<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the lines hold so many numbers, aligned to more than one; an element is valid for any bytes.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Element> std::ops::DerefMut for Lines<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
