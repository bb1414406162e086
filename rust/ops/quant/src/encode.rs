//! Range, codes and packing in one read of x, and back. The one rule: a group's codes are made while its numbers are in the
//! nearest cache, and meanwhile what follows is fetched, so that memory never waits for arithmetic.
//!
//! Symmetric: s = amax/(2^(b − 1) − 1), q = rne(x/s). Affine, over the range widened to hold 0: s = (high − low)/(2^b − 1),
//! z = rne(−low/s), q = rne(x/s) + z. Groups of denormals have codes and an error of at most s/2 like all others (see
//! `least`); the scale of zeros is the smallest normal number.

use super::affine::{Affine, Dequantize, Range};
use super::layout::width;
use super::range::Extent;
use super::scales::{Form, Scales};
use base::fetch;
use base::pool::{self, Shared};
use base::simd::{Kernel, Simd, dispatch};
use base::{Dtype, Element, Error, Result, Scalar, Tensor, bits, by_float, try_vec};
use drivers::flat::{self, BLOCK, CHUNK, Compute, Real};

/// Elements between two requests for memory; loops over so many are compiled for the number.
const TURN: usize = 128;
/// Elements whose groups are measured together, then coded together: no group waits for the scale of the one before.
const TILE: usize = 1024;
const GROUPS: usize = 32;
/// How far ahead memory is fetched, in bytes: at least, and at most (no cache close by holds more).
const AHEAD: usize = 16 * 1024;
const FARTHEST: usize = 256 * 1024;

/// How a group's numbers become a scale and codes.
pub(super) trait Scheme<T: Real>: Copy + Sync {
    /// A scale as it is stored.
    type Kept: Element;
    /// What a scale means for the codes of its group.
    type Step: Copy;
    fn see<const FINITE: bool>(self, x: &[T]) -> Extent<T>;
    /// The scale, the zero point in the codes as they are stored, and the step.
    fn solve(self, e: Extent<T>) -> (Self::Kept, u8, Self::Step);
    /// The code of a number or an infinity.
    fn code(self, step: &Self::Step, x: T) -> u8;
    /// The codes of some of them, [`TURN`] at most.
    #[inline(always)]
    fn codes<S: Simd>(self, _: S, step: &Self::Step, x: &[T], codes: &mut [u8]) {
        if let (Ok(x), Ok(codes)) = (<&[T; TURN]>::try_from(x), <&mut [u8; TURN]>::try_from(&mut *codes)) {
            for i in 0..TURN {
                codes[i] = self.code(step, x[i]);
            }
            return;
        }
        for (c, &x) in codes.iter_mut().zip(x) {
            *c = self.code(step, x);
        }
    }
}

/// A scale s of numbers that reach over `extent` in n steps. Among denormals a quotient has few digits: where it was rounded
/// down so far that n steps do not reach, the next one up is taken. Zeros have the smallest normal number.
#[inline(always)]
pub(super) fn least<T: Real>(s: T, extent: T, n: T) -> T {
    if s > T::TINY {
        return s;
    }
    if extent == T::ZERO {
        return T::TINY;
    }
    let smallest = T::ZERO.up();
    let s = if s > smallest { s } else { smallest };
    if s * n < extent { s.up() } else { s }
}

#[derive(Clone, Copy)]
struct Symmetric {
    bits: u32,
    /// What is added to a code: 2^(b − 1) where codes are packed, 0 where they are int8.
    offset: i32,
}
impl<T: Real> Scheme<T> for Symmetric {
    type Kept = T;
    type Step = Affine<T>;
    #[inline(always)]
    fn see<const FINITE: bool>(self, x: &[T]) -> Extent<T> {
        Extent { low: T::ZERO, high: T::amax::<FINITE>(x) }
    }
    #[inline(always)]
    fn solve(self, e: Extent<T>) -> (T, u8, Affine<T>) {
        let most = (1 << (self.bits - 1)) - 1;
        let s = least(e.high / T::int(most), e.high, T::int(most));
        let range = Range { lo: self.offset - most, hi: self.offset + most };
        (s, self.offset as u8, Affine::new(s, T::int(self.offset), range, Form::Divide))
    }
    #[inline(always)]
    fn code(self, a: &Affine<T>, x: T) -> u8 {
        a.code(a.divided(x))
    }
}

#[derive(Clone, Copy)]
struct Asymmetric {
    bits: u32,
}
impl<T: Real> Scheme<T> for Asymmetric {
    type Kept = T;
    type Step = Affine<T>;
    #[inline(always)]
    fn see<const FINITE: bool>(self, x: &[T]) -> Extent<T> {
        let (low, high) = T::range::<FINITE>(x);
        Extent { low, high }
    }
    #[inline(always)]
    fn solve(self, e: Extent<T>) -> (T, u8, Affine<T>) {
        let range = Range { lo: 0, hi: (1 << self.bits) - 1 };
        let (low, high, n) = (e.low.to_f64(), e.high.to_f64(), f64::from(range.hi));
        // one step over the whole of the type is longer than its largest number
        let (s, most) = (T::of(high / n - low / n), T::MOST);
        let s = least(if s < most { s } else { most }, e.high - e.low, T::of(n));
        let z = (-low / s.to_f64()).round_ties_even().min(n);
        (s, z as u8, Affine::new(s, T::of(z), range, Form::Divide))
    }
    #[inline(always)]
    fn code(self, a: &Affine<T>, x: T) -> u8 {
        a.code(a.divided(x))
    }
}

/// Packed codes of a row, or of many groups that fill whole bytes, in the order they come.
struct Sink<'a> {
    bits: usize,
    out: &'a mut [u8],
    codes: [u8; CHUNK],
    held: usize,
}

impl Sink<'_> {
    /// Room for at least one and at most `n` codes.
    #[inline(always)]
    fn room(&mut self, n: usize) -> &mut [u8] {
        if self.bits == 8 {
            let n = n.min(self.out.len());
            let out = std::mem::take(&mut self.out);
            let (now, later) = out.split_at_mut(n);
            self.out = later;
            return now;
        }
        if self.held == CHUNK {
            self.flush();
        }
        let (from, to) = (self.held, CHUNK.min(self.held + n));
        self.held = to;
        &mut self.codes[from..to]
    }

    #[inline(always)]
    fn flush(&mut self) {
        if self.held == 0 {
            return;
        }
        let n = bits::bytes(self.held, self.bits);
        let out = std::mem::take(&mut self.out);
        let (now, later) = out.split_at_mut(n);
        bits::pack(&self.codes[..self.held], self.bits, now);
        (self.out, self.held) = (later, 0);
    }
}

/// Some units of x, with the places of what is made of them.
struct Encode<'a, T: Real, Q: Scheme<T>> {
    q: Q,
    x: &'a [T],
    data: &'a mut [u8],
    scale: &'a mut [Q::Kept],
    zero: Option<&'a mut [u8]>,
    bits: usize,
    group: usize,
    /// Elements that begin on a byte: a group, or a row where groups do not fill whole bytes.
    unit: usize,
    saturate: bool,
    /// Whether what follows x in memory is worth fetching.
    ahead: bool,
}

impl<T: Real, Q: Scheme<T>> Kernel for Encode<'_, T, Q> {
    type Output = bool;
    /// True if all numbers are finite.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let Encode { q, x, data, scale, mut zero, bits, group, unit, saturate, ahead } = self;
        let mut sink = Sink { bits, out: data, codes: [0; CHUNK], held: 0 };
        let tile = (TILE / group).clamp(1, GROUPS);
        let unit_is_whole = unit % 8 * bits % 8 == 0;
        let mut steps = [q.solve(Extent::NONE).2; GROUPS];
        let (mut finite, mut done) = (true, 0);
        for tile in x.chunks(tile * group) {
            let ahead = if ahead { Ahead::of(tile) } else { Ahead(None) };
            for (g, x) in tile.chunks_exact(group).enumerate() {
                let mut e = Extent::NONE;
                for (i, x) in x.chunks(TURN).enumerate() {
                    ahead.fetch(0, g * group + i * TURN, x.len());
                    e = e.join(match <&[T; TURN]>::try_from(x) {
                        Ok(x) => q.see::<false>(x),
                        Err(_) => q.see::<false>(x),
                    });
                }
                if !e.finite() {
                    finite = false;
                    e = if saturate { q.see::<true>(x) } else { Extent::NONE };
                }
                let (kept, z, step) = q.solve(e);
                (scale[done + g], steps[g]) = (kept, step);
                if let Some(zero) = &mut zero {
                    zero[done + g] = z;
                }
            }
            for (g, x) in tile.chunks_exact(group).enumerate() {
                let (step, mut at) = (&steps[g], 0);
                while at < group {
                    let codes = sink.room(TURN.min(group - at));
                    let n = codes.len();
                    ahead.fetch(tile.len() / 2, g * group + at, n);
                    let x = &x[at..at + n];
                    if finite {
                        q.codes(s, step, x, codes);
                    } else {
                        let mut own = [T::ZERO; TURN];
                        for (own, &x) in own.iter_mut().zip(x) {
                            *own = if x == x { x } else { T::ZERO };
                        }
                        q.codes(s, step, &own[..n], codes);
                    }
                    at += n;
                }
                if !unit_is_whole && (done + g + 1) % (unit / group) == 0 {
                    sink.flush();
                }
            }
            done += tile.len() / group;
        }
        sink.flush();
        finite
    }
}

/// Where the memory lies that a tile asks for while it is worked on: half of it while measuring, half while coding.
struct Ahead<T>(Option<*const T>);
impl<T> Ahead<T> {
    #[inline(always)]
    fn of(tile: &[T]) -> Self {
        let distance = size_of_val(tile).max(AHEAD) / size_of::<T>();
        Ahead((distance * size_of::<T>() <= FARTHEST).then(|| tile.as_ptr().wrapping_add(distance)))
    }
    /// Asks for the half, from `half` on, of what corresponds to elements `at..at + n` of the tile.
    #[inline(always)]
    fn fetch(&self, half: usize, at: usize, n: usize) {
        if let Some(base) = self.0 {
            let line = 64 / size_of::<T>();
            for i in (0..n / 2).step_by(line) {
                fetch(base.wrapping_add(half + at / 2 + i));
            }
        }
    }
}

/// `t`: x, data, scale; a group of 0 is the last axis.
pub(super) fn encode<Q>(
    q: Q,
    t: [&Tensor; 3],
    zero: Option<&Tensor>,
    bits: usize,
    group: i64,
    saturate: bool,
) -> Result<()>
where
    Q: Scheme<f32> + Scheme<f64>,
{
    let [x, data, scale] = t;
    let (rows, len) = x.rows();
    if x.shape().is_empty() {
        return Err(Error::Value("x needs a last axis, got a 0-d array".into()));
    }
    let group = if group == 0 { len } else { usize::try_from(group).unwrap_or(usize::MAX) };
    if x.is_empty() {
        // rows of nothing have a scale all the same: that of zeros
        return by_float!(x, A => {
            let nothing: Extent<<A as Compute>::Real> = Extent { low: Real::ZERO, high: Real::ZERO };
            let (kept, none, _) = q.solve(nothing);
            scale.slice_mut::<<Q as Scheme<<A as Compute>::Real>>::Kept>()?.fill(kept);
            if let Some(zero) = zero {
                zero.slice_mut::<u8>()?.fill(none);
            }
            Ok(())
        });
    }
    if group == 0 || len % group != 0 {
        return Err(Error::Value(format!("groups of {group} do not divide a last axis of {len}")));
    }
    let groups = x.len() / group;
    let unit = if (group % 8 * bits).is_multiple_of(8) { group } else { len };
    if data.len() != rows * bits::bytes(len, bits) || data.dtype().size() != 1 || !data.writable() {
        return Err(Error::Value(format!("data must be {} writable bytes", rows * bits::bytes(len, bits))));
    }
    if scale.len() != groups || zero.is_some_and(|z| z.len() != groups) {
        return Err(Error::Value(format!("{} scales for {groups} groups", scale.len())));
    }
    let zero = zero.map(base::Tensor::slice_mut::<u8>).transpose()?.map(|z| Shared(z.as_mut_ptr()));
    by_float!(x, A => {
        let x = x.slice::<A>()?;
        let scale = Shared(scale.slice_mut::<<Q as Scheme<<A as Compute>::Real>>::Kept>()?.as_mut_ptr());
        let codes = Shared(data.as_ptr());
        let units = x.len() / unit;
        let (each, bytes) = ((BLOCK / unit).max(1), bits::bytes(unit, bits));
        // some units: as they lie, or, of a type that is converted first, so few that the scratch stays close
        let some = |scratch: &mut Vec<<A as Compute>::Real>, from: usize, to: usize| {
            let (first, groups) = (from * (unit / group), (to - from) * (unit / group));
            let numbers = &x[from * unit..to * unit];
            let x: &[<A as Compute>::Real] = if A::SAME {
                // SAFETY: the same type by the promise of `SAME`.
                unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len()) }
            } else {
                A::widen(numbers, &mut scratch[..numbers.len()]);
                &scratch[..numbers.len()]
            };
            // SAFETY: the places of these units, which belong to one block.
            let (data, scale, zero) = unsafe {
                let data = codes.part(from * bytes, (to - from) * bytes);
                (data, scale.part(first, groups), zero.as_ref().map(|z| z.part(first, groups)))
            };
            dispatch(Encode { q, x, data, scale, zero, bits, group, unit, saturate, ahead: A::SAME })
        };
        let finite = pool::map(units.div_ceil(each), x.len(), |block| {
            let (from, to) = (block * each, ((block + 1) * each).min(units));
            let step = if A::SAME { each } else { (CHUNK / unit).max(1) };
            let mut scratch = if A::SAME { Vec::new() } else { try_vec(step * unit, Real::ZERO)? };
            let mut finite = true;
            for i in (from..to).step_by(step) {
                finite &= some(&mut scratch, i, (i + step).min(to));
            }
            Ok(finite)
        })?;
        let finite = finite.into_iter().collect::<Result<Vec<bool>>>()?;
        if finite.contains(&false) && !saturate {
            return Err(super::non_finite());
        }
        Ok(())
    })
}

/// encode_symmetric(x) -> data, scale; bits, group (0: the last axis), saturate
pub fn symmetric(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, data, scale] = t else { return Err(super::arrays(3, t)) };
    let bits = width(k[0].int())? as u32;
    if bits < 2 {
        return Err(Error::Value("symmetric codes have at least 2 bits".into()));
    }
    let offset = if data.dtype() == Dtype::I8 { 0 } else { 1 << (bits - 1) };
    encode(Symmetric { bits, offset }, [x, data, scale], None, bits as usize, k[1].int(), k[2].bool())
}

/// encode_affine(x) -> data, scale, zero_point; bits, group (0: the last axis), saturate
pub fn affine(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, data, scale, zero] = t else { return Err(super::arrays(4, t)) };
    let bits = width(k[0].int())? as u32;
    encode(Asymmetric { bits }, [x, data, scale], Some(zero), bits as usize, k[1].int(), k[2].bool())
}

/// decode(data, scale, zero_point) -> x; bits, last (the size of x's last axis, in its shape), dtype (in its dtype)
pub fn decode(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [data, scale, zero, x] = t else { return Err(super::arrays(4, t)) };
    let bits = width(k[0].int())?;
    let signed = data.dtype() == Dtype::I8;
    if signed && bits != 8 {
        return Err(Error::Value(format!("int8 codes have 8 bits, not {bits}")));
    }
    by_float!(x, A => {
        let offset = if signed || !zero.is_empty() { 0 } else { 1 << (bits - 1) };
        let scales = &Scales::<<A as Compute>::Real>::new(x, scale, zero, Form::Divide)?.without(offset);
        let p = &Dequantize { scales, most: A::MOST, signed };
        flat::from_bytes::<A>(data, x, |n| bits::bytes(n, bits), |at, packed, y| {
            let mut codes = [0u8; CHUNK];
            let codes = if bits == 8 { packed } else {
                bits::unpack(packed, bits, &mut codes[..y.len()]);
                &codes[..y.len()]
            };
            p.write(at, codes, y);
        })
    })
}
