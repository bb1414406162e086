//! The n largest of each group of m neighbours. The one rule: a group selects exactly n, and of equals the lowest index.
//!
//! Sixty-four groups lie side by side, their first elements in one row of a table, their second ones in the next. Each pair of
//! rows is compared once: the rank of an element is how many of its group come before it in the order of selection.

use super::BLOCK;
use super::keys::{Key, Load, Nan, Order, finite, with_key};
use base::simd::{Kernel, Simd, dispatch};
use base::{Error, Result, Tensor, pool};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The most elements of a group.
pub const MOST: usize = 16;
/// Groups side by side.
const ACROSS: usize = 64;

struct Rank<'a, K> {
    keys: &'a [K],
    mask: &'a mut [u8],
    n: usize,
    m: usize,
}

/// Elements `j` of groups as row `j` of a table; the compiler makes shuffles of it where `M` is a constant.
#[inline(always)]
fn deal<K: Key, const M: usize>(keys: &[K], table: &mut [[K; ACROSS]; MOST]) {
    for (g, group) in keys.chunks_exact(M).enumerate().take(ACROSS) {
        for j in 0..M {
            table[j][g] = group[j];
        }
    }
}

impl<K: Key> Kernel for Rank<'_, K> {
    /// The largest key.
    type Output = K;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> K {
        let Rank { keys, mask, n, m } = self;
        let (mut table, mut most) = ([[K::ZERO; ACROSS]; MOST], K::ZERO);
        for (keys, mask) in keys.chunks(ACROSS * m).zip(mask.chunks_mut(ACROSS * m)) {
            match m {
                2 => deal::<K, 2>(keys, &mut table),
                4 => deal::<K, 4>(keys, &mut table),
                8 => deal::<K, 8>(keys, &mut table),
                16 => deal::<K, 16>(keys, &mut table),
                _ => {
                    for (g, group) in keys.chunks_exact(m).enumerate() {
                        for (row, &key) in table.iter_mut().zip(group) {
                            row[g] = key;
                        }
                    }
                }
            }
            let mut ranks = [[K::ZERO; ACROSS]; MOST];
            for i in 0..m {
                let (before, after) = ranks.split_at_mut(i + 1);
                for (theirs, row) in after.iter_mut().zip(&table[i + 1..m]) {
                    for g in 0..ACROSS {
                        let beaten = row[g] > table[i][g];
                        before[i][g] = before[i][g].count(beaten);
                        theirs[g] = theirs[g].count(!beaten);
                    }
                }
            }
            let limit = K::narrow(n as u64);
            for (g, group) in mask.chunks_exact_mut(m).enumerate() {
                for (kept, rank) in group.iter_mut().zip(&ranks) {
                    *kept = u8::from(rank[g] < limit);
                }
            }
            for &key in keys {
                most = most.max(key);
            }
        }
        most
    }
}

/// Writes which elements of `x` are among the `n` largest of their group of `m`; groups follow one another.
pub fn nm_mask(x: &Tensor, order: Order, [n, m]: [usize; 2], mask: &mut [u8]) -> Result<()> {
    order.check(x)?;
    if !(1..=MOST).contains(&m) || n > m {
        return Err(Error::Value(format!("n of m must be 0 ≤ n ≤ m and 1 ≤ m ≤ {MOST}, got {n} of {m}")));
    }
    if !x.rows().1.is_multiple_of(m) {
        return Err(Error::Value(format!("an axis of {} elements has no whole groups of {m}", x.rows().1)));
    }
    if mask.len() != x.len() {
        return Err(Error::Value(format!("the mask has {} elements, the array {}", mask.len(), x.len())));
    }
    with_key!(order, K => keys::<K>(x, order, [n, m], mask))
}

fn keys<K: Load>(x: &Tensor, order: Order, [n, m]: [usize; 2], mask: &mut [u8]) -> Result<()> {
    // magnitudes rank what is not finite above all else; the least value is no largest key
    let refuse = order.nan == Nan::Bits;
    let mut fine = !(refuse && order.signed) || finite(x)?;
    let bad = AtomicBool::new(false);
    let (tile, step, out) = (ACROSS * m, BLOCK / m * m, pool::Shared(mask.as_mut_ptr()));
    pool::run(x.len().div_ceil(step), x.len(), |b| {
        let (mut keys, mut most) = ([K::ZERO; ACROSS * MOST], K::ZERO);
        for at in (b * step..x.len().min((b + 1) * step)).step_by(tile) {
            let keys = &mut keys[..tile.min(x.len() - at).min((b + 1) * step - at)];
            K::load(x, at, order, keys);
            // SAFETY: whole groups of this block, which no other block has.
            let mask = unsafe { out.part(at, keys.len()) };
            most = most.max(dispatch(Rank { keys, mask, n, m }));
        }
        bad.fetch_or(most.wide() >= order.infinity(), Relaxed);
    })?;
    fine &= !(refuse && bad.into_inner());
    if fine { Ok(()) } else { Err(Error::Value("non-finite values in x".into())) }
}
