//! What memory does while a piece is transformed: the next piece comes in, the one before goes out past the caches. The
//! one rule: nothing that is computed depends on it.

use base::lane::Lane;
use base::{fetch, stream};

/// Bytes moved at a time.
const CHUNK: usize = 1024;

pub struct Beside<'a, L> {
    /// What comes in: any address will do.
    next: *const L,
    len: usize,
    come: usize,
    /// What goes out, and where to.
    from: &'a [L],
    to: &'a mut [L],
    gone: usize,
    /// Elements transformed since memory was last given work.
    idle: usize,
}

impl<'a, L: Lane> Beside<'a, L> {
    pub fn nothing() -> Self {
        Beside::new(std::ptr::null(), 0, &[], &mut [])
    }

    /// Fetches `len` elements at `next`, and copies `from` to `to`, as long.
    pub fn new(next: *const L, len: usize, from: &'a [L], to: &'a mut [L]) -> Self {
        Beside { next, len, come: 0, from, to, gone: 0, idle: 0 }
    }

    /// After `n` elements were transformed once: half of a walk is enough for all of the work.
    #[inline(always)]
    pub fn step(&mut self, n: usize) {
        self.idle += n;
        if self.idle >= 2 * CHUNK / size_of::<L>() {
            self.idle = 0;
            self.turn();
        }
    }

    fn turn(&mut self) {
        if self.come < self.len {
            for line in (0..CHUNK).step_by(64) {
                fetch(self.next.wrapping_byte_add(self.come * size_of::<L>() + line));
            }
            self.come += CHUNK / size_of::<L>();
        }
        if self.gone < self.from.len() {
            // whole lines
            let past = self.to[self.gone..].as_ptr() as usize % 64 / size_of::<L>();
            self.out((self.gone + CHUNK / size_of::<L>() - past).min(self.from.len()));
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
