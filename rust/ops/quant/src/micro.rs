//! Groups of small floats with a scale of one byte. The one rule: what is beyond the largest small float, seen from the scale,
//! is that float.
//!
//! OCP Microscaling 1.0: the scale is 2^k, stored as k + 127, with k = ⌊log2 max|x|⌋ − ⌊log2 most⌋ ("floor", which cuts off up to
//! a quarter of the largest numbers); "even" rounds max|x| to the mantissa of the codes first, "ceil" takes ⌈log2 max|x|⌉,
//! "rceil" ⌈log2 (max|x|/most)⌉, the least that cuts nothing off. NVFP4: the scale is an e4m3 times one f32 of the whole array.

use super::encode::{Scheme, encode};
use super::mini::{Format, Mini, power};
use super::range::Extent;
use base::store::Store;
use base::{Error, Result, Scalar, Tensor};
use drivers::flat::Real;

/// How the scale follows from the largest magnitude.
#[derive(Clone, Copy)]
enum Scaling {
    Floor,
    Even,
    Ceil,
    Rceil,
}

#[derive(Clone, Copy)]
struct Micro {
    format: Format,
    scaling: Scaling,
}

/// ⌊log2 v⌋, and whether v is more than that power of two; of 0 the least there is.
fn log2(v: f64) -> (i32, bool) {
    let bits = v.to_bits();
    ((bits >> 52) as i32 - 1023, bits << 12 != 0)
}

impl Micro {
    /// k of a largest magnitude.
    fn power<T: Real>(self, amax: T) -> i32 {
        let reach = self.format.reach();
        let k = match self.scaling {
            Scaling::Floor => log2(amax.to_f64()).0 - reach,
            Scaling::Even => {
                let half = 1u64 << (51 - self.format.mantissa);
                log2(f64::from_bits(amax.to_f64().to_bits() + half)).0 - reach
            }
            Scaling::Ceil | Scaling::Rceil => {
                let rceil = matches!(self.scaling, Scaling::Rceil);
                let most = T::from_f32(self.format.magnitude(self.format.top()));
                let (k, more) = log2(if rceil { amax / most } else { amax }.to_f64());
                k + i32::from(more) - if rceil { 0 } else { reach }
            }
        };
        k.clamp(-127, 127)
    }
}

impl<T: Real> Scheme<T> for Micro {
    type Kept = u8;
    /// The format, and 2^−k.
    type Step = (Mini<T>, T);
    #[inline(always)]
    fn see<const FINITE: bool>(self, x: &[T]) -> Extent<T> {
        Extent { low: T::ZERO, high: T::amax::<FINITE>(x) }
    }
    #[inline(always)]
    fn solve(self, e: Extent<T>) -> (u8, u8, Self::Step) {
        let k = self.power(e.high);
        ((k + 127) as u8, 0, (Mini::new(self.format), T::of(power(-k))))
    }
    #[inline(always)]
    fn code(self, &(mini, s): &Self::Step, x: T) -> u8 {
        mini.code(x * s)
    }
}

/// Two scales, one over the other.
#[derive(Clone, Copy)]
struct Nested {
    outer: f32,
    format: Format,
    /// What inner scales are.
    inner: Format,
}

impl<T: Real> Scheme<T> for Nested {
    type Kept = u8;
    /// The format, and the product of both scales.
    type Step = (Mini<T>, T);
    #[inline(always)]
    fn see<const FINITE: bool>(self, x: &[T]) -> Extent<T> {
        Extent { low: T::ZERO, high: T::amax::<FINITE>(x) }
    }
    #[inline(always)]
    fn solve(self, e: Extent<T>) -> (u8, u8, Self::Step) {
        let Nested { outer, format, inner } = self;
        let most = format.magnitude(format.top());
        // what is not 0 keeps a scale: the least there is
        let code = Mini::<T>::new(inner).code(e.high / T::from_f32(most) / T::from_f32(outer)).max(1);
        (code, 0, (Mini::new(format), T::from_f32(inner.magnitude(code)) * T::from_f32(outer)))
    }
    #[inline(always)]
    fn code(self, &(mini, s): &Self::Step, x: T) -> u8 {
        mini.code(x / s)
    }
}

/// encode_float(x, outer) -> data, scale; exponent, mantissa, group (0: the last axis), scaling (floor 0, even 1, ceil 2,
/// rceil 3; not with an outer scale), saturate
pub fn encode_float(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [x, outer, data, scale] = t else { return Err(super::arrays(4, t)) };
    let format = Format::new(k[0].int(), k[1].int())?;
    let (parts, bits) = ([x, data, scale], format.bits() as usize);
    let (group, saturate) = (k[2].int(), k[4].bool());
    if outer.is_empty() {
        let scaling = match k[3].int() {
            0 => Scaling::Floor,
            1 => Scaling::Even,
            2 => Scaling::Ceil,
            3 => Scaling::Rceil,
            other => return Err(Error::Value(format!("scaling {other} is not 0, 1, 2 or 3"))),
        };
        return encode(Micro { format, scaling }, parts, None, bits, group, saturate);
    }
    let outer = one(outer)?;
    if !(outer > 0.0 && outer.is_finite()) {
        return Err(Error::Value(format!("an outer scale is positive and finite, got {outer}")));
    }
    encode(Nested { outer, format, inner: Format::new(4, 3)? }, parts, None, bits, group, saturate)
}

/// The number of an array of one.
pub fn one(x: &Tensor) -> Result<f32> {
    if x.len() != 1 {
        return Err(Error::Value(format!("one scale lies over all others, got shape {:?}", x.shape())));
    }
    base::by_float!(x, A => Ok(x.slice::<A>()?[0].to_f32()))
}
