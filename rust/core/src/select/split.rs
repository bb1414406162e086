//! One read instead of three, for a threshold that is known to within a window. The one rule: what lies outside the window
//! is decided at once; what lies inside is listed, so that the caller selects exactly among the few.

use super::BLOCK;
use super::keys::{Key, Nan, Order, part, with_key};
use crate::simd::{Kernel, Simd, dispatch};
use crate::{Error, Result, Tensor, pool};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What [`split`] counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    pub below: usize,
    pub inside: usize,
    pub nonfinite: bool,
}

struct Split<'a, K> {
    /// The numbers as they lie in memory: keys only in registers, since this read is the whole cost.
    bits: &'a [K],
    out: &'a mut [u8],
    lo: K,
    hi: K,
    /// Place in the block and key of what is inside the window.
    list: &'a mut Vec<(u32, K)>,
    /// How many may still be listed.
    room: &'a AtomicUsize,
}

/// Keys above the window, keys from its lower end on, and the largest key.
#[derive(Clone, Copy)]
struct Seen<K>(usize, usize, K);

impl<K: Key> Split<'_, K> {
    #[inline(always)]
    fn chunk(&mut self, at: usize, bits: &[K], out: &mut [u8], seen: &mut Seen<K>) -> Option<()> {
        let (mut above, mut from_lo, mut top) = (K::ZERO, K::ZERO, seen.2);
        for (to, bits) in out.iter_mut().zip(bits) {
            let key = bits.magnitude();
            *to = u8::from(key > self.hi);
            above = above.count(key > self.hi);
            from_lo = from_lo.count(key >= self.lo);
            top = top.max(key);
        }
        let (above, from_lo) = (above.wide() as usize, from_lo.wide() as usize);
        *seen = Seen(seen.0 + above, seen.1 + from_lo, top);
        let inside = from_lo - above;
        let fits = |room: usize| room.checked_sub(inside);
        if inside > 0 && self.room.fetch_update(Relaxed, Relaxed, fits).is_ok() {
            self.list.try_reserve(inside).ok()?;
            for (i, bits) in bits.iter().enumerate() {
                let key = bits.magnitude();
                if (self.lo..=self.hi).contains(&key) {
                    self.list.push(((at + i) as u32, key));
                }
            }
        }
        Some(())
    }
}

impl<K: Key> Kernel for Split<'_, K> {
    /// Nothing if there was no memory for the list.
    type Output = Option<Seen<K>>;
    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) -> Self::Output {
        let mut seen = Seen(0, 0, K::ZERO);
        let (chunks, rest) = self.bits.as_chunks::<64>();
        let (out, out_rest) = std::mem::take(&mut self.out).as_chunks_mut::<64>();
        for (c, (bits, out)) in chunks.iter().zip(out).enumerate() {
            self.chunk(64 * c, bits, out, &mut seen)?;
        }
        self.chunk(64 * chunks.len(), rest, out_rest, &mut seen)?;
        Some(seen)
    }
}

/// Writes the mask of what lies above the window `lo..=hi` of keys, and lists the places and the keys (as i64 bit
/// patterns) of what lies inside, ascending in place; the lists mean nothing if more is inside than they hold.
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
    let room = &AtomicUsize::new(places.len());
    let parts = pool::map(n.div_ceil(BLOCK), n, |b| {
        let (start, len) = (b * BLOCK, BLOCK.min(n - b * BLOCK));
        let mut list = Vec::new();
        let seen = dispatch(Split {
            bits: part(x, start, len),
            // SAFETY: the elements of this block, which no other block touches.
            out: unsafe { out.part(start, len) },
            lo,
            hi,
            list: &mut list,
            room,
        });
        seen.map(|seen| (list, seen)).ok_or(Error::Memory(BLOCK))
    })?;
    let (mut found, mut listed) = (Found::default(), 0);
    for (b, part) in parts.into_iter().enumerate() {
        let (list, Seen(above, from_lo, top)) = part?;
        for ((place, key), (to, to_key)) in list.iter().zip(places[listed..].iter_mut().zip(&mut keys[listed..])) {
            *to = (b * BLOCK) as i64 + i64::from(*place);
            *to_key = key.wide() as i64;
        }
        listed += list.len();
        found.inside += from_lo - above;
        found.below += BLOCK.min(n - b * BLOCK) - from_lo;
        found.nonfinite |= top.wide() >= order.infinity();
    }
    Ok(found)
}
