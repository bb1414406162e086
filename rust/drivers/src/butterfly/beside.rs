//! What memory does while a piece is transformed: the next piece comes in, the one before goes out past the caches. The
//! one rule: nothing that is computed depends on it.

use base::{fetch, stream};

/// Bytes moved at a time.
const CHUNK: usize = 1024;

pub struct Beside<'a> {
    /// What comes in, in bytes: any address will do.
    next: *const u8,
    len: usize,
    come: usize,
    /// What goes out, and where to.
    from: &'a [u8],
    to: &'a mut [u8],
    gone: usize,
    /// Bytes transformed since memory was last given work.
    idle: usize,
}

impl<'a> Beside<'a> {
    pub fn nothing() -> Self {
        Beside::fetching(std::ptr::null::<u8>(), 0)
    }

    /// Fetches `len` numbers at `next`.
    pub fn fetching<L>(next: *const L, len: usize) -> Self {
        Beside { next: next.cast(), len: len * size_of::<L>(), come: 0, from: &[], to: &mut [], gone: 0, idle: 0 }
    }

    /// And copies `from` to `to`, as long.
    pub fn copying<L>(self, from: &'a [L], to: &'a mut [L]) -> Self {
        // SAFETY: the same memory as bytes; numbers have no bytes between them.
        let (from, to) = unsafe {
            let bytes = size_of_val(to);
            (
                std::slice::from_raw_parts(from.as_ptr().cast(), size_of_val(from)),
                std::slice::from_raw_parts_mut(to.as_mut_ptr().cast(), bytes),
            )
        };
        Beside { from, to, ..self }
    }

    /// After `bytes` were transformed once: half of a walk is enough for all of the work.
    #[inline(always)]
    pub fn step(&mut self, bytes: usize) {
        self.idle += bytes;
        if self.idle >= 2 * CHUNK {
            self.idle = 0;
            self.turn();
        }
    }

    #[inline(never)]
    fn turn(&mut self) {
        if self.come < self.len {
            for line in (0..CHUNK).step_by(64) {
                fetch(self.next.wrapping_add(self.come + line));
            }
            self.come += CHUNK;
        }
        if self.gone < self.from.len() {
            // whole lines
            let past = self.to[self.gone..].as_ptr() as usize % 64;
            self.out((self.gone + CHUNK - past).min(self.from.len()));
        }
    }

    fn out(&mut self, end: usize) {
        stream::copy(&self.from[self.gone..end], &mut self.to[self.gone..end]);
        self.gone = end;
    }

    /// What is left to go out.
    pub fn finish(&mut self) {
        self.out(self.from.len());
    }
}
