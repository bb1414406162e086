//! Floats of 4 to 8 bits (OCP 8-bit FP 1.0, OCP MX 1.0). The one rule: one formula for every width, every rounding, and
//! normal and denormal numbers alike.
//!
//! A format has e bits of exponent, bias B = 2^(e − 1) − 1, and m of mantissa. With p = 2^max(⌊log2 |x|⌋, 1 − B), the numbers
//! around x are multiples of p/2^m, and the code of r·p/2^m is r + 2^m (log2 p − (1 − B)): where r reaches 2^(m + 1) it is the
//! first code of the next power of two, and among denormals it is r. What is beyond the largest number is that number.

use super::drawn::uniform;
use base::random::{Source, tag};
use base::simd::Simd;
use base::{Error, Result, Scalar, Tensor, by_float};
use drivers::flat::{self, BLOCK, Pass, Real};

/// 2^k, for k within ±1000.
pub fn power(k: i32) -> f64 {
    f64::from_bits(((1023 + k) as u64) << 52)
}

/// A format, by its bits of exponent and mantissa.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    exponent: u32,
    pub mantissa: u32,
}

impl Format {
    pub fn new(exponent: i64, mantissa: i64) -> Result<Format> {
        match (exponent, mantissa) {
            (2, 1 | 3) | (3 | 5, 2) | (4, 3) => Ok(Format { exponent: exponent as u32, mantissa: mantissa as u32 }),
            _ => {
                Err(Error::Value(format!("no small float has {exponent} bits of exponent and {mantissa} of mantissa")))
            }
        }
    }
    pub fn bits(self) -> u32 {
        1 + self.exponent + self.mantissa
    }
    fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }
    /// The code of the largest finite number: e5m2 has infinities above it, e4m3 one NaN, the others nothing.
    pub fn top(self) -> u8 {
        match self.exponent {
            5 => 0x7b,
            4 => 0x7e,
            _ => (1 << (self.exponent + self.mantissa)) - 1,
        }
    }
    /// The number of a code without its sign.
    pub fn magnitude(self, code: u8) -> f32 {
        if code > self.top() {
            return if code == 0x7c { f32::INFINITY } else { f32::NAN };
        }
        let (exponent, rest) = (i32::from(code >> self.mantissa), code & ((1 << self.mantissa) - 1));
        let whole = if exponent == 0 { 0 } else { 1 << self.mantissa };
        f32::from(rest + whole) * power(exponent.max(1) - self.bias() - self.mantissa as i32) as f32
    }
    /// ⌊log2⌋ of the largest number.
    pub fn reach(self) -> i32 {
        i32::from(self.top() >> self.mantissa) - self.bias()
    }
    /// The numbers of all codes.
    pub fn numbers(self) -> [f32; 256] {
        let sign = 1 << (self.bits() - 1);
        let mut all = [0.0; 256];
        for code in 0..sign {
            let v = self.magnitude(code as u8);
            (all[code], all[code | sign]) = (v, -v);
        }
        all
    }
}

/// A format as a loop holds it.
#[derive(Clone, Copy)]
pub struct Mini<T> {
    mantissa: u32,
    sign: u32,
    /// The least power of two that is normal, and 2^m.
    least: T,
    unit: T,
    most: T,
}

impl<T: Real> Mini<T> {
    pub fn new(f: Format) -> Self {
        Mini {
            mantissa: f.mantissa,
            sign: f.bits() - 1,
            least: T::of(power(1 - f.bias())),
            unit: T::int(1 << f.mantissa),
            most: T::from_f32(f.magnitude(f.top())),
        }
    }
    /// |x|, at most the largest number, in units of the numbers around it, and what is to be added to its rounding.
    #[inline(always)]
    fn quotient(self, x: T) -> (T, i32) {
        let a = x.abs();
        let a = if a < self.most { a } else { self.most };
        let p = a.binade();
        let p = if p > self.least { p } else { self.least };
        (a * (self.unit * p.inverse()), p.steps(self.least, self.mantissa))
    }
    #[inline(always)]
    fn signed(self, x: T, code: i32) -> u8 {
        (code | i32::from(x.negative()) << self.sign) as u8
    }
    /// The code of the number nearest to x, half to even; of NaN the largest number's.
    #[inline(always)]
    pub fn code(self, x: T) -> u8 {
        let (v, up) = self.quotient(x);
        self.signed(x, i32::from((v + T::MAGIC).low() as u8) + up)
    }
    /// The same, away from zero iff the fraction that is cut off is more than t.
    #[inline(always)]
    fn code_over(self, x: T, t: T) -> u8 {
        let (v, up) = self.quotient(x);
        let r = v.trunc();
        let over = i32::from(t < v - r);
        self.signed(x, i32::from((r + T::MAGIC).low() as u8) + over + up)
    }
}

#[derive(Clone, Copy)]
struct Encode<T> {
    mini: Mini<T>,
    /// What is NaN: its code without the sign, or 0 for the code 0.
    nan: u8,
    random: Option<Source>,
}

impl<T: Real> Encode<T> {
    /// The code of a number whose code would be `c` if it were one.
    #[inline(always)]
    fn or_nan(self, x: T, c: u8) -> u8 {
        let odd = if self.nan == 0 { 0 } else { self.mini.signed(x, i32::from(self.nan)) };
        if x == x { c } else { odd }
    }
}

impl<T: Real> Pass<T, 1, 0, 0, 1> for Encode<T> {
    /// Whether something was not finite.
    type Gather = bool;
    fn start(&self, _: usize, _: usize) -> Result<bool> {
        Ok(false)
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        s: S,
        bad: &mut bool,
        at: usize,
        [x]: [&[T]; 1],
        _: [&[u8]; 0],
        _: [&mut [T]; 0],
        [c]: [&mut [u8]; 1],
    ) {
        // a copy: codes are bytes, which could lie anywhere as far as a compiler knows
        let own = *self;
        let Some(source) = own.random else {
            let mut odd = false;
            for (c, &x) in c.iter_mut().zip(x) {
                odd |= !x.is_finite();
                *c = own.or_nan(x, own.mini.code(x));
            }
            *bad |= odd;
            return;
        };
        let mut t = [T::ZERO; 256];
        for (i, (x, c)) in x.chunks(256).zip(c.chunks_mut(256)).enumerate() {
            uniform(s, source, at + i * 256, &mut t[..x.len()]);
            for ((c, &x), &t) in c.iter_mut().zip(x).zip(&t) {
                *bad |= !x.is_finite();
                *c = own.or_nan(x, own.mini.code_over(x, t));
            }
        }
    }
}

/// float_encode(x) -> q; exponent, mantissa, rounding (half_even 0, stochastic 3), seed, nan (an error 0, code 0 1, NaN 2)
pub fn encode(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, q] = t else { return Err(super::arrays(2, t)) };
    let format = Format::new(k[0].int(), k[1].int())?;
    let random = match k[2].int() {
        0 => None,
        3 => Some(Source::new(k[3].int() as u64, tag::ROUNDING, 0)),
        other => return Err(Error::Value(format!("rounding {other} is not 0 or 3"))),
    };
    let nan = match k[4].int() {
        0 | 1 => 0,
        2 if format.bits() == 8 => 0x7f,
        other => return Err(Error::Value(format!("nan {other} is not 0 or 1, or 2 of a format that has NaN"))),
    };
    if q.shape() != x.shape() {
        return Err(super::shapes("q", q, x));
    }
    by_float!(x, A => {
        let p = Encode { mini: Mini::new(format), nan, random };
        let bad = flat::pass::<A, _, 1, 0, 0, 1>(&p, BLOCK, [x], [], [], [q])?;
        if bad.contains(&true) && k[4].int() == 0 {
            return Err(super::non_finite());
        }
        Ok(())
    })
}

struct Decode<'a> {
    numbers: &'a [f32; 256],
}

impl<T: Real> Pass<T, 0, 1, 1, 0> for Decode<'_> {
    /// All bits that some code has.
    type Gather = u8;
    fn start(&self, _: usize, _: usize) -> Result<u8> {
        Ok(0)
    }
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        _: S,
        all: &mut u8,
        _: usize,
        _: [&[T]; 0],
        [b]: [&[u8]; 1],
        [y]: [&mut [T]; 1],
        _: [&mut [u8]; 0],
    ) {
        for (y, &b) in y.iter_mut().zip(b) {
            *y = T::from_f32(self.numbers[usize::from(b)]);
            *all |= b;
        }
    }
}

/// float_decode(q) -> x; exponent, mantissa, dtype (in x's dtype)
pub fn decode(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [q, x] = t else { return Err(super::arrays(2, t)) };
    let format = Format::new(k[0].int(), k[1].int())?;
    if q.shape() != x.shape() {
        return Err(super::shapes("x", x, q));
    }
    if q.dtype() != base::Dtype::U8 {
        return Err(Error::Type(format!("codes of small floats are uint8, got {}", q.dtype().name())));
    }
    let p = Decode { numbers: &format.numbers() };
    let all = by_float!(x, A => flat::pass::<A, _, 0, 1, 1, 0>(&p, BLOCK, [], [q], [x], []))?;
    if all.iter().any(|&a| u32::from(a) >> format.bits() != 0) {
        let most = (1 << format.bits()) - 1;
        return Err(Error::Value(format!(
            "q holds codes that are not within 0 and {most}: more than {} bits",
            format.bits()
        )));
    }
    Ok(())
}
