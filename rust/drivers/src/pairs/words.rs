//! Different bits, counted by instructions of their own. The one rule: the counts are those of [`super::Hamming`]'s steps, and of
//! eight columns the reducer sees only what may change its state.
//!
//! Eight rows of y lie words first, so that a vector holds one word of each; a tile is eight rows of x against them, counted
//! in registers. Where VPOPCNTDQ is missing, nibbles are looked up and added as bytes (Muła, Kurz, Lemire, 2018).

use super::pack::{PANEL, transpose};
use super::{Extent, Reduce, STRIP, Score};
use base::simd::*;
#[cfg(target_arch = "x86_64")]
use base::vector::{Isa, Set};
use base::{Result, try_vec};
use std::array::from_fn;
use std::ops::Range;

/// How bits are counted here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    #[cfg(target_arch = "x86_64")]
    Popcnt512,
    #[cfg(target_arch = "x86_64")]
    Nibbles512,
    #[cfg(target_arch = "x86_64")]
    Nibbles256,
}

/// Different bits of eight rows and eight columns.
type Counts = [[u64; PANEL]; PANEL];

impl Counter {
    /// The best there is at the level in force; `None` where the steps of the score have to do.
    pub fn current() -> Option<Counter> {
        #[cfg(target_arch = "x86_64")]
        match Isa::current().0 {
            Set::Avx512 if is_x86_feature_detected!("avx512vpopcntdq") && is_x86_feature_detected!("avx512vl") => {
                return Some(Counter::Popcnt512);
            }
            Set::Avx512 if is_x86_feature_detected!("avx512bw") => return Some(Counter::Nibbles512),
            Set::Avx512 | Set::Avx2 if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") => {
                return Some(Counter::Nibbles256);
            }
            _ => {}
        }
        None
    }

    /// In bit r whether row r has a count below its limit; if any has, all counts are in `out`.
    #[inline(always)]
    fn tile(self, x: &[&[u64]; PANEL], y: &[u64], limits: &[i64; PANEL], out: &mut Counts) -> u32 {
        debug_assert!(x.iter().all(|row| row.len() * PANEL <= y.len() && row.len() == x[0].len()));
        #[cfg(target_arch = "x86_64")]
        // SAFETY: only `current` makes a counter, where the machine has its instructions; a room has rows of one length, and
        // eight packed words for each of theirs.
        unsafe {
            match self {
                Counter::Popcnt512 => x86::popcnt512(x, y, limits, out),
                Counter::Nibbles512 => x86::nibbles512(x, y, limits, out),
                Counter::Nibbles256 => x86::nibbles256(x, y, limits, out),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        match self {}
    }

    /// The counts of one row and at most eight as they lie, and whether one is below the limit.
    #[inline(always)]
    fn line(self, x: &[u64], y: &[u64], limit: i64, out: &mut [u64; PANEL]) -> u32 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        unsafe {
            match self {
                Counter::Popcnt512 => x86::line512(x, y, limit, out),
                Counter::Nibbles512 | Counter::Nibbles256 => x86::line64(x, y, limit, out),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        match self {}
    }
}

/// One block of rows of words against one chunk of columns.
pub struct Words<'a, Sc, E, R: Reduce> {
    pub counter: Counter,
    pub score: &'a Sc,
    pub extent: &'a E,
    pub reduce: &'a R,
    /// All rows of y, of `w` words.
    pub y: &'a [u64],
    pub w: usize,
    pub m: usize,
    pub rows: Range<usize>,
    pub cols: Range<usize>,
    pub room: Room<'a>,
    pub states: &'a mut [R::State],
}

/// What a block works with.
pub struct Room<'a> {
    /// Its rows, and the last one again up to a multiple of eight.
    lines: Vec<&'a [u64]>,
    /// What the reducer takes of each: counts below this; nothing of what is no row.
    limits: Vec<i64>,
    /// Eight rows of y, words first.
    packed: Vec<u64>,
}

impl<'a> Room<'a> {
    pub fn new(x: &'a [u64], w: usize, rows: Range<usize>) -> Result<Room<'a>> {
        let (padded, last) = (rows.len().next_multiple_of(PANEL), rows.end - 1);
        let mut lines: Vec<&[u64]> = try_vec(padded, &[][..])?;
        for (line, row) in lines.iter_mut().zip(rows.start..) {
            *line = &x[row.min(last) * w..][..w];
        }
        Ok(Room { lines, limits: try_vec(padded, 0)?, packed: try_vec(w.next_multiple_of(PANEL) * PANEL, 0)? })
    }
}

impl<Sc: Score, E: Extent, R: Reduce> Kernel for Words<'_, Sc, E, R> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (mut col, end, count) = (self.cols.start, self.cols.end, self.rows.len());
        let (extent, rows, w) = (self.extent, self.rows.clone(), self.w);
        // as many rows as make tiles: one or two of eight are not worth it
        let tiled = if count % PANEL > 2 { count } else { count / PANEL * PANEL };
        for (limit, state) in self.room.limits.iter_mut().zip(&*self.states) {
            *limit = self.reduce.limit(state) as i64;
        }
        let (mut counts, mut keys) = ([[0; PANEL]; PANEL], [0.0; STRIP]);
        for hull in extent.hull(rows.clone(), self.m) {
            // the panel that holds its first column, if it was not met already
            col = col.max(self.cols.start + hull.start.saturating_sub(self.cols.start) / PANEL * PANEL);
            while col < hull.end.min(end) {
                let panel = col..end.min(col + PANEL);
                if tiled > 0 {
                    turn(s, self.y, w, panel.clone(), &mut self.room.packed);
                }
                for first in (0..tiled).step_by(PANEL) {
                    let Room { lines, limits, packed } = &self.room;
                    let (x, limits) = (lines[first..].first_chunk(), limits[first..].first_chunk());
                    let (Some(x), Some(limits)) = (x, limits) else { unreachable!("rows are padded") };
                    let mut good = self.counter.tile(x, packed, limits, &mut counts);
                    while good != 0 {
                        let r = good.trailing_zeros() as usize;
                        good &= good - 1;
                        self.show(s, first + r, panel.clone(), &counts[r], &mut keys);
                    }
                }
                for row in tiled..count {
                    let y = &self.y[panel.start * w..panel.end * w];
                    if self.counter.line(self.room.lines[row], y, self.room.limits[row], &mut counts[0]) != 0 {
                        self.show(s, row, panel.clone(), &counts[0], &mut keys);
                    }
                }
                col += PANEL;
            }
        }
    }
}

impl<Sc: Score, E: Extent, R: Reduce> Words<'_, Sc, E, R> {
    /// The counts of row `at` of the block for the reducer, which may take fewer afterwards.
    #[inline(always)]
    fn show<S: Simd>(&mut self, s: S, at: usize, panel: Range<usize>, counts: &[u64; PANEL], keys: &mut [f64; STRIP]) {
        for (key, &count) in keys.iter_mut().zip(counts) {
            *key = count as f64;
        }
        let row = self.rows.start + at;
        let live = self.extent.live(row, panel.clone());
        self.reduce.update(s, self.score, &mut self.states[at], row, panel, live, keys);
        self.room.limits[at] = self.reduce.limit(&self.states[at]) as i64;
    }
}

/// Rows `panel` of y, words first; zeros past the last.
#[inline(always)]
fn turn<S: Simd>(s: S, y: &[u64], w: usize, panel: Range<usize>, out: &mut [u64]) {
    for (at, out) in (0..w).step_by(PANEL).zip(out.chunks_exact_mut(PANEL * PANEL)) {
        let eight = from_fn(
            #[inline(always)]
            |r| {
                let mut words = [0; PANEL];
                if r < panel.len() {
                    let row = &y[(panel.start + r) * w..][..w];
                    if let Some(whole) = row.get(at..at + PANEL) {
                        words.copy_from_slice(whole);
                    } else {
                        words[..w - at].copy_from_slice(&row[at..]);
                    }
                }
                let words: u64x8<S> = words.simd_into(s);
                words.bitcast()
            },
        );
        for (v, out) in transpose::<S>(eight).into_iter().zip(out.chunks_exact_mut(PANEL)) {
            let v: u64x8<S> = v.bitcast();
            v.store_slice(out);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Counts, PANEL};
    use std::arch::x86_64::*;

    macro_rules! line {
        ($name:ident, $features:literal) => {
            /// # Safety
            /// The instructions exist.
            #[target_feature(enable = $features)]
            pub unsafe fn $name(x: &[u64], y: &[u64], limit: i64, out: &mut [u64; PANEL]) -> u32 {
                // of no words all are equal
                let mut good = x.is_empty();
                out.fill(0);
                for (y, out) in y.chunks_exact(x.len().max(1)).zip(out) {
                    *out = x.iter().zip(y).map(|(x, y)| u64::from((x ^ y).count_ones())).sum();
                    good |= out.cast_signed() < limit;
                }
                u32::from(good)
            }
        };
    }
    line!(line512, "avx512f,avx512vl,avx512vpopcntdq,popcnt");
    line!(line64, "avx2,popcnt");

    /// # Safety
    /// The instructions exist; rows are of one length, y has eight words for each of a row.
    #[target_feature(enable = "avx512f,avx512vpopcntdq")]
    pub unsafe fn popcnt512(x: &[&[u64]; PANEL], y: &[u64], limits: &[i64; PANEL], out: &mut Counts) -> u32 {
        let mut sums = [_mm512_setzero_si512(); PANEL];
        for at in 0..x[0].len() {
            // SAFETY: within y, by the caller's promise; within rows of one length.
            let y = unsafe { _mm512_loadu_si512(y.as_ptr().add(at * PANEL).cast()) };
            for r in 0..PANEL {
                let x = _mm512_set1_epi64(unsafe { *x[r].get_unchecked(at) }.cast_signed());
                sums[r] = _mm512_add_epi64(sums[r], _mm512_popcnt_epi64(_mm512_xor_si512(x, y)));
            }
        }
        let mut good = 0;
        for r in 0..PANEL {
            good |= u32::from(_mm512_cmplt_epi64_mask(sums[r], _mm512_set1_epi64(limits[r])) != 0) << r;
        }
        if good != 0 {
            for r in 0..PANEL {
                // SAFETY: eight words of the array.
                unsafe { _mm512_storeu_si512(out[r].as_mut_ptr().cast(), sums[r]) };
            }
        }
        good
    }

    /// Words whose counts are added as bytes before these could overflow.
    const BYTES: usize = 31;

    macro_rules! nibbles {
        ($name:ident, $features:literal, $v:ty, $parts:literal, $some:literal; $zero:ident $load:ident $store:ident $set:ident
         $bytes:ident $table:expr; $and:ident $xor:ident $shift:ident $shuffle:ident $add8:ident $add64:ident $sad:ident
         $less:expr) => {
            /// # Safety
            /// As of [`popcnt512`].
            #[target_feature(enable = $features)]
            pub unsafe fn $name(x: &[&[u64]; PANEL], y: &[u64], limits: &[i64; PANEL], out: &mut Counts) -> u32 {
                const LANES: usize = PANEL / $parts;
                let (table, low, words, mut good) = ($table, $bytes(15), x[0].len(), 0);
                for part in 0..$parts {
                    // as many rows at a time as there are registers for
                    for first in (0..PANEL).step_by($some) {
                        let mut sums = [$zero(); $some];
                        for from in (0..words).step_by(BYTES) {
                            let mut small = [$zero(); $some];
                            for at in from..words.min(from + BYTES) {
                                // SAFETY: within y, by the caller's promise; within rows of one length.
                                let y = unsafe { $load(y.as_ptr().add(at * PANEL + part * LANES).cast()) };
                                for r in 0..$some {
                                    let x = $set(unsafe { *x[first + r].get_unchecked(at) }.cast_signed());
                                    let bits = $xor(x, y);
                                    let lower = $shuffle(table, $and(bits, low));
                                    let upper = $shuffle(table, $and($shift::<4>(bits), low));
                                    small[r] = $add8(small[r], $add8(lower, upper));
                                }
                            }
                            for r in 0..$some {
                                sums[r] = $add64(sums[r], $sad(small[r], $zero()));
                            }
                        }
                        for r in 0..$some {
                            let less: bool = $less(sums[r], $set(limits[first + r]));
                            good |= u32::from(less) << (first + r);
                            // SAFETY: LANES words of the array.
                            unsafe { $store(out[first + r].as_mut_ptr().add(part * LANES).cast(), sums[r]) };
                        }
                    }
                }
                good
            }
        };
    }
    nibbles! { nibbles256, "avx2", __m256i, 2, 4; _mm256_setzero_si256 _mm256_loadu_si256 _mm256_storeu_si256 _mm256_set1_epi64x
    _mm256_set1_epi8 _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    _mm256_and_si256 _mm256_xor_si256 _mm256_srli_epi64 _mm256_shuffle_epi8 _mm256_add_epi8 _mm256_add_epi64 _mm256_sad_epu8
    |sums, limit| _mm256_testz_si256(_mm256_cmpgt_epi64(limit, sums), _mm256_set1_epi8(-1)) == 0 }
    nibbles! { nibbles512, "avx512f,avx512bw", __m512i, 1, 8; _mm512_setzero_si512 _mm512_loadu_si512 _mm512_storeu_si512
    _mm512_set1_epi64 _mm512_set1_epi8 _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    _mm512_and_si512 _mm512_xor_si512 _mm512_srli_epi64 _mm512_shuffle_epi8 _mm512_add_epi8 _mm512_add_epi64 _mm512_sad_epu8
    |sums, limit| _mm512_cmplt_epi64_mask(sums, limit) != 0 }
}
