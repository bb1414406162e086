//! Arrays beside an array: of each element, the place in each of them that belongs to it. The one rule: pieces and blocks of them
//! follow from shapes alone.

use base::store::STEP;
use base::{Error, MAX_DIMS, Result, Tensor};
use std::array::from_fn;
use std::ops::Range;

/// The most elements of a piece.
pub const PIECE: usize = 4096;
/// Elements that are worth a block of their own.
const BLOCK: usize = 8 * PIECE;

/// An array in pieces of neighbours; K others beside it go by steps along its axes, 0 where they broadcast.
pub struct Walk<const K: usize> {
    /// The outer axes: size and steps.
    axes: Vec<(usize, [usize; K])>,
    /// Elements that lie side by side, and how the others go along them: 0 or 1.
    pub len: usize,
    pub step: [usize; K],
    cuts: usize,
    pieces: usize,
}

/// Neighbours: the first of them, how many, and where the first is in each array beside.
pub struct Piece<const K: usize> {
    pub at: usize,
    pub len: usize,
    pub of: [usize; K],
}

/// The steps of an array that broadcasts to `shape`.
pub fn steps(name: &str, shape: &[usize], t: &Tensor) -> Result<[usize; MAX_DIMS]> {
    let (own, mut out, mut size) = (t.shape(), [0; MAX_DIMS], 1);
    let fits = own.len() <= shape.len();
    for (i, &n) in own.iter().enumerate().rev().take(if fits { own.len() } else { 0 }) {
        let at = i + shape.len() - own.len();
        if n != 1 && n != shape[at] {
            return Err(Error::Value(format!("{name} of shape {own:?} does not broadcast to {shape:?}")));
        }
        out[at] = if n == 1 { 0 } else { size };
        size *= n;
    }
    if fits { Ok(out) } else { Err(Error::Value(format!("{name} of shape {own:?} does not broadcast to {shape:?}"))) }
}

/// The steps of the axes of `shape` whose bit is set, numbered by themselves, and how many such places there are.
pub fn kept(shape: &[usize], axes: i64) -> ([usize; MAX_DIMS], usize) {
    let (mut out, mut size) = ([0; MAX_DIMS], 1);
    for (i, &n) in shape.iter().enumerate().rev().filter(|(i, _)| axes >> i & 1 == 1) {
        out[i] = size;
        size *= n;
    }
    (out, size)
}

impl<const K: usize> Walk<K> {
    /// Axes that every array goes along evenly are one.
    pub fn new(shape: &[usize], steps: [[usize; MAX_DIMS]; K]) -> Self {
        let mut axes: Vec<(usize, [usize; K])> = Vec::new();
        for (i, &n) in shape.iter().enumerate().filter(|(_, n)| **n != 1) {
            let own: [usize; K] = from_fn(|k| steps[k][i]);
            match axes.last_mut() {
                Some((size, outer)) if (0..K).all(|k| outer[k] == own[k] * n) => (*size, *outer) = (*size * n, own),
                _ => axes.push((n, own)),
            }
        }
        let (len, step) = axes.pop().unwrap_or((1, [0; K]));
        let cuts = len.div_ceil(PIECE);
        let pieces = axes.iter().map(|a| a.0).product::<usize>() * cuts;
        Walk { axes, len, step, cuts, pieces }
    }

    pub fn pieces(&self) -> usize {
        self.pieces
    }
    /// Elements of the longest piece.
    pub fn longest(&self) -> usize {
        self.len.min(PIECE)
    }

    /// How many pieces in a row have one place in array `k`, and the next ones the next: None where they come back to it.
    pub fn solid(&self, k: usize) -> Option<usize> {
        let outer = self.axes.iter().take_while(|a| a.1[k] != 0).count();
        let rest = &self.axes[outer..];
        let whole = self.step[k] == 0 && rest.iter().all(|a| a.1[k] == 0);
        whole.then(|| rest.iter().map(|a| a.0).product::<usize>() * self.cuts)
    }

    /// Pieces of a block, of which there are at most 64, and fewer where each has a table of so many numbers.
    pub fn block(&self, table: usize) -> usize {
        let n = self.pieces.saturating_mul(self.longest());
        let blocks = (n / BLOCK).min(n / (4 * table.max(1))).clamp(1, 64);
        self.pieces.div_ceil(blocks).max(1)
    }

    #[inline(always)]
    pub fn each(&self, pieces: Range<usize>, mut f: impl FnMut(Piece<K>)) {
        if pieces.is_empty() {
            return;
        }
        let (mut index, mut base, mut cut) = ([0; MAX_DIMS], [0; K], pieces.start % self.cuts);
        let mut run = pieces.start / self.cuts;
        let mut at = run * self.len;
        for (slot, (n, steps)) in index[..self.axes.len()].iter_mut().zip(&self.axes).rev() {
            (*slot, run) = (run % n, run / n);
            for k in 0..K {
                base[k] += *slot * steps[k];
            }
        }
        for _ in pieces {
            let from = cut * PIECE;
            f(Piece { at: at + from, len: PIECE.min(self.len - from), of: from_fn(|k| base[k] + self.step[k] * from) });
            cut += 1;
            if cut < self.cuts {
                continue;
            }
            (cut, at) = (0, at + self.len);
            for (slot, (n, steps)) in index[..self.axes.len()].iter_mut().zip(&self.axes).rev() {
                *slot += 1;
                if *slot < *n {
                    (0..K).for_each(|k| base[k] += steps[k]);
                    break;
                }
                (0..K).for_each(|k| base[k] -= (n - 1) * steps[k]);
                *slot = 0;
            }
        }
    }
}

/// Calls `f` with lanes of sixteen neighbours and their first, and with what is left.
#[inline(always)]
pub fn lanes(n: usize, mut f: impl FnMut(usize, usize)) {
    let whole = n - n % STEP;
    for at in (0..whole).step_by(STEP) {
        f(at, STEP);
    }
    if whole < n {
        f(whole, n - whole);
    }
}
