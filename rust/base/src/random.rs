//! Randomness from a counter. The one rule: a value is a function of (seed, tag, stream, a, b) and of nothing else, so
//! nothing random is ever stored and every order of evaluation, thread count and device sees the same bits.
//!
//! `word(tag, stream; a, b) = Philox4x32-10(key = seed; counter = b >> 2, a lo, a hi, tag + 256·stream)[b & 3]`
//! (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). How a word becomes a sign,
//! a sparse entry, a normal or a permutation stands beside each method.

use crate::Result;
use crate::pool::{self, Shared};
use crate::simd::Simd;

/// Which use of the stream: the low byte of the last counter word.
pub mod tag {
    pub const GAUSSIAN: u8 = 1;
    pub const RADEMACHER: u8 = 2;
    pub const SPARSE: u8 = 3;
    pub const COUNTSKETCH: u8 = 4;
    pub const SRHT: u8 = 5;
    pub const SPINNER: u8 = 6;
    pub const FASTFOOD: u8 = 7;
    /// Rows of a table for values of features; drawn in Python, kept here so that no other use takes the number.
    pub const HASH: u8 = 17;
    /// Stochastic rounding: word i mod 2^34 of column ⌊i / 2^34⌋ for element i.
    pub const ROUNDING: u8 = 32;
}

/// Columns that the vector forms draw at once.
pub const LANES: usize = 16;
/// One word for each lane.
pub type Words = [u32; LANES];

const M0: u64 = 0xD251_1F53;
const M1: u64 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;
const LOW: u64 = 0xffff_ffff;

/// Ten rounds on one counter. The words ride in the low halves of 64-bit lanes: the product of two low halves is one
/// instruction on every vector unit, and what the upper halves hold never matters.
#[inline(always)]
fn rounds(mut c: [u64; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let p0 = (c[0] & LOW) * M0;
        let p1 = (c[2] & LOW) * M1;
        c = [(p1 >> 32) ^ c[1] ^ u64::from(k0), p1, (p0 >> 32) ^ c[3] ^ u64::from(k1), p0];
        k0 = k0.wrapping_add(W0);
        k1 = k1.wrapping_add(W1);
    }
    c.map(|w| w as u32)
}

/// Philox4x32-10 of one counter.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    rounds(counter.map(u64::from), key)
}

/// Philox4x32-10 of many counters, four words each.
pub fn many(counters: &[u32], key: [u32; 2], words: &mut [u32]) -> Result<()> {
    const UNIT: usize = 1 << 14;
    let out = Shared(words.as_mut_ptr());
    pool::run(counters.len().div_ceil(UNIT), counters.len(), |b| {
        let counters = &counters[b * UNIT..counters.len().min((b + 1) * UNIT)];
        // SAFETY: a unit writes its own words; there are as many as counters.
        let words = unsafe { out.part(b * UNIT, counters.len()) };
        for (c, w) in counters.as_chunks().0.iter().zip(words.as_chunks_mut().0) {
            *w = philox(*c, key);
        }
    })
}

/// One random matrix: entry (b, a) is a function of the seed, the tag, the stream and the two positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    key: [u32; 2],
    last: u32,
}

impl Source {
    /// `stream` is taken modulo 2^24; the callers refuse larger ones.
    pub fn new(seed: u64, tag: u8, stream: u32) -> Self {
        Source { key: [seed as u32, (seed >> 32) as u32], last: u32::from(tag) | stream << 8 }
    }

    /// The four words 4·block … 4·block + 3 of column `a`.
    #[inline]
    pub fn block(self, a: u64, block: u32) -> [u32; 4] {
        philox([block, a as u32, (a >> 32) as u32, self.last], self.key)
    }

    /// Word `b` of column `a`; b < 2^34.
    pub fn word(self, a: u64, b: u64) -> u32 {
        self.block(a, (b >> 2) as u32)[(b & 3) as usize]
    }

    /// Bit `b` of column `a`: bit b & 31 of word b >> 5.
    pub fn bit(self, a: u64, b: u64) -> bool {
        self.word(a, b >> 5) >> (b & 31) & 1 == 1
    }

    /// 1 − 2·bit.
    pub fn sign(self, a: u64, b: u64) -> i8 {
        1 - 2 * i8::from(self.bit(a, b))
    }

    /// A very sparse entry: −1, 0 or 1, nonzero with probability `threshold`/2^31.
    pub fn sparse(self, a: u64, b: u64, threshold: u32) -> i8 {
        sparse(self.word(a, b), threshold)
    }

    /// A normal of mean 0 and variance 1: words 2h and 2h + 1 make entries 2h and 2h + 1.
    pub fn normal(self, a: u64, b: u64) -> f32 {
        let w = self.block(a, (b >> 2) as u32);
        let h = (b & 2) as usize;
        let (c, s) = normals(w[h], w[h + 1]);
        if b & 1 == 0 { c } else { s }
    }

    /// Words 4·block … 4·block + 3 of the columns a … a + 15, a column a lane.
    #[inline(always)]
    pub fn across<S: Simd>(self, _: S, a: u64, block: u32) -> [Words; 4] {
        let mut out = [[0; LANES]; 4];
        for l in 0..LANES {
            let a = a.wrapping_add(l as u64);
            let w = rounds([block.into(), a, a >> 32, self.last.into()], self.key);
            for (out, w) in out.iter_mut().zip(w) {
                out[l] = w;
            }
        }
        out
    }

    /// Words of column `a`, sixteen blocks: lane l of word r is word 4·(block + l) + r.
    #[inline(always)]
    pub fn along<S: Simd>(self, _: S, a: u64, block: u32) -> [Words; 4] {
        let mut out = [[0; LANES]; 4];
        for l in 0..LANES {
            let b = u64::from(block.wrapping_add(l as u32));
            let w = rounds([b, a, a >> 32, self.last.into()], self.key);
            for (out, w) in out.iter_mut().zip(w) {
                out[l] = w;
            }
        }
        out
    }

    /// The permutation of [0, 2^m) that this source holds at `a`.
    pub fn permutation(self, a: u64, m: u32) -> Permutation {
        let rounds: [_; 8] = std::array::from_fn(|r| {
            (2 * u64::from(self.word(a, 2 * r as u64)) + 1, u64::from(self.word(a, 2 * r as u64 + 1)))
        });
        Permutation {
            rounds,
            undo: rounds.map(|(odd, _)| inverse(odd)),
            mask: if m >= 64 { u64::MAX } else { (1 << m) - 1 },
            shift: m.div_ceil(2),
        }
    }
}

/// The threshold of sparsity s: T = ⌊2^31/s + ½⌋, so that an entry is nonzero with probability T/2^31 exactly.
pub fn threshold(s: f64) -> u32 {
    (2f64.powi(31) / s + 0.5).floor() as u32
}

/// A word as a very sparse entry: nonzero iff its low 31 bits are under the threshold, negative iff its top bit is set.
#[inline(always)]
pub fn sparse(word: u32, threshold: u32) -> i8 {
    i8::from(word & 0x7fff_ffff < threshold) * (1 - 2 * (word >> 31) as i8)
}

/// A bijection of [0, 2^m): eight rounds x ← (x·(2w₂ᵣ + 1) + w₂ᵣ₊₁) mod 2^m, x ← x ^ (x >> ⌈m/2⌉). A Feistel network of
/// a few rounds has a visibly wrong distribution of pairs on small domains; this has not.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    rounds: [(u64, u64); 8],
    /// One over each factor.
    undo: [u64; 8],
    mask: u64,
    shift: u32,
}

impl Permutation {
    #[inline]
    pub fn at(&self, mut x: u64) -> u64 {
        for (odd, add) in self.rounds {
            x = x.wrapping_mul(odd).wrapping_add(add) & self.mask;
            x ^= x >> self.shift;
        }
        x
    }

    /// Which x is sent to `y`: the steps undone from the last to the first.
    #[inline]
    pub fn back(&self, mut y: u64) -> u64 {
        for ((_, add), undo) in self.rounds.into_iter().zip(self.undo).rev() {
            // a shift by half of the bits or more is its own inverse
            y ^= y >> self.shift;
            y = y.wrapping_sub(add).wrapping_mul(undo) & self.mask;
        }
        y
    }

    /// `at` of x, x + 1, …, for domains of at most 2^32.
    #[inline(always)]
    pub fn fill<S: Simd>(&self, _: S, x: u32, out: &mut [u32]) {
        /// As many at a time as the registers hold through all rounds.
        const SIDE: usize = 4 * LANES;
        // a function: a closure that is called twice may stay a call, which has the instructions of the lowest level
        #[inline(always)]
        fn all(x: u32, out: &mut [u32; SIDE], up: u32, shift: u32, mask: u32, rounds: &[(u32, u32)]) {
            for (i, v) in out.iter_mut().enumerate() {
                *v = x.wrapping_add(i as u32) << up;
            }
            for &(odd, add) in rounds {
                for v in &mut *out {
                    let y = v.wrapping_mul(odd).wrapping_add(add);
                    *v = y ^ (y >> shift & mask);
                }
            }
            for v in out {
                *v >>= up;
            }
        }
        // The numbers are kept in the upper bits of a word, where what passes 2^m is lost by itself.
        let up = 32 - self.mask.count_ones().min(32);
        if up == 32 {
            return out.fill(0);
        }
        let (mask, shift) = ((self.mask as u32) << up, self.shift);
        let rounds = self.rounds.map(|(odd, add)| (odd as u32, (add as u32) << up));
        let (whole, rest) = out.as_chunks_mut();
        for (n, out) in whole.iter_mut().enumerate() {
            all(x.wrapping_add((n * SIDE) as u32), out, up, shift, mask, &rounds);
        }
        let mut last = [0; SIDE];
        all(x.wrapping_add((whole.len() * SIDE) as u32), &mut last, up, shift, mask, &rounds);
        rest.copy_from_slice(&last[..rest.len()]);
    }

    /// `back` of y, y + 1, …, as `fill`.
    #[inline(always)]
    pub fn fill_back<S: Simd>(&self, _: S, y: u32, out: &mut [u32]) {
        for (i, v) in out.iter_mut().enumerate() {
            *v = y.wrapping_add(i as u32);
        }
        for ((_, add), undo) in self.rounds.into_iter().zip(self.undo).rev() {
            for v in &mut *out {
                *v ^= *v >> self.shift;
                *v = v.wrapping_sub(add as u32).wrapping_mul(undo as u32) & self.mask as u32;
            }
        }
    }
}

/// 1/odd modulo 2^64, by Newton's iteration: five bits are right to begin with, and each step doubles them.
#[inline]
fn inverse(odd: u64) -> u64 {
    let mut x = odd.wrapping_mul(3) ^ 2;
    for _ in 0..4 {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
    }
    x
}

/// Two normals from two words (Box and Muller): u = ((w >> 8) + 1)·2⁻²⁴, v = (w' >> 8)·2⁻²⁴,
/// √(−2 ln u)·cos 2πv and √(−2 ln u)·sin 2πv. Only products, sums and one root, none of them fused: the same bits on
/// every machine. The root is within 1 ulp, the circle within 1.6, a normal within 3.5.
#[inline(always)]
pub fn normals(w: u32, w1: u32) -> (f32, f32) {
    let r = radius((w >> 8) + 1);
    let (c, s) = circle(w1 >> 8);
    (r * c, r * s)
}

/// L: (ln(1 + f) − f + f²/2)/f³ on [√½ − 1, √2 − 1], to 0.01 ulp of ln.
const LN: [f32; 9] =
    [0.06915147, -0.11789696, 0.118730165, -0.1238437, 0.14218655, -0.1666925, 0.20002227, -0.24999987, 0.3333331];
const LN2_HI: f32 = 0.69314575;
const LN2_LO: f32 = 1.428_606_8e-6;
/// (sin 2πt / t − 2π)/t² and (cos 2πt − 1)/t² in z = t² on [0, 1/64].
const SIN: [f32; 4] = [41.487576, -76.69838, 81.60521, -41.3417];
const COS: [f32; 4] = [59.245964, -85.44374, 64.93932, -19.739208];
const TAU: f32 = std::f32::consts::TAU;
const TAU_LO: f32 = -1.748_455_6e-7;

/// √(−2 ln(n·2⁻²⁴)) for n in 1 … 2^24.
#[inline(always)]
fn radius(n: u32) -> f32 {
    // n = 2^e·(1 + f) with 1 + f in [√½, √2); n has at most 25 bits and is exact in f32
    const SQRT_HALF: i32 = 0x3f35_04f3;
    let bits = (n as i32 as f32).to_bits() as i32 - SQRT_HALF;
    let e = ((bits >> 23) - 24) as f32;
    let f = f32::from_bits(((bits & 0x007f_ffff) + SQRT_HALF) as u32) - 1.0;
    // ln(1 + f) = f − f²/2 + f³·L(f), minimax
    let mut p = LN[0];
    for &c in &LN[1..] {
        p = p * f + c;
    }
    let f2 = f * f;
    // e·ln 2 in two pieces, the first exact: e has 5 bits, the piece 16
    let small = (f2 * f) * p + e * LN2_LO - 0.5 * f2;
    let ln = e * LN2_HI + (f + small);
    // 0 − …: at n = 2^24 a root of +0
    (0.0 - 2.0 * ln).sqrt()
}

/// (cos 2πv, sin 2πv) for v = n·2⁻²⁴, n < 2^24.
#[inline(always)]
fn circle(n: u32) -> (f32, f32) {
    // the nearest quarter turn is an integer and what remains, in [−1/8, 1/8] turns, is exact
    let q = (n + (1 << 21)) >> 22;
    let t = (n as i32 - (q << 22) as i32) as f32 * (1.0 / (1 << 24) as f32);
    let z = t * t;
    let (mut s, mut c) = (SIN[0], COS[0]);
    for &k in &SIN[1..] {
        s = s * z + k;
    }
    for &k in &COS[1..] {
        c = c * z + k;
    }
    // 2π is kept in two pieces: the second rides on the small term
    let sin = t * TAU + t * (TAU_LO + z * s);
    let cos = 1.0 + z * c;
    let (a, b) = if q & 1 == 0 { (cos, sin) } else { (sin, cos) };
    let flip = |x: f32, on: u32| f32::from_bits(x.to_bits() ^ on << 31);
    (flip(a, (q + 1) >> 1 & 1), flip(b, q >> 1 & 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{self, Kernel, dispatch};

    /// Random123's known answers.
    #[test]
    fn known_answers() {
        let f = u32::MAX;
        for (counter, key, want) in [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([f; 4], [f; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), want);
        }
    }

    struct Vectors(Source, u64, u32);
    impl Kernel for Vectors {
        type Output = ([Words; 4], [Words; 4]);
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            (self.0.across(s, self.1, self.2), self.0.along(s, self.1, self.2))
        }
    }

    #[test]
    fn vectors_are_the_words() {
        for level in simd::available() {
            simd::force(Some(level));
            for (a, block) in [(0, 0), (u64::from(u32::MAX) - 7, 5), (u64::MAX - 3, u32::MAX - 30), (12345, 1 << 31)] {
                let src = Source::new(0x0123_4567_89ab_cdef, tag::SPARSE, 0x00ab_cdef);
                let (across, along) = dispatch(Vectors(src, a, block));
                for l in 0..LANES {
                    for r in 0..4 {
                        let b = 4 * u64::from(block) + r as u64;
                        assert_eq!(across[r][l], src.word(a.wrapping_add(l as u64), b));
                        assert_eq!(along[r][l], src.word(a, b + 4 * l as u64));
                    }
                }
            }
        }
        simd::force(None);
    }

    #[test]
    fn entries_follow_the_contract() {
        let src = Source::new(7, tag::GAUSSIAN, 3);
        for b in 0..300 {
            let w = philox([(b >> 2) as u32, 9, 1, 1 + 256 * 3], [7, 0])[(b & 3) as usize];
            assert_eq!(src.word(9 + (1 << 32), b), w);
            let bit = src.word(4, b >> 5) >> (b & 31) & 1;
            assert_eq!(i32::from(src.sign(4, b)), 1 - 2 * bit as i32);
        }
        for (s, t) in [(1.0, 1u32 << 31), (3.0, 715827883), (100.0, 21474836), (f64::from(1u32 << 31), 1)] {
            assert_eq!(threshold(s), t);
        }
        assert_eq!((sparse(5, 6), sparse(1 << 31 | 5, 6), sparse(6, 6)), (1, -1, 0));
        assert_eq!(sparse(u32::MAX, 1 << 31), -1);
    }

    #[test]
    fn normals_are_accurate() {
        let ulps = |got: f32, want: f64| {
            let w = want as f32;
            let ulp = f64::from(f32::from_bits(w.abs().to_bits().max(1 << 23) + 1)) - f64::from(w.abs());
            (f64::from(got) - want).abs() / ulp
        };
        let mut worst = (0f64, 0f64, 0f64);
        for i in 0..1 << 20 {
            // every value near both ends, then a stride
            let n = if i < 1 << 18 {
                i
            } else if i < 1 << 19 {
                (1 << 24) - 1 - (i - (1 << 18))
            } else {
                i * 16 + 5
            } & 0xff_ffff;
            let u = f64::from(n + 1) / f64::from(1 << 24);
            let v = std::f64::consts::TAU * f64::from(n) / f64::from(1 << 24);
            worst.0 = worst.0.max(ulps(radius(n + 1), (-2.0 * u.ln()).sqrt()));
            let (c, s) = circle(n);
            // the float64 reference loses its own digits at the zeros of cos and sin
            if v.cos().abs() > 1e-9 && v.sin().abs() > 1e-9 {
                worst.1 = worst.1.max(ulps(c, v.cos()));
                worst.2 = worst.2.max(ulps(s, v.sin()));
            }
        }
        assert!(worst.0 < 1.0 && worst.1 < 1.6 && worst.2 < 1.6, "{worst:?}");
        assert_eq!(normals(u32::MAX, 0), (0.0, 0.0));
        assert_eq!((circle(0), circle(1 << 22), circle(1 << 23)), ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)));
    }

    #[test]
    fn permutations_are_bijections() {
        struct Filled<'a>(&'a Permutation, u32, &'a mut [u32]);
        impl Kernel for Filled<'_> {
            type Output = ();
            #[inline(always)]
            fn run<S: Simd>(self, s: S) {
                self.0.fill(s, self.1, self.2);
            }
        }
        let src = Source::new(1, tag::SRHT, 0);
        for m in [0, 1, 2, 7, 12, 17, 27, 31, 32] {
            let (p, first) = (src.permutation(1, m), if m > 12 { 12345 } else { 0 });
            let mut at = vec![0; 1000.min(1 << m)];
            dispatch(Filled(&p, first, &mut at));
            assert!(at.iter().zip(u64::from(first)..).all(|(&at, x)| u64::from(at) == p.at(x)), "m = {m}");
        }
        for m in 0..=12 {
            let p = src.permutation(1, m);
            let mut seen = vec![false; 1 << m];
            for x in 0..1u64 << m {
                seen[p.at(x) as usize] = true;
                assert_eq!(p.back(p.at(x)), x);
            }
            assert!(seen.iter().all(|&s| s), "m = {m}");
        }
        // large domains: inverse images do not collide
        let p = src.permutation(1, 40);
        let mut images: Vec<u64> = (0..10000).map(|x| p.at(x)).collect();
        images.sort_unstable();
        images.dedup();
        assert!((0..1000).all(|i| p.back(p.at(i << 29)) == i << 29));
        assert!(images.len() == 10000 && images.iter().all(|&y| y < 1 << 40));
    }

    #[test]
    fn pairs_of_a_permutation_are_even() {
        // every ordered pair of images equally often over seeds: chi-square of 4·3 cells at m = 2, 8·7 at m = 3
        for m in [2u32, 3] {
            let n = 1usize << m;
            let draws = 100_000;
            let mut counts = vec![0u32; n * n];
            for seed in 0..draws {
                let p = Source::new(seed, tag::SRHT, 0).permutation(1, m);
                counts[p.at(0) as usize * n + p.at(1) as usize] += 1;
            }
            let cells = (n * (n - 1)) as f64;
            let mean = draws as f64 / cells;
            let chi: f64 =
                (0..n * n).filter(|c| c / n != c % n).map(|c| (f64::from(counts[c]) - mean).powi(2) / mean).sum();
            let z = (chi - (cells - 1.0)) / (2.0 * (cells - 1.0)).sqrt();
            assert!(z.abs() < 5.0, "m = {m}: z = {z}");
        }
    }
}
