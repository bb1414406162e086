//! Segments of float64 whose squares are no ordinary numbers. The one rule: they are brought near 1 by powers of two, with all
//! that is measured as they are, so that what has no size of its own stays what it is.

use crate::affine::K;
use crate::rule::{Mode, Rule};
use base::near::scaled;
use base::{Result, try_vec};
use drivers::segments::moments::{Alone, Moment};
use drivers::segments::places::{self, Places};

/// Exponents of segments whose squares, those of differences by an ulp, and their third powers are ordinary numbers.
const ORDINARY: std::ops::RangeInclusive<i32> = -250..=320;
const fn power(e: i64) -> f64 {
    f64::from_bits(((1023 + e) as u64) << 52)
}
const LEAST: f64 = power(-700);
const MOST: f64 = power(700);

/// Segments x = x' · 2^by.
pub struct Far {
    pub x: Vec<f64>,
    pub by: Vec<i32>,
}

/// Whether what is made of the squares of a segment may be no ordinary number: of its `mean` too, or of its spread alone, of
/// which equal numbers have none, whatever their size.
pub fn odd(eps: f64, mean: bool, m: Moment) -> bool {
    let small = eps < LEAST && m.m2 < LEAST && !(m.m2 == 0.0 && m.mean.abs() >= power(-250));
    m.w != 0.0 && (small || !(m.m2 <= MOST) || (mean && !(m.mean.abs() <= power(320))))
}

/// The segments of `x`, if by their moments any of them may be far, and is; one that is not finite is not.
pub fn far(places: &Places<K>, rule: &Rule, x: &[f64], moments: impl Iterator<Item = Moment>) -> Result<Option<Far>> {
    let of_mean = matches!(rule.mode, Mode::Rms | Mode::Crms);
    let odd = |m: Moment| !rule.given() && odd(rule.eps, of_mean, m);
    // most often there is none, and nothing is kept
    let mut moments = moments.enumerate().skip_while(|(_, m)| !odd(*m)).peekable();
    if moments.peek().is_none() {
        return Ok(None);
    }
    let mut odds = try_vec(places.len, false)?;
    moments.for_each(|(i, m)| odds[i] = odd(m));
    let all = 0..places.walk.pieces();
    // what an ε or a given statistic is that is larger is what a segment is near to
    let mut top = try_vec(places.len, rule.eps.sqrt())?;
    if rule.alpha != 0.0 {
        for ((top, mu), v) in top.iter_mut().zip(&rule.fixed[0]).zip(&rule.fixed[1]) {
            *top = top.max(mu.abs()).max(v.abs().sqrt());
        }
    }
    let mut room = places.room()?;
    places.walk.each(all.clone(), |p| {
        let (ids, weight) = (places.ids(&p, &mut room), places.weight(&p));
        for (i, v) in x[p.at..p.at + p.len].iter().enumerate().filter(|(i, _)| weight.at(*i) > 0.0) {
            if let Some(id) = ids.at(i) {
                top[id] = larger(top[id], *v);
            }
        }
    });
    let mut by = try_vec(places.len, 0)?;
    for ((by, top), _) in by.iter_mut().zip(&top).zip(&odds).filter(|(_, odd)| **odd) {
        *by = exponent(*top);
    }
    if by.iter().all(|e| *e == 0) {
        return Ok(None);
    }
    let mut near = try_vec(x.len(), 0.0)?;
    near.copy_from_slice(x);
    places.walk.each(all, |p| {
        let ids = places.ids(&p, &mut room);
        for (i, v) in near[p.at..p.at + p.len].iter_mut().enumerate() {
            *v = scaled(*v, ids.at(i).map_or(0, |id| -by[id]));
        }
    });
    Ok(Some(Far { x: near, by }))
}

/// The larger of a magnitude and that of a number, NaN if one is.
pub fn larger(top: f64, v: f64) -> f64 {
    if v.abs() > top || v.is_nan() { v.abs() } else { top }
}

/// The power of two that what is as large as that is divided by; 0 if it is no ordinary size, or needs none.
pub fn exponent(top: f64) -> i32 {
    let e = (top.to_bits() >> 52) as i32 - 1023;
    if top > 0.0 && top.is_finite() && !ORDINARY.contains(&e) { e } else { 0 }
}

impl Far {
    /// W, mean and variance of what is near.
    pub fn moments(&self, places: &Places<K>) -> Result<[Vec<f64>; 3]> {
        let mut stats = [try_vec(0, 0.0)?, try_vec(0, 0.0)?, try_vec(0, 0.0)?];
        for m in places::reduce(places, &Alone(places, &self.x))?.iter().flat_map(|t| &t.found) {
            for (to, v) in stats.iter_mut().zip([m.w, m.mean, m.m2 / m.w]) {
                to.push(v);
            }
        }
        Ok(stats)
    }
}
