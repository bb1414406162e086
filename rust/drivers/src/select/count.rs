//! Histograms of digits, and how many keys lie above a threshold. The one rule: the results are sums of ones, the same
//! for any order of blocks, so threads share nothing but the final addition.

use super::keys::{Key, Load, Order, with_key};
use super::{BLOCK, TILE};
use base::simd::{Kernel, Simd, dispatch};
use base::{Error, Result, Tensor, pool, try_vec};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Elements counted into one histogram before another thread may take the next ones.
const SPAN: usize = 1 << 19;

/// Arrays up to this size are counted straight into the result: clearing and adding a histogram would cost as much.
const SMALL: usize = 1 << 17;

/// Copies of a histogram that neighbours are counted into in turn: the processor cannot load a counter that it is just
/// storing, and equal weights (zeros of a pruned layer) come in runs.
const COPIES: usize = 4;

/// One digit of a selection: among the keys that begin with a prefix, the `bits` bits above the lowest `shift`.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// Ascending, without the lowest `shift + bits` bits; a single 0 in the first round, where nothing is fixed yet.
    pub prefixes: &'a [i64],
    pub shift: u32,
    pub bits: u32,
}

impl Round<'_> {
    /// Whether such a digit exists and `counts` holds its histograms.
    pub fn check(&self, order: Order, counts: usize) -> Result<()> {
        let (p, tail) = (self.prefixes, self.shift.saturating_add(self.bits));
        let width = order.format.bits();
        if !(1..=16).contains(&self.bits) || tail > width {
            return Err(Error::Value(format!(
                "a digit is 1 to 16 of the {width} bits of a key, got {} above {}",
                self.bits, self.shift
            )));
        }
        let short = |&v: &i64| v >= 0 && (tail == 0 || (v as u64) < 1 << (width - tail).min(63));
        if !p.windows(2).all(|w| w[0] < w[1]) || (tail > 0 && !p.iter().all(short)) {
            return Err(Error::Value("prefixes must ascend and be prefixes of keys".into()));
        }
        if p.len().checked_mul(1 << self.bits) != Some(counts) {
            return Err(Error::Value(format!(
                "counts must hold {} × {} numbers, got {counts}",
                p.len(),
                1 << self.bits
            )));
        }
        Ok(())
    }
}

/// How a key finds its histogram.
enum Search<K> {
    /// First round: every key counts.
    All,
    One(K),
    /// `starts[t]..starts[t + 1]` are the prefixes that begin with the `top` bits of `t`.
    Many {
        starts: Vec<u32>,
        prefixes: Vec<K>,
        top: u32,
    },
}

struct Digits<K> {
    search: Search<K>,
    tail: u32,
    shift: u32,
    /// Bins of one histogram.
    size: usize,
}

impl<K: Key> Digits<K> {
    fn new(round: &Round) -> Result<Self> {
        let tail = round.shift + round.bits;
        let search = match round.prefixes {
            _ if tail == K::BITS => Search::All,
            [one] => Search::One(K::narrow(*one as u64)),
            many => {
                let top = (K::BITS - tail).min(16);
                let mut starts = try_vec((1 << top) + 1, 0_u32)?;
                let mut prefixes = try_vec(many.len(), K::ZERO)?;
                for (to, &v) in prefixes.iter_mut().zip(many) {
                    *to = K::narrow(v as u64);
                    starts[((v as u64) >> (K::BITS - tail - top)) as usize + 1] += 1;
                }
                for t in 1..starts.len() {
                    starts[t] += starts[t - 1];
                }
                Search::Many { starts, prefixes, top }
            }
        };
        Ok(Digits { search, tail, shift: round.shift, size: 1 << round.bits })
    }
}

/// Counts one tile. `bins` holds the histograms of all prefixes, once or [`COPIES`] times.
struct Count<'a, K, C> {
    keys: &'a [K],
    digits: &'a Digits<K>,
    bins: &'a mut [C],
}

impl<K: Key, C: AddAssign + From<bool>> Count<'_, K, C> {
    #[inline(always)]
    fn one(&mut self, key: K, copy: usize) {
        let size = self.digits.size;
        let digit = (key.wide() >> self.digits.shift) as usize & (size - 1);
        self.bins[copy * size + digit] += C::from(true);
    }
    #[inline(always)]
    fn each(&mut self, keys: &[K], copies: usize) {
        let mut fours = keys.chunks_exact(COPIES);
        for four in &mut fours {
            for (i, &key) in four.iter().enumerate() {
                self.one(key, i & (copies - 1));
            }
        }
        for &key in fours.remainder() {
            self.one(key, 0);
        }
    }
}

impl<K: Key, C: AddAssign + From<bool>> Kernel for Count<'_, K, C> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let Digits { search, tail, size, .. } = self.digits;
        let (tail, keys) = (*tail, self.keys);
        match search {
            Search::All => match self.bins.len() / size {
                COPIES => self.each(keys, COPIES),
                _ => self.each(keys, 1),
            },
            Search::One(prefix) => {
                let copies = if self.bins.len() / size == COPIES { COPIES } else { 1 };
                for chunk in keys.chunks(32) {
                    // few keys share a prefix: whole vectors are passed over
                    let mut hits = K::ZERO;
                    for &key in chunk {
                        hits = hits.count(key.prefix(tail) == *prefix);
                    }
                    if hits == K::ZERO {
                        continue;
                    }
                    for (i, &key) in chunk.iter().enumerate() {
                        if key.prefix(tail) == *prefix {
                            self.one(key, i & (copies - 1));
                        }
                    }
                }
            }
            Search::Many { starts, prefixes, top } => {
                for &key in keys {
                    let t = (key.wide() >> (K::BITS - top)) as usize;
                    let (lo, hi) = (starts[t] as usize, starts[t + 1] as usize);
                    if lo == hi {
                        continue;
                    }
                    if let Ok(i) = prefixes[lo..hi].binary_search(&key.prefix(tail)) {
                        self.one(key, lo + i);
                    }
                }
            }
        }
    }
}

/// A histogram that one thread holds at a time.
struct Buffer {
    bins: Vec<u32>,
    filled: usize,
}

impl Buffer {
    /// Adds the copies to `total` and starts again from zero.
    fn drain(&mut self, total: &mut [i64]) {
        for copy in self.bins.chunks_mut(total.len()) {
            for (to, from) in total.iter_mut().zip(copy) {
                *to += i64::from(std::mem::take(from));
            }
        }
        self.filled = 0;
    }
}

fn held<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds the digits of `x` to `counts`, one histogram of `2^bits` per prefix.
pub fn count(x: &Tensor, order: Order, round: &Round, counts: &mut [i64]) -> Result<()> {
    order.check(x)?;
    round.check(order, counts.len())?;
    if round.prefixes.is_empty() {
        return Ok(());
    }
    with_key!(order, K => keys::<K>(x, order, &Digits::new(round)?, counts))
}

fn keys<K: Load>(x: &Tensor, order: Order, digits: &Digits<K>, counts: &mut [i64]) -> Result<()> {
    let n = x.len();
    if n <= SMALL {
        let out = pool::Shared(counts.as_mut_ptr());
        let len = counts.len();
        return pool::run(1, 0, |_| {
            // SAFETY: one block, which has the counts to itself.
            tiles(x, 0..n, order, digits, unsafe { out.part(0, len) });
        });
    }
    // histograms of many prefixes are too large to copy, and their keys too rare to run into each other
    let copies = if counts.len() == digits.size { COPIES } else { 1 };
    let size = counts.len() * copies;
    let free: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());
    let total = Mutex::new(counts);
    let failed = Mutex::new(None);
    let take = || match held(&free).pop() {
        Some(buffer) => Ok(buffer),
        None => try_vec(size, 0_u32).map(|bins| Buffer { bins, filled: 0 }),
    };
    pool::run(n.div_ceil(SPAN), n, |b| match take() {
        Ok(mut buffer) => {
            let (from, to) = (b * SPAN, n.min((b + 1) * SPAN));
            if buffer.filled + (to - from) > u32::MAX as usize {
                buffer.drain(&mut held(&total));
            }
            tiles(x, from..to, order, digits, &mut buffer.bins);
            buffer.filled += to - from;
            held(&free).push(buffer);
        }
        Err(e) => *held(&failed) = Some(e),
    })?;
    if let Some(e) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(e);
    }
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    for buffer in &mut free.into_inner().unwrap_or_else(PoisonError::into_inner) {
        buffer.drain(total);
    }
    Ok(())
}

fn tiles<K: Load, C: AddAssign + From<bool>>(
    x: &Tensor,
    range: std::ops::Range<usize>,
    order: Order,
    digits: &Digits<K>,
    bins: &mut [C],
) {
    let mut tile = [K::ZERO; TILE];
    for start in range.clone().step_by(TILE) {
        let keys = &mut tile[..TILE.min(range.end - start)];
        K::load(x, start, order, keys);
        dispatch(Count { keys, digits, bins });
    }
}

/// Keys above and equal to a threshold in one tile.
pub(super) struct Tally<'a, K> {
    pub keys: &'a [K],
    pub threshold: K,
}

impl<K: Key> Kernel for Tally<'_, K> {
    type Output = (i64, i64);
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> (i64, i64) {
        let (mut above, mut equal) = (K::ZERO, K::ZERO);
        for &key in self.keys {
            above = above.count(key > self.threshold);
            equal = equal.count(key == self.threshold);
        }
        (above.wide() as i64, equal.wide() as i64)
    }
}

/// Adds to `tally[i]` how many keys of `x` lie above and how many are equal to `thresholds[i]`.
pub fn tally(x: &Tensor, order: Order, thresholds: &[i64], tally: &mut [i64]) -> Result<()> {
    order.check(x)?;
    if thresholds.len().checked_mul(2) != Some(tally.len()) {
        return Err(Error::Value(format!(
            "tally must hold two numbers for each of {} thresholds, got {}",
            thresholds.len(),
            tally.len()
        )));
    }
    let mut sums = Vec::new();
    sums.try_reserve_exact(tally.len()).map_err(|_| Error::Memory(tally.len().saturating_mul(8)))?;
    sums.resize_with(tally.len(), || AtomicI64::new(0));
    let n = x.len();
    with_key!(order, K => pool::run(n.div_ceil(BLOCK), n.saturating_mul(thresholds.len()), |b| {
        let mut tile = [K::ZERO; TILE];
        for start in (b * BLOCK..n.min((b + 1) * BLOCK)).step_by(TILE) {
            let keys = &mut tile[..TILE.min(n - start)];
            K::load(x, start, order, keys);
            for (t, sum) in thresholds.iter().zip(sums.chunks_exact(2)) {
                let (above, equal) = dispatch(Tally { keys, threshold: K::narrow(*t as u64) });
                sum[0].fetch_add(above, Relaxed);
                sum[1].fetch_add(equal, Relaxed);
            }
        }
    }))?;
    for (to, from) in tally.iter_mut().zip(sums) {
        *to += from.into_inner();
    }
    Ok(())
}
