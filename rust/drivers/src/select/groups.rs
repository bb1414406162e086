//! The n largest of each group of m neighbours. The one rule: a group selects exactly n, and of equals the lowest index.
//!
//! The rank of an element is how many of its group come before it in the order of selection. Sixty-four keys, as many whole
//! groups as they hold, are compared with those r further on, for each r < m: one bit each says which of the two is beaten. The
//! bits are added up by place, the sixty-four counts side by side in words, one for each binary digit.

use super::BLOCK;
use super::keys::{Load, Nan, Order, finite, with_key};
use base::simd::*;
use base::{Error, Result, Tensor, pool};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The most elements of a group.
pub const MOST: usize = 16;
/// Keys that are compared at once: the bits of a word.
const WORD: usize = 64;
/// Keys that are made at once.
pub(super) const TILE: usize = 32 * WORD;
/// Binary digits of a rank.
const DIGITS: usize = MOST.ilog2() as usize;

/// A key that is compared sixty-four at a time.
trait Above: Load {
    /// Bit i: whether `a[i] > b[i]`.
    fn above<S: Simd>(s: S, a: &[Self; WORD], b: &[Self; WORD]) -> u64;
}
macro_rules! above { ($($t:ty: $v:ident;)*) => { $(
    impl Above for $t {
        #[inline(always)]
        fn above<S: Simd>(s: S, a: &[$t; WORD], b: &[$t; WORD]) -> u64 {
            const LANES: usize = 64 / size_of::<$t>();
            let mut bits = 0;
            for (i, (a, b)) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)).enumerate() {
                bits |= $v::from_slice(s, a).simd_gt($v::from_slice(s, b)).to_bitmask() << (i * LANES);
            }
            bits
        }
    }
)* } }
above! { u16: u16x32; u32: u32x16; u64: u64x8; }

struct Rank<'a, K> {
    /// As many as the mask has, and `WORD + MOST` that are any.
    keys: &'a [K],
    mask: &'a mut [u8],
    /// Bit i of word r: whether element i and the one r after it are of one group.
    inside: &'a [u64; MOST],
    n: usize,
    m: usize,
}

/// Adds two bits to each of sixty-four counts.
#[inline(always)]
fn add(counts: &mut [u64], a: u64, b: u64) {
    let (one, mut carry) = (a ^ b, a & b);
    if let Some((first, rest)) = counts.split_first_mut() {
        carry |= *first & one;
        *first ^= one;
        for count in rest {
            let more = *count & carry;
            *count ^= carry;
            carry = more;
        }
    }
}

/// Which of sixty-four counts are below n.
#[inline(always)]
fn below(counts: &[u64], n: usize) -> u64 {
    if n >> counts.len() != 0 {
        return u64::MAX;
    }
    let (mut less, mut equal) = (0, u64::MAX);
    for (digit, count) in counts.iter().enumerate().rev() {
        if n >> digit & 1 == 1 {
            less |= equal & !count;
            equal &= count;
        } else {
            equal &= !count;
        }
    }
    less
}

impl<K: Above> Rank<'_, K> {
    /// `M` is m where it is not 0.
    #[inline(always)]
    fn walk<S: Simd, const M: usize>(self, s: S) {
        let Rank { keys, mask, inside, n, m } = self;
        let m = if M == 0 { m } else { M };
        let (digits, lanes) = ((m - 1).checked_ilog2().map_or(0, |d| d as usize + 1), WORD / m * m);
        for (keys, mask) in keys.windows(WORD + MOST).step_by(lanes).zip(mask.chunks_mut(lanes)) {
            let own = keys.first_chunk::<WORD>().expect("a window");
            let mut counts = [0; DIGITS];
            for r in 1..m {
                let other = keys[r..].first_chunk::<WORD>().expect("a window");
                let beaten = K::above(s, other, own) & inside[r];
                add(&mut counts[..digits], beaten, (beaten ^ inside[r]) << r);
            }
            let kept = mask8x64::from_bitmask(s, below(&counts[..digits], n));
            let bytes = kept.select(u8x64::splat(s, 1), u8x64::splat(s, 0));
            if mask.len() == WORD {
                bytes.store_slice(mask);
            } else {
                let mut room = [0; WORD];
                bytes.store_slice(&mut room);
                mask.copy_from_slice(&room[..mask.len()]);
            }
        }
    }
}

impl<K: Above> Kernel for Rank<'_, K> {
    /// The largest key.
    type Output = K;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> K {
        let mut most = K::ZERO;
        for &key in &self.keys[..self.mask.len()] {
            most = most.max(key);
        }
        match self.m {
            2 => self.walk::<S, 2>(s),
            4 => self.walk::<S, 4>(s),
            _ => self.walk::<S, 0>(s),
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

fn keys<K: Above>(x: &Tensor, order: Order, [n, m]: [usize; 2], mask: &mut [u8]) -> Result<()> {
    // magnitudes rank what is not finite above all else; the least value is no largest key
    let refuse = order.nan == Nan::Bits;
    let mut fine = !(refuse && order.signed) || finite(x)?;
    let bad = AtomicBool::new(false);
    let (lanes, mut inside) = (WORD / m * m, [0; MOST]);
    for (r, bits) in inside.iter_mut().enumerate() {
        *bits = (0..lanes).filter(|i| i % m + r < m).fold(0, |bits, i| bits | 1 << i);
    }
    let (tile, step, out) = (TILE / lanes * lanes, BLOCK / lanes * lanes, pool::Shared(mask.as_mut_ptr()));
    pool::run(x.len().div_ceil(step), x.len(), |b| {
        let (mut keys, mut most) = ([K::ZERO; TILE + WORD + MOST], K::ZERO);
        for at in (b * step..x.len().min((b + 1) * step)).step_by(tile) {
            let len = tile.min(x.len() - at).min((b + 1) * step - at);
            K::load(x, at, order, &mut keys[..len]);
            // SAFETY: whole groups of this block, which no other block has.
            let mask = unsafe { out.part(at, len) };
            most = most.max(dispatch(Rank { keys: &keys[..len + WORD + MOST], mask, inside: &inside, n, m }));
        }
        bad.fetch_or(most.wide() >= order.infinity(), Relaxed);
    })?;
    fine &= !(refuse && bad.into_inner());
    if fine { Ok(()) } else { Err(Error::Value("non-finite values in x".into())) }
}
