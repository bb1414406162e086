//! Lists of arrays in one walk. The one rule: what is computed for an entry never depends on what lies beside it: every entry is
//! cut in blocks of its own, small ones are only carried out together, and what was gathered comes back in the order of the
//! blocks.
//!
//! Entries differ in type and are computed in f64, so that a functor is compiled once. An output may be the memory of an input
//! at the same place of the list: all that is read of [`CHUNK`] elements is read before they are written.

mod sums;
#[cfg(test)]
mod tests;

pub use crate::flat::{BLOCK, CHUNK};
use base::pool;
use base::store::convert;
use base::{Error, Result, Tensor, by_float};
pub use sums::{Sum, absolute, dot};

/// Elements of an entry, from its `at`-th on; of `row`, counted through all entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub entry: usize,
    pub row: usize,
    pub at: usize,
    pub len: usize,
}

/// The pieces of a list, at most a block each, and where tasks of at least a block end.
pub struct Plan {
    pieces: Vec<Piece>,
    ends: Vec<usize>,
    work: usize,
}

impl Plan {
    /// Of entries of so many elements, each of `per` rows; rows that are not wanted are left out.
    pub fn of(lens: &[usize], per: usize, wanted: impl Fn(usize) -> bool) -> Result<Plan> {
        let count = lens.iter().map(|&n| n.div_ceil(BLOCK) + per).fold(0, usize::saturating_add);
        let mut plan = Plan { pieces: room(count)?, ends: room(count)?, work: 0 };
        let mut held = 0;
        for (entry, &n) in lens.iter().enumerate() {
            let width = n / per.max(1);
            for row in (0..per).map(|r| entry * per + r).filter(|&r| width > 0 && wanted(r)) {
                let start = row % per * width;
                for at in (start..start + width).step_by(BLOCK) {
                    let len = BLOCK.min(start + width - at);
                    plan.pieces.push(Piece { entry, row, at, len });
                    (held, plan.work) = (held + len, plan.work + len);
                    if held >= BLOCK {
                        plan.ends.push(plan.pieces.len());
                        held = 0;
                    }
                }
            }
        }
        if held > 0 {
            plan.ends.push(plan.pieces.len());
        }
        Ok(plan)
    }

    fn task(&self, i: usize) -> &[Piece] {
        &self.pieces[i.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[i]]
    }
}

/// Room for so many, or an error.
fn room<T>(n: usize) -> Result<Vec<T>> {
    let mut made = Vec::new();
    made.try_reserve_exact(n).map_err(|_| Error::Memory(n.saturating_mul(size_of::<T>())))?;
    Ok(made)
}

/// What happens to some elements of an entry, [`CHUNK`] at most: `lists` reads them, y is what becomes of them (nothing where
/// nothing is written), and something is gathered for the piece.
pub trait Pass: Sync {
    type Gather: Default + Send;
    fn chunk(&self, gather: &mut Self::Gather, at: Piece, lists: &Reader, room: &mut Room, y: &mut [f64]);
}

/// What a pass reads into, of a task: nobody clears it for every chunk.
pub struct Room(pub [f64; CHUNK], pub [f64; CHUNK]);

/// The lists of a walk, at one place.
pub struct Reader<'a> {
    lists: &'a [&'a [Tensor<'a>]],
    at: Piece,
}

impl Reader<'_> {
    /// How many lists there are.
    pub fn count(&self) -> usize {
        self.lists.len()
    }
    /// The elements of list `k`.
    pub fn read(&self, k: usize, x: &mut [f64]) {
        let (t, at) = (&self.lists[k][self.at.entry], self.at);
        let whole: Result<()> = by_float!(t, T => {
            // SAFETY: the walk has looked at lengths and types; who writes here is this thread, when the slice is gone.
            let part = unsafe { std::slice::from_raw_parts(t.as_ptr().cast::<T>().add(at.at), at.len) };
            convert(part, x);
            Ok(())
        });
        debug_assert!(whole.is_ok());
    }
}

/// One walk over the pieces; `ys` is empty where nothing is written. What was gathered of each piece, in order.
pub fn walk<P: Pass>(p: &P, plan: &Plan, lists: &[&[Tensor]], ys: &[Tensor]) -> Result<Vec<(Piece, P::Gather)>> {
    let first = lists.first().copied().unwrap_or_default();
    for list in lists.iter().copied().chain((!ys.is_empty()).then_some(ys)) {
        let fits = list.len() == first.len() && list.iter().zip(first).all(|(t, x)| t.len() == x.len());
        if !fits {
            return Err(Error::Value("lists of different lengths".into()));
        }
        if let Some(t) = list.iter().find(|t| !t.dtype().is_float()) {
            return Err(Error::Type(format!(
                "expected float64, float32, float16 or bfloat16, got {}",
                t.dtype().name()
            )));
        }
    }
    if ys.iter().any(|y| !y.writable()) {
        return Err(Error::Value("an output is read-only".into()));
    }
    if plan.pieces.iter().any(|p| first.get(p.entry).is_none_or(|x| p.at + p.len > x.len())) {
        return Err(Error::Value("a plan of other lists".into()));
    }
    let gathered = pool::map(plan.ends.len(), plan.work, |i| {
        let (mut scratch, mut found) = ([0.0; CHUNK], Vec::new());
        let mut room = Room([0.0; CHUNK], [0.0; CHUNK]);
        for &piece in plan.task(i) {
            let mut gather = P::Gather::default();
            for at in (piece.at..piece.at + piece.len).step_by(CHUNK) {
                let at = Piece { at, len: CHUNK.min(piece.at + piece.len - at), ..piece };
                let y = &mut scratch[..if ys.is_empty() { 0 } else { at.len }];
                p.chunk(&mut gather, at, &Reader { lists, at }, &mut room, y);
                if let Some(t) = ys.get(at.entry) {
                    write(t, at, y);
                }
            }
            found.push((piece, gather));
        }
        found
    })?;
    Ok(gathered.into_iter().flatten().collect())
}

fn write(t: &Tensor, at: Piece, y: &[f64]) {
    let whole: Result<()> = by_float!(t, T => {
        // SAFETY: within the array, whose length was looked at; pieces do not overlap, the border sees to it that outputs do
        // not either, and inputs that lie here are read by nobody now.
        let part = unsafe { std::slice::from_raw_parts_mut(t.as_ptr().cast::<T>().add(at.at), at.len) };
        convert(y, part);
        Ok(())
    });
    debug_assert!(whole.is_ok());
}
