//! What is told of an evolved norm, and what channels of samples are divided by. The one rule: spreads are made of the moments
//! of channels of samples, which are those of the data over powers of two where their squares are no numbers.

use crate::far::{exponent, larger, odd};
use base::near::scaled;
use base::near::times;
use base::{Error, Result, Scalar, Tensor, try_vec};
use drivers::segments::moments::Moment;
use drivers::segments::places;

#[derive(Clone, Copy, PartialEq)]
pub enum Variant {
    B0,
    B1,
    B2,
    /// Of the variance of groups.
    S,
    /// Of their mean square.
    S2,
}

/// What is told: the shape [n, c, i], and numbers of the channels.
pub struct Told {
    pub shape: [usize; 3],
    pub variant: Variant,
    pub groups: usize,
    pub eps: f64,
    pub gamma: Vec<f64>,
    pub beta: Vec<f64>,
    pub v: Vec<f64>,
    /// The variances in place of the batch's.
    pub given: Option<Vec<f64>>,
    /// By which powers of two channels of samples were divided, if any was far.
    pub by: Vec<i32>,
}

impl Told {
    pub fn new(x: &Tensor, [weight, bias, v, given]: [&Tensor; 4], s: &[Scalar]) -> Result<Self> {
        let &[n, c, i] = x.shape() else {
            return Err(Error::Value(format!("x must be [n, c, i], got {:?}", x.shape())));
        };
        let variant = match s[0].int() {
            0 => Variant::B0,
            1 => Variant::B1,
            2 => Variant::B2,
            3 | 4 => Variant::S,
            5 => Variant::S2,
            other => return Err(Error::Value(format!("there is no variant {other}"))),
        };
        let groups = s[1].int().max(0) as usize;
        let grouped = matches!(variant, Variant::S | Variant::S2);
        if grouped && (groups == 0 || c % groups != 0) {
            return Err(Error::Value(format!("groups={groups} does not divide {c} channels")));
        }
        let numbers = |name: &str, t: &Tensor, absent: f64| {
            if t.shape() == [0] {
                return try_vec(c, absent);
            }
            t.expect(name, c)?;
            places::numbers(t)
        };
        let given_too = !grouped && given.shape() != [0];
        Ok(Told {
            shape: [n, c, i],
            variant,
            groups: if grouped { groups } else { 1 },
            eps: s[2].float(),
            gamma: numbers("weight", weight, 1.0)?,
            beta: numbers("bias", bias, 0.0)?,
            v: numbers("v", v, 1.0)?,
            given: if given_too { Some(numbers("running_var", given, 0.0)?) } else { None },
            by: Vec::new(),
        })
    }
    pub fn grouped(&self) -> bool {
        matches!(self.variant, Variant::S | Variant::S2)
    }
    /// The group of a channel of a sample.
    pub fn group(&self, plane: usize) -> usize {
        let c = self.shape[1];
        plane / c * self.groups + plane % c / (c / self.groups)
    }
    /// The power of two of a channel of a sample.
    pub fn power(&self, plane: usize) -> i32 {
        self.by.get(plane).map_or(0, |e| *e)
    }
    /// v of x over its power of two, whose product with that is a number.
    pub fn gate(&self, plane: usize) -> f64 {
        let (v, e) = (self.v[plane % self.shape[1]], self.power(plane));
        if e == 0 { v } else { scaled(v, e).clamp(-f64::MAX / 4.0, f64::MAX / 4.0) }
    }
    /// What is divided by one power of two: a group, a channel, or that of a sample where samples share nothing.
    pub fn shared(&self, plane: usize) -> usize {
        match (self.grouped(), &self.given) {
            (true, _) => self.group(plane),
            (_, Some(_)) => plane,
            _ => plane % self.shape[1],
        }
    }
    /// x where what it shares spreads with is near 1, if by its moments any of it may be far, and is.
    pub fn near(&mut self, x: &[f64], own: &[Moment]) -> Result<Option<Vec<f64>>> {
        let of_mean = matches!(self.variant, Variant::B1 | Variant::B2 | Variant::S2);
        let around = if self.given.is_some() { own.to_vec() } else { self.merged(own)? };
        let odd = |m: &Moment| odd(self.eps, of_mean, *m);
        if !around.iter().any(odd) {
            return Ok(None);
        }
        let i = self.shape[2];
        let mut top = try_vec(own.len().max(self.shape[0] * self.groups), self.eps.sqrt())?;
        for (at, x) in x.chunks_exact(i).enumerate() {
            let top = &mut top[self.shared(at)];
            *top = x.iter().fold(*top, |top, v| larger(top, *v));
            if let Some(given) = &self.given {
                *top = larger(*top, given[at % self.shape[1]].abs().sqrt());
            }
        }
        let mut by = try_vec(own.len(), 0)?;
        for (at, by) in by.iter_mut().enumerate() {
            *by = if odd(&around[self.shared(at)]) { exponent(top[self.shared(at)]) } else { 0 };
        }
        if by.iter().all(|e| *e == 0) {
            return Ok(None);
        }
        let mut near = try_vec(x.len(), 0.0)?;
        near.copy_from_slice(x);
        near.chunks_exact_mut(i).zip(&by).for_each(|(x, e)| times(x, -e));
        self.by = by;
        Ok(Some(near))
    }
    /// The moments of channels, or of groups, from those of the channels of samples.
    pub fn merged(&self, planes: &[Moment]) -> Result<Vec<Moment>> {
        let [n, c, _] = self.shape;
        let mut all = try_vec(if self.grouped() { n * self.groups } else { c }, Moment::default())?;
        for (at, m) in planes.iter().enumerate() {
            all[if self.grouped() { self.group(at) } else { at % c }].merge(*m);
        }
        Ok(all)
    }
    /// What a channel of a sample is divided by: a, p, q; of groups 1/d, v, 0.
    pub fn line(&self, at: usize, own: Moment, around: &[Moment]) -> Line {
        let c = at % self.shape[1];
        let e = self.power(at);
        let eps = scaled(scaled(self.eps, -e), -e);
        // of no spread what is left is the root of ε, whose own square may vanish
        let root = |v: f64| if v == 0.0 { scaled(self.eps.sqrt(), -e) } else { (v + eps).sqrt() };
        let square = |m: &Moment| m.mean * m.mean + m.m2 / m.w;
        let [a, p, q] = match self.variant {
            Variant::S => [1.0 / root(var(&around[self.group(at)])), self.gate(at), 0.0],
            Variant::S2 => [1.0 / root(square(&around[self.group(at)])), self.gate(at), 0.0],
            of => {
                let a = match &self.given {
                    Some(given) => scaled((given[c] + self.eps).sqrt(), -e),
                    None => root(var(&around[c])),
                };
                match of {
                    Variant::B0 => [a, self.v[c], root(var(&own))],
                    Variant::B1 => [a, scaled(root(square(&own)), e), root(square(&own))],
                    _ => [a, -1.0, root(square(&own))],
                }
            }
        };
        Line { a, p, q, gamma: self.gamma[c], beta: self.beta[c] }
    }
}

pub fn var(m: &Moment) -> f64 {
    m.m2 / m.w
}

#[derive(Clone, Copy, Default)]
pub struct Line {
    pub a: f64,
    pub p: f64,
    pub q: f64,
    pub gamma: f64,
    pub beta: f64,
}
