//! Scales and zero points as the kernels use them. The one rule: after this they are numbers of the compute type, finite,
//! in the order of their array, and as many as the grain says.

use super::grain::Grain;
use super::mini::{Format, power};
use base::store::Store;
use base::{Dtype, Error, Result, Tensor, by_float, try_vec};
use drivers::flat::Real;
use std::borrow::Cow;

/// The largest zero point in magnitude: with it, every code and every bound is an integer that f32 holds exactly and
/// that `Real::MAGIC` rounds exactly.
pub const ZERO_MAX: f64 = 2_097_152.0;

/// How the quotient is formed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// rne(x / s) + z: divided once, rounded, then moved by the integer.
    Divide,
    /// rne(x · (1/s)) + z with 1/s in f32, as torch and torchao do.
    Reciprocal,
    /// rne(x / s + z): moved before rounding, as compressed-tensors does.
    Before,
}

impl Form {
    pub fn of(code: i64) -> Result<Form> {
        match code {
            0 => Ok(Form::Divide),
            1 => Ok(Form::Reciprocal),
            2 => Ok(Form::Before),
            other => Err(Error::Value(format!("form {other} is not 0, 1 or 2"))),
        }
    }
}

/// Scales, zero points, and where each belongs.
pub struct Scales<'a, T: Real> {
    pub grain: Grain,
    s: Cow<'a, [T]>,
    /// Empty: all are `missing`.
    z: Vec<T>,
    missing: T,
}

impl<'a, T: Real> Scales<'a, T> {
    pub fn new(x: &Tensor<'a>, scale: &Tensor<'a>, zero: &Tensor<'a>, form: Form) -> Result<Self> {
        let grain = Grain::new(x, scale)?;
        let z = if zero.is_empty() { Vec::new() } else { zeros(zero, scale)? };
        let s = if form == Form::Reciprocal && T::DTYPE == Dtype::F64 {
            let mut s = numbers::<T>(scale)?.into_owned();
            for s in &mut s {
                *s = T::from_f32(s.to_f32());
            }
            Cow::Owned(s)
        } else {
            numbers(scale)?
        };
        Ok(Scales { grain, s, z, missing: T::ZERO })
    }

    /// Scales of one byte: 2^(c − 127), 255 being NaN; or, with an outer scale, the e4m3 of c times that.
    pub fn of_bytes(x: &Tensor, scale: &Tensor, outer: Option<f32>) -> Result<Self> {
        let grain = Grain::new(x, scale)?;
        let inner = Format::new(4, 3)?.numbers();
        let s = convert(scale.slice::<u8>()?, |c| match outer {
            Some(outer) => (T::from_f32(inner[usize::from(c)]) * T::from_f32(outer)).to_f64(),
            None if c == u8::MAX => f64::NAN,
            None => power(i32::from(c) - 127),
        })?;
        Ok(Scales { grain, s: Cow::Owned(s), z: Vec::new(), missing: T::ZERO })
    }

    /// Refuses scales that decide nothing: zero, negative, infinite or NaN.
    pub fn positive(self) -> Result<Self> {
        match self.s.iter().find(|&&s| !(s > T::ZERO && s.is_finite())) {
            Some(s) => Err(Error::Value(format!("a scale is positive and finite, got {}", s.to_f64()))),
            None => Ok(self),
        }
    }

    /// The zero point where none is given.
    pub fn without(self, zero: i32) -> Self {
        Scales { missing: T::int(zero), ..self }
    }

    #[inline(always)]
    pub fn scale(&self, i: usize) -> T {
        self.s[i]
    }
    #[inline(always)]
    pub fn zero(&self, i: usize) -> T {
        self.z.get(i).copied().unwrap_or(self.missing)
    }
}

/// A float array in the compute type, copied only if it must be.
fn numbers<'a, T: Real>(x: &Tensor<'a>) -> Result<Cow<'a, [T]>> {
    if x.dtype() == T::DTYPE {
        return Ok(Cow::Borrowed(x.slice::<T>()?));
    }
    by_float!(x, A => convert(x.slice::<A>()?, |v: A| v.to_f64()).map(Cow::Owned))
}

fn convert<A: Copy, T: Real>(x: &[A], f: impl Fn(A) -> f64) -> Result<Vec<T>> {
    let mut out = try_vec(x.len(), T::ZERO)?;
    for (o, &v) in out.iter_mut().zip(x) {
        *o = T::of(f(v));
    }
    Ok(out)
}

/// Zero points: integers of any width, or floats, which are rounded to the nearest integer, half to even.
fn zeros<T: Real>(zero: &Tensor, scale: &Tensor) -> Result<Vec<T>> {
    let mut z: Vec<T> = match zero.dtype() {
        Dtype::I8 => convert(zero.slice::<i8>()?, f64::from)?,
        Dtype::U8 => convert(zero.slice::<u8>()?, f64::from)?,
        Dtype::I16 => convert(zero.slice::<i16>()?, f64::from)?,
        Dtype::I32 => convert(zero.slice::<i32>()?, f64::from)?,
        Dtype::I64 => convert(zero.slice::<i64>()?, |v| v as f64)?,
        _ => by_float!(zero, A => convert(zero.slice::<A>()?, |v: A| v.to_f64().round_ties_even()))?,
    };
    if let Some(bad) = z.iter().find(|z| !(z.abs() <= T::of(ZERO_MAX))) {
        return Err(Error::Value(format!(
            "a zero point lies within {} and {ZERO_MAX}, got {}",
            -ZERO_MAX,
            bad.to_f64()
        )));
    }
    if zero.len() == 1 && scale.len() != 1 {
        let one = z[0];
        z = try_vec(scale.len(), one)?;
    }
    if z.len() != scale.len() {
        return Err(Error::Value(format!(
            "zero points of shape {:?} for scales of shape {:?}",
            zero.shape(),
            scale.shape()
        )));
    }
    Ok(z)
}
