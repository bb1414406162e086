//! Which rows of bytes are equal. The one rule: keys only tell where to look, rows themselves are compared.

use base::{Error, Result, Scalar, Tensor, try_vec};
use drivers::blocks;

/// 64 bits of a row, words of eight bytes after one another; the highest depend on all of it.
#[inline(always)]
fn key(row: &[u8]) -> u64 {
    let mix = |key: u64, word: u64| {
        let key = (key ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        key ^ key >> 29
    };
    let (words, rest) = row.as_chunks::<8>();
    let whole = words.iter().fold(0, |key, word| mix(key, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(whole, u64::from_le_bytes(last)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// rows `[n, w]`; the number of each row among the different ones in the order in which they come, the first row of each and how
/// many rows it is, -1 and 0 where there are no more, and how many different ones there are.
pub fn groups(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    let (rows, n, w) = (t[0].slice::<u8>()?, t[0].shape()[0], t[0].shape()[1]);
    for (name, t, len) in [("ids", &t[1], n), ("first", &t[2], n), ("counts", &t[3], n), ("different", &t[4], 1)] {
        t.expect(name, len)?;
    }
    let (ids, first, counts) = (t[1].slice_mut::<i64>()?, t[2].slice_mut::<i64>()?, t[3].slice_mut::<i64>()?);
    if n >= u32::MAX as usize {
        return Err(Error::Value(format!("{n} rows are more than are told apart, 2^32 - 2")));
    }
    let row = |i: usize| &rows[i * w..(i + 1) * w];
    let mut keys = try_vec(n, 0u64)?;
    blocks::fill(&mut keys, 1, w.max(1), |from, keys| {
        keys.iter_mut().enumerate().for_each(|(i, k)| *k = key(row(from + i)));
        Ok(())
    })?;
    first.fill(-1);
    counts.fill(0);
    // half of the places are free, so that the next free one is near; 0 is free, other numbers are of the different rows, from 1
    let bits = (2 * n.max(1)).next_power_of_two().trailing_zeros();
    let (mut places, mut different) = (try_vec(1usize << bits, 0u32)?, 0);
    for i in 0..n {
        let mut at = (keys[i] >> (64 - bits)) as usize;
        let id = loop {
            match places[at] {
                0 => {
                    (first[different], different) = (i as i64, different + 1);
                    places[at] = different as u32;
                    break different - 1;
                }
                id => {
                    let (id, of) = (id as usize - 1, first[id as usize - 1] as usize);
                    if keys[of] == keys[i] && row(of) == row(i) {
                        break id;
                    }
                }
            }
            at = (at + 1) % places.len();
        };
        ids[i] = id as i64;
        counts[id] += 1;
    }
    t[4].slice_mut::<i64>()?[0] = different as i64;
    Ok(())
}
