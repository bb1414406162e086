//! Memory to work in. The one rule: it begins where a line of the cache does, and what is in it was written before it is read.

use base::{Error, Result, huge, room};
use std::mem::MaybeUninit;

const LINE: usize = 64;

pub struct Aside<L> {
    all: Vec<MaybeUninit<L>>,
    from: usize,
}

impl<L> Aside<L> {
    /// Room for `n` numbers.
    pub fn new(n: usize) -> Result<Self> {
        Self::like(n, std::ptr::null())
    }

    /// Room for `n` numbers that lies to lines as `other` does, an address of such a number.
    pub fn like(n: usize, other: *const L) -> Result<Self> {
        let more = LINE / size_of::<L>();
        let bytes = n.saturating_add(2 * more).saturating_mul(size_of::<L>());
        room(bytes)?;
        let mut all: Vec<MaybeUninit<L>> = Vec::new();
        all.try_reserve_exact(n + 2 * more).map_err(|_| Error::Memory(bytes))?;
        huge(all.as_mut_ptr().cast(), bytes);
        let past = |p: *const L| p as usize % LINE / size_of::<L>();
        let from = (more - past(all.as_ptr().cast()) + past(other)) % more;
        Ok(Aside { all, from })
    }

    pub fn at(&mut self) -> *mut L {
        self.all.as_mut_ptr().wrapping_add(self.from).cast()
    }
}
