//! Items in the order of their keys. The one rule: of equal keys the first comes first, so an order by two keys is made by the
//! second and then by the first.
//!
//! Digits of 11 bits, of the 33 highest bits in which keys differ at all: that tells most numbers apart, whatever their type. Runs
//! of those that it does not tell apart are put in order by what is left.

use super::keys::Key;
use base::store::{Bf16, F16, Store};
use base::{Result, try_vec};

const BITS: u32 = 11;
const DIGITS: usize = 3;
/// Items for which tables of digits are not worth it.
const FEW: usize = 1 << 8;

/// Sorts `items` by `key`.
pub fn sort<T: Copy>(items: &mut [T], key: impl Fn(&T) -> u64) -> Result<()> {
    if items.len() <= FEW {
        items.sort_by_key(key);
        return Ok(());
    }
    let mut other = try_vec(items.len(), items[0])?;
    by_digits(items, &mut other, &key)
}

/// The same, with room for as many.
fn by_digits<T: Copy>(items: &mut [T], other: &mut [T], key: &impl Fn(&T) -> u64) -> Result<()> {
    let n = items.len();
    let differ = items.iter().fold(0, |d, item| d | key(item) ^ key(&items[0]));
    let low = (64 - differ.leading_zeros()).saturating_sub(BITS * DIGITS as u32);
    let digit = |item: &T, d: usize| (key(item) >> (low + BITS * d as u32)) as usize % (1 << BITS);
    let mut tables = try_vec(DIGITS << BITS, 0usize)?;
    for item in items.iter() {
        for d in 0..DIGITS {
            tables[d << BITS | digit(item, d)] += 1;
        }
    }
    let (mut from, mut to, mut turns) = (&mut *items, &mut *other, 0);
    for (d, table) in tables.chunks_exact_mut(1 << BITS).enumerate() {
        if table[digit(&from[0], d)] == n {
            continue;
        }
        let mut next = 0;
        for slot in table.iter_mut() {
            (*slot, next) = (next, next + *slot);
        }
        for item in from.iter() {
            let slot = &mut table[digit(item, d)];
            to[*slot] = *item;
            *slot += 1;
        }
        (from, to, turns) = (to, from, turns + 1);
    }
    if turns % 2 == 1 {
        items.copy_from_slice(other);
    }
    if low == 0 {
        return Ok(());
    }
    let mut first = 0;
    for end in 1..=n {
        if end < n && key(&items[end]) >> low == key(&items[first]) >> low {
            continue;
        }
        let run = &mut items[first..end];
        if run.len() > FEW {
            by_digits(run, &mut other[first..end], key)?;
        } else if run.len() > 1 {
            run.sort_by_key(key);
        }
        first = end;
    }
    Ok(())
}

/// A number that has a place among others of its type.
pub trait Ranked: Copy {
    /// None of what has no place.
    fn rank(self) -> Option<u64>;
}

macro_rules! ranked { ([$($float:ty => $bits:ty: |$v:ident| $wide:expr;)*] [$($int:ty)*]) => {
    $(impl Ranked for $float {
        #[inline(always)]
        fn rank(self) -> Option<u64> {
            let $v = self;
            let wide = $wide;
            // no number is its own negative but 0, whose keys are one
            let bits = <$bits as Key>::signed(wide.to_bits());
            if wide.is_nan() { None } else { Some(u64::from(bits)) }
        }
    })*
    $(impl Ranked for $int {
        #[inline(always)]
        fn rank(self) -> Option<u64> {
            Some(i64::from(self) as u64 ^ 1 << 63)
        }
    })*
} }
ranked! {
    [f64 => u64: |v| v; f32 => u32: |v| v; F16 => u32: |v| v.to_f32(); Bf16 => u32: |v| v.to_f32();]
    [i64 i32 i16 i8 u8]
}

/// How many pairs of `v` are the larger before the smaller, by merging; `v` is in order then.
pub fn inversions(v: &mut Vec<u32>) -> Result<u64> {
    let mut found = 0;
    for leaf in v.chunks_mut(LEAF) {
        for end in 1..leaf.len() {
            let (x, mut at) = (leaf[end], end);
            while at > 0 && leaf[at - 1] > x {
                leaf[at] = leaf[at - 1];
                at -= 1;
            }
            leaf[at] = x;
            found += (end - at) as u64;
        }
    }
    let (n, mut size) = (v.len(), LEAF);
    let mut other = try_vec(if n > LEAF { n } else { 0 }, 0)?;
    while size < n {
        for (from, to) in v.chunks(2 * size).zip(other.chunks_mut(2 * size)) {
            let (left, right) = from.split_at(size.min(from.len()));
            found += if left.len() == right.len() { halves(left, right, to) } else { merge(left, right, to) };
        }
        std::mem::swap(v, &mut other);
        size *= 2;
    }
    Ok(found)
}

/// Numbers that are put in order one by one.
const LEAF: usize = 8;

/// A number from the right moves before as many as are left of the larger ones on the left.
fn merge(left: &[u32], right: &[u32], to: &mut [u32]) -> u64 {
    let (mut i, mut j, mut found) = (0, 0, 0);
    while i < left.len() && j < right.len() {
        if right[j] < left[i] {
            to[i + j] = right[j];
            found += (left.len() - i) as u64;
            j += 1;
        } else {
            to[i + j] = left[i];
            i += 1;
        }
    }
    to[i + j..j + left.len()].copy_from_slice(&left[i..]);
    to[j + left.len()..].copy_from_slice(&right[j..]);
    found
}

/// [`merge`] of equally many, from both ends at once: neither waits for the other, or ends before all is in place.
///
/// From the end, a number from the right was moved before those of the left that came already.
fn halves(left: &[u32], right: &[u32], to: &mut [u32]) -> u64 {
    let n = left.len();
    let (low, high) = to.split_at_mut(n);
    // how many of the left came from the front and from the back; of the right it is the rest
    let (mut front, mut back, mut found) = (0, 0, 0u64);
    for (k, (first, last)) in low.iter_mut().zip(high.iter_mut().rev()).enumerate() {
        let (a, b) = (left[front], right[k - front]);
        let right_first = b < a;
        *first = if right_first { b } else { a };
        found += if right_first { (n - front) as u64 } else { 0 };
        front += usize::from(!right_first);
        let (a, b) = (left[n - 1 - back], right[n - 1 - (k - back)]);
        let left_last = a > b;
        *last = if left_last { a } else { b };
        found += if left_last { 0 } else { back as u64 };
        back += usize::from(left_last);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(n: usize, below: u64) -> Vec<u64> {
        let mut state = 1u64;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 1) % below
            })
            .collect()
    }

    #[test]
    fn equal_keys_stay_in_their_order() {
        for n in [0, 1, 5, FEW, FEW + 1, 5000] {
            for below in [1, 7, 1 << 20, 1 << 40, u64::MAX] {
                // few different upper halves too, in whose runs the lower ones decide
                let upper = drawn(n, below).into_iter().map(|k| if n % 2 == 0 { k } else { (k % 3) << 60 | k >> 4 });
                let mut items = upper.enumerate().map(|(i, k)| (k, i)).collect::<Vec<_>>();
                let mut want = items.clone();
                want.sort_unstable();
                sort(&mut items, |item| item.0).unwrap();
                assert_eq!(items, want);
            }
        }
    }

    #[test]
    fn inversions_are_those_of_all_pairs() {
        for n in [0, 1, 2, LEAF, LEAF + 1, 2 * LEAF + 1, 1000] {
            for below in [1, 3, 1 << 30] {
                let mut v = drawn(n, below).into_iter().map(|v| v as u32).collect::<Vec<_>>();
                let want = (0..n).map(|j| v[..j].iter().filter(|&&a| a > v[j]).count() as u64).sum::<u64>();
                assert_eq!(inversions(&mut v).unwrap(), want);
                assert!(v.is_sorted());
            }
        }
    }

    #[test]
    fn ranks_are_in_the_order_of_numbers() {
        let floats = [f64::NEG_INFINITY, -1e300, -1.0, -1e-320, 0.0, 1e-320, 1.0, f64::INFINITY];
        assert!(floats.windows(2).all(|w| w[0].rank() < w[1].rank()));
        assert_eq!((-0.0f64).rank(), 0.0f64.rank());
        assert!(f64::NAN.rank().is_none() && (-f32::NAN).rank().is_none());
        assert!([i64::MIN, -1, 0, i64::MAX].windows(2).all(|w| w[0].rank() < w[1].rank()));
    }
}
