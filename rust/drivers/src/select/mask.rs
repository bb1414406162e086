//! Masks of what lies above a threshold. The one rule: of the keys equal to it exactly as many are in as the caller says,
//! the first ones (or the last) in flat order, whatever block they fall into.

use super::count::Tally;
use super::keys::{Key, Load, Order, with_key};
use super::{BLOCK, TILE};
use base::simd::{Kernel, Simd, dispatch};
use base::{Dtype, Error, Result, Tensor, pool, try_vec};

/// The threshold of one array and how many of its equals are in.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub threshold: i64,
    pub keep: u64,
    /// The last of the equals instead of the first.
    pub high: bool,
}

/// One byte per element, as a bool array has; a byte that is not 0 is true.
pub fn bools<'a>(t: &Tensor<'a>) -> Result<&'a [u8]> {
    if t.dtype() != Dtype::Bool {
        return Err(Error::Type(format!("expected bool, got {}", t.dtype().name())));
    }
    if t.is_empty() {
        return Ok(&[]);
    }
    // SAFETY: a bool array is `len` bytes, alive for 'a.
    Ok(unsafe { std::slice::from_raw_parts(t.as_ptr(), t.len()) })
}

/// As [`bools`], for writing; only 0 and 1 may be written.
#[allow(clippy::mut_from_ref)]
pub fn bools_mut<'a>(t: &Tensor<'a>) -> Result<&'a mut [u8]> {
    if !t.writable() {
        return Err(Error::Value("the output is read-only".into()));
    }
    if t.dtype() != Dtype::Bool {
        return Err(Error::Type(format!("expected bool, got {}", t.dtype().name())));
    }
    if t.is_empty() {
        return Ok(&mut []);
    }
    // SAFETY: as in `bools`; the border hands out each output once.
    Ok(unsafe { std::slice::from_raw_parts_mut(t.as_ptr(), t.len()) })
}

struct Write<'a, K> {
    keys: &'a [K],
    out: &'a mut [u8],
    threshold: K,
    /// Whether the equals are in, for now all of them.
    equals: bool,
}

impl<K: Key> Kernel for Write<'_, K> {
    type Output = (i64, i64);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (i64, i64) {
        let Write { keys, out, threshold, equals } = self;
        if equals {
            for (to, &key) in out.iter_mut().zip(keys) {
                *to = u8::from(key >= threshold);
            }
        } else {
            for (to, &key) in out.iter_mut().zip(keys) {
                *to = u8::from(key > threshold);
            }
        }
        Tally { keys, threshold }.run(s)
    }
}

/// Writes the mask of `x`; says how many keys lie above the threshold and how many are equal to it.
pub fn mask(x: &Tensor, order: Order, cut: Cut, out: &mut [u8]) -> Result<(i64, i64)> {
    order.check(x)?;
    if out.len() != x.len() {
        return Err(Error::Value(format!("the mask has {} elements, the array {}", out.len(), x.len())));
    }
    with_key!(order, K => keys::<K>(x, order, cut, out))
}

fn keys<K: Load>(x: &Tensor, order: Order, cut: Cut, out: &mut [u8]) -> Result<(i64, i64)> {
    let n = x.len();
    let threshold = K::narrow(cut.threshold as u64);
    let out = pool::Shared(out.as_mut_ptr());
    let tiles = |b: usize| (b * BLOCK..n.min((b + 1) * BLOCK)).step_by(TILE);
    let counts = pool::map(n.div_ceil(BLOCK), n, |b| {
        let mut sum = (0, 0);
        let mut tile = [K::ZERO; TILE];
        for start in tiles(b) {
            let keys = &mut tile[..TILE.min(n - start)];
            K::load(x, start, order, keys);
            // SAFETY: the elements of this block, which no other block touches.
            let out = unsafe { out.part(start, keys.len()) };
            let equals = cut.keep > 0;
            let (above, equal) = dispatch(Write { keys, out, threshold, equals });
            sum = (sum.0 + above, sum.1 + equal);
        }
        sum
    })?;
    let above = counts.iter().map(|c| c.0).sum();
    let equal: i64 = counts.iter().map(|c| c.1).sum();
    if cut.keep == 0 || cut.keep >= equal as u64 {
        return Ok((above, equal));
    }
    // some of the equals go: those whose place among them lies outside `kept`
    let keep = cut.keep as i64;
    let kept = if cut.high { equal - keep..equal } else { 0..keep };
    let mut places = try_vec(counts.len() + 1, 0)?;
    for (b, c) in counts.iter().enumerate() {
        places[b + 1] = places[b] + c.1;
    }
    pool::run(n.div_ceil(BLOCK), n, |b| {
        let (first, last) = (places[b], places[b + 1]);
        if first == last || (kept.start <= first && last <= kept.end) {
            return;
        }
        let mut place = first;
        let mut tile = [K::ZERO; TILE];
        for start in tiles(b) {
            let keys = &mut tile[..TILE.min(n - start)];
            K::load(x, start, order, keys);
            // SAFETY: as above.
            let out = unsafe { out.part(start, keys.len()) };
            for (to, &key) in out.iter_mut().zip(keys.iter()) {
                if key == threshold {
                    *to = u8::from(kept.contains(&place));
                    place += 1;
                }
            }
        }
    })?;
    Ok((above, equal))
}

/// y = x where the mask is true, +0 elsewhere, whatever x is there.
struct Apply<'a, T> {
    x: Option<&'a [T]>,
    mask: &'a [u8],
    y: &'a mut [T],
}

impl<T: Copy + Default> Kernel for Apply<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        match self.x {
            Some(x) => {
                for ((y, &m), &x) in self.y.iter_mut().zip(self.mask).zip(x) {
                    *y = if m == 0 { T::default() } else { x };
                }
            }
            None => {
                for (y, &m) in self.y.iter_mut().zip(self.mask) {
                    *y = if m == 0 { T::default() } else { *y };
                }
            }
        }
    }
}

/// Writes `x` into `y` with +0 where the mask is false; `y` may be `x` itself.
pub fn apply(x: &Tensor, mask: &Tensor, y: &Tensor) -> Result<()> {
    let (dtype, n) = (x.dtype(), x.len());
    let m = bools(mask)?;
    if y.dtype() != dtype {
        return Err(Error::Type(format!("expected {}, got {}", dtype.name(), y.dtype().name())));
    }
    if m.len() != n || y.len() != n {
        return Err(Error::Value(format!("the array has {n} elements, the mask {}, the output {}", m.len(), y.len())));
    }
    if !y.writable() {
        return Err(Error::Value("the output is read-only".into()));
    }
    match dtype.size() {
        1 => bits::<u8>(x, m, y),
        2 => bits::<u16>(x, m, y),
        4 => bits::<u32>(x, m, y),
        _ => bits::<u64>(x, m, y),
    }
}

fn bits<T: Copy + Default + Send + Sync>(x: &Tensor, mask: &[u8], y: &Tensor) -> Result<()> {
    let n = mask.len();
    let same = x.as_ptr() == y.as_ptr();
    let from = pool::Shared(x.as_ptr().cast::<T>());
    let to = pool::Shared(y.as_ptr().cast::<T>());
    pool::run(n.div_ceil(BLOCK), n, |b| {
        let (start, len) = (b * BLOCK, BLOCK.min(n - b * BLOCK));
        // SAFETY: both arrays have `n` elements of this size and each block its own; where they are one array only the
        // writable view is made.
        let (x, y) = unsafe {
            let x = (!same).then(|| &*from.part(start, len));
            (x, to.part(start, len))
        };
        let mask = &mask[start..start + len];
        dispatch(Apply { x, mask, y });
    })
}
