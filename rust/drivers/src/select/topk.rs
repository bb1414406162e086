//! The k largest of each row. The one rule: a row's answer is the one a stable sort would give, of equals the lowest
//! index, and the indices come out ascending.

use super::TILE;
use super::keys::{Key, Load, Order, with_key};
use base::{Error, Result, Tensor, pool, try_vec};
use std::sync::{Mutex, PoisonError};

/// Bits of one digit: a histogram of 2048 counters lies in the first-level cache.
const DIGIT: u32 = 11;

/// Rows up to this length are selected by comparisons.
const SHORT: usize = 512;

/// The `k`-th largest of the keys and how many keys equal to it belong to the k largest. Keys are moved about.
fn nth<K: Key>(keys: &mut [K], k: usize) -> (K, usize) {
    let n = keys.len();
    if n <= SHORT {
        let (_, &mut t, largest) = keys.select_nth_unstable(n - k);
        return (t, k - largest.iter().filter(|&&key| key > t).count());
    }
    // from the top digit down; after each round only the keys that share the digit stay
    let (mut len, mut left, mut shift) = (n, k, K::BITS);
    while shift > 0 {
        let bits = DIGIT.min(shift);
        shift -= bits;
        let digit = |key: K| (key.wide() >> shift) as usize & ((1 << bits) - 1);
        let mut counts = [[0_u32; 1 << DIGIT]; 2];
        let mut pairs = keys[..len].chunks_exact(2);
        for pair in &mut pairs {
            counts[0][digit(pair[0])] += 1;
            counts[1][digit(pair[1])] += 1;
        }
        for &key in pairs.remainder() {
            counts[0][digit(key)] += 1;
        }
        let mut d = (1 << bits) - 1;
        loop {
            let here = (counts[0][d] + counts[1][d]) as usize;
            if left <= here {
                break;
            }
            left -= here;
            d -= 1;
        }
        let mut to = 0;
        for i in 0..len {
            let key = keys[i];
            keys[to] = key;
            to += usize::from(digit(key) == d);
        }
        len = to;
        if len == 1 {
            break;
        }
    }
    (keys[0], left)
}

/// Writes the indices of the k largest elements of each row of `x`, ascending, into the rows of `indices`.
pub fn topk_rows(x: &Tensor, order: Order, k: usize, indices: &mut [i64]) -> Result<()> {
    order.check(x)?;
    let (rows, d) = x.rows();
    if k > d {
        return Err(Error::Value(format!("k = {k} of rows of {d}")));
    }
    if rows.checked_mul(k) != Some(indices.len()) {
        return Err(Error::Value(format!("indices must hold {rows} × {k} numbers, got {}", indices.len())));
    }
    if u32::try_from(d).is_err() {
        return Err(Error::Value(format!("rows of at most 2^32 − 1 elements, got {d}")));
    }
    if indices.is_empty() {
        return Ok(());
    }
    with_key!(order, K => keys::<K>(x, order, k, indices))
}

fn keys<K: Load>(x: &Tensor, order: Order, k: usize, indices: &mut [i64]) -> Result<()> {
    let (rows, d) = x.rows();
    let group = (TILE / d).max(1); // rows per block: blocks of some size, fixed by the shape
    let out = pool::Shared(indices.as_mut_ptr());
    let free: Mutex<Vec<Vec<K>>> = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    let held = || free.lock().unwrap_or_else(PoisonError::into_inner);
    pool::run(rows.div_ceil(group), x.len(), |b| {
        let spare = held().pop();
        let mut scratch = match spare.map_or_else(|| try_vec(2 * d, K::ZERO), Ok) {
            Ok(v) => v,
            Err(e) => {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                return;
            }
        };
        for row in b * group..rows.min((b + 1) * group) {
            let (keys, moved) = scratch.split_at_mut(d);
            K::load(x, row * d, order, keys);
            moved.copy_from_slice(keys);
            let (threshold, ties) = nth(moved, k);
            // SAFETY: each row has its own k indices.
            emit(keys, threshold, ties, unsafe { out.part(row * k, k) });
        }
        held().push(scratch);
    })?;
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

/// The indices of the keys above the threshold and of the first `ties` equal to it: `out.len()` in all.
fn emit<K: Key>(keys: &[K], threshold: K, mut ties: usize, out: &mut [i64]) {
    let mut at = 0;
    for (c, chunk) in keys.chunks(64).enumerate() {
        // most chunks hold few: a bit per key, and the bits that are set
        let mut bits = 0_u64;
        for (i, &key) in chunk.iter().enumerate() {
            bits |= u64::from(key >= threshold) << i;
        }
        while bits != 0 {
            let i = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            if chunk[i] == threshold {
                if ties == 0 {
                    continue;
                }
                ties -= 1;
            }
            if at == out.len() {
                return;
            }
            out[at] = (64 * c + i) as i64;
            at += 1;
        }
    }
}

fn check(x: &Tensor, y: &Tensor, indices: &[i64]) -> Result<(usize, usize, usize)> {
    let ((rows, d), (_, k)) = (x.rows(), y.rows());
    if x.dtype() != y.dtype() {
        return Err(Error::Type(format!("{} and {} in one call", x.dtype().name(), y.dtype().name())));
    }
    if rows.checked_mul(k) != Some(indices.len()) || y.len() != indices.len() {
        return Err(Error::Value(format!("rows of {k} values and {} indices for {rows} rows", indices.len())));
    }
    if let Some(i) = indices.iter().find(|&&i| i < 0 || i as usize >= d) {
        return Err(Error::Value(format!("index {i} of rows of {d}")));
    }
    Ok((rows, d, k))
}

/// `y[r, j] = x[r, indices[r, j]]`.
pub fn gather_rows(x: &Tensor, indices: &[i64], y: &Tensor) -> Result<()> {
    let (rows, d, k) = check(x, y, indices)?;
    by_size(x, y, rows, |from, to, row, size| {
        let at = &indices[row * k..(row + 1) * k];
        for (j, &i) in at.iter().enumerate() {
            // checked again as it is read: the array may belong to somebody who writes to it
            let i = (i as usize).min(d - 1);
            // SAFETY: row `row` of both arrays, `i` inside a row.
            unsafe {
                let value = from.at((row * d + i) * size);
                std::ptr::copy_nonoverlapping(value, to.at((row * k + j) * size), size);
            }
        }
    })
}

/// `y[r, indices[r, j]] = g[r, j]`, zero elsewhere: the transpose of [`gather_rows`] where no index comes twice.
pub fn scatter_rows(g: &Tensor, indices: &[i64], y: &Tensor) -> Result<()> {
    let (rows, d, k) = check(y, g, indices)?;
    by_size(g, y, rows, |from, to, row, size| {
        let at = &indices[row * k..(row + 1) * k];
        // SAFETY: row `row` of `y`.
        unsafe { std::ptr::write_bytes(to.at(row * d * size), 0, d * size) };
        for (j, &i) in at.iter().enumerate() {
            let i = (i as usize).min(d - 1);
            // SAFETY: as in `gather_rows`.
            unsafe {
                let value = from.at((row * k + j) * size);
                std::ptr::copy_nonoverlapping(value, to.at((row * d + i) * size), size);
            }
        }
    })
}

fn by_size(
    from: &Tensor,
    to: &Tensor,
    rows: usize,
    body: impl Fn(pool::Shared<u8>, pool::Shared<u8>, usize, usize) + Sync,
) -> Result<()> {
    if !to.writable() {
        return Err(Error::Value("the output is read-only".into()));
    }
    let size = from.dtype().size();
    let (a, b) = (pool::Shared(from.as_ptr()), pool::Shared(to.as_ptr()));
    let work = from.len().max(to.len());
    // groups of rows, so that short rows do not pay for a block each
    let group = (TILE * rows / work.max(1)).max(1);
    pool::run(rows.div_ceil(group), work, |g| {
        for row in g * group..rows.min((g + 1) * group) {
            match size {
                2 => body(a, b, row, 2),
                4 => body(a, b, row, 4),
                _ => body(a, b, row, size),
            }
        }
    })
}
