//! One read instead of three, for a threshold that is known to within a window. The one rule: what lies outside the window
//! is decided at once; what lies inside is listed, so that the caller selects exactly among the few.

use super::BLOCK;
use super::keys::{self, Key, Nan, Order, with_key};
use base::simd::{Kernel, Simd, dispatch};
use base::{Error, Result, Tensor, pool};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What [`split`] counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    pub below: usize,
    pub inside: usize,
    pub nonfinite: bool,
}

/// Elements between two searches for marks: the mask is still in the first-level cache.
const STEP: usize = 4096;

/// What is inside the window, in the mask, until it is listed.
const INSIDE: u8 = 2;

struct Split<'a, K> {
    /// The numbers as they lie in memory: keys only in registers, since this read is the whole cost.
    bits: &'a [K],
    out: &'a mut [u8],
    lo: K,
    hi: K,
}

impl<K: Key> Kernel for Split<'_, K> {
    /// Keys above the window, and the largest key.
    type Output = (usize, K);
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Self::Output {
        let (mut above, mut top) = (K::ZERO, K::ZERO);
        for (to, bits) in self.out.iter_mut().zip(self.bits) {
            let key = bits.magnitude();
            let (over, from_lo) = (key > self.hi, key >= self.lo);
            // 0 below, 1 above, INSIDE = 2·1 − 0 between
            *to = INSIDE * u8::from(from_lo) - u8::from(over);
            above = above.count(over);
            top = top.max(key);
        }
        (above.wide() as usize, top)
    }
}

/// Clears the marks of what is inside the window, and calls `found` with each place.
#[inline]
fn marks(out: &mut [u8], mut found: impl FnMut(usize)) {
    const EACH: u64 = u64::from_ne_bytes([INSIDE; 8]);
    let (words, rest) = out.as_chunks_mut::<8>();
    for (w, word) in words.iter_mut().enumerate() {
        let marked = u64::from_le_bytes(*word);
        let mut left = marked & EACH;
        if left != 0 {
            *word = (marked & !EACH).to_le_bytes();
            while left != 0 {
                found(8 * w + left.trailing_zeros() as usize / 8);
                left &= left - 1;
            }
        }
    }
    let at = 8 * words.len();
    for (i, byte) in rest.iter_mut().enumerate() {
        if *byte == INSIDE {
            *byte = 0;
            found(at + i);
        }
    }
}

/// What a block found; `list` holds places in the block and keys.
struct Part<K> {
    list: Vec<(u32, K)>,
    above: usize,
    inside: usize,
    top: K,
}

/// Writes the mask of what lies above the window `lo..=hi` of keys, and lists the places and the keys (as i64 bit
/// patterns) of what lies inside, ascending in place; -1 after them, and everywhere if more is inside than they hold.
/// Only magnitudes of arrays of the format's own type.
pub fn split(
    x: &Tensor,
    order: Order,
    (lo, hi): (i64, i64),
    out: &mut [u8],
    places: &mut [i64],
    keys: &mut [i64],
) -> Result<Found> {
    order.check(x)?;
    if order.signed || order.nan != Nan::Bits || 8 * x.dtype().size() != order.format.bits() as usize {
        return Err(Error::Value("only magnitudes of arrays of one type are split".into()));
    }
    if lo as u64 > hi as u64 {
        return Err(Error::Value(format!("the window {lo:#x}..={hi:#x} is empty")));
    }
    if out.len() != x.len() || places.len() != keys.len() {
        return Err(Error::Value(format!(
            "the mask has {} elements, the array {}; {} places, {} keys",
            out.len(),
            x.len(),
            places.len(),
            keys.len()
        )));
    }
    with_key!(order, K => blocks::<K>(x, order, (K::narrow(lo as u64), K::narrow(hi as u64)), out, places, keys))
}

fn blocks<K: Key>(
    x: &Tensor,
    order: Order,
    (lo, hi): (K, K),
    out: &mut [u8],
    places: &mut [i64],
    keys: &mut [i64],
) -> Result<Found> {
    let n = x.len();
    let out = pool::Shared(out.as_mut_ptr());
    let (room, inside) = (places.len(), AtomicUsize::new(0));
    let parts = pool::map(n.div_ceil(BLOCK), n, |b| {
        let (first, end) = (b * BLOCK, n.min((b + 1) * BLOCK));
        let mut part = Part { list: Vec::new(), above: 0, inside: 0, top: K::ZERO };
        let mut listed = [(0, K::ZERO); STEP];
        for start in (first..end).step_by(STEP) {
            let bits = keys::part::<K>(x, start, STEP.min(end - start));
            // SAFETY: the elements of this block, which no other block touches.
            let out = unsafe { out.part(start, bits.len()) };
            let (above, top) = dispatch(Split { bits, out, lo, hi });
            part.above += above;
            part.top = part.top.max(top);
            let mut found = 0;
            marks(out, |i| {
                listed[found] = ((start - first + i) as u32, bits[i].magnitude());
                found += 1;
            });
            part.inside += found;
            if inside.fetch_add(found, Relaxed) + found <= room {
                part.list.try_reserve_exact(found).map_err(|_| Error::Memory(BLOCK))?;
                part.list.extend_from_slice(&listed[..found]);
            }
        }
        Ok(part)
    })?;
    let (mut found, mut listed, mut above) = (Found::default(), 0, 0);
    for (b, part) in parts.into_iter().enumerate() {
        let part = part?;
        let slots = places[listed..].iter_mut().zip(&mut keys[listed..]);
        for ((place, key), (to, to_key)) in part.list.iter().zip(slots) {
            *to = (b * BLOCK) as i64 + i64::from(*place);
            *to_key = key.wide() as i64;
        }
        listed += part.list.len();
        above += part.above;
        found.inside += part.inside;
        found.nonfinite |= part.top.wide() >= order.infinity();
    }
    found.below = n - above - found.inside;
    if found.inside > room {
        listed = 0;
    }
    places[listed..].fill(-1);
    keys[listed..].fill(-1);
    Ok(found)
}
