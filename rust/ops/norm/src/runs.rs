//! Segments that are runs of the array: each is met while it is in the nearest caches, its moments first. The one rule: what is
//! read twice is read from there, and a run costs no table.

use crate::forward::Forward;
use crate::near::{self, Line};
use base::simd::*;
use base::store::Store;
use base::{Result, try_vec};
use drivers::blocks;
use drivers::segments::moments::Moment;
use drivers::segments::places::{BLOCK, Ids};
use drivers::segments::{moments_of, squares};
use std::ops::Range;

/// Standardises runs of `per` pieces each, and gives their moments.
pub fn each<T: Store>(of: &Forward<T>, per: usize) -> Result<Vec<Moment>> {
    let (n, len) = (of.places.len, of.x.len() / of.places.len.max(1));
    let parts = blocks::map(n, BLOCK / len.max(1), of.x.len(), |runs| {
        let mut found = try_vec(runs.len(), Moment::default())?;
        dispatch(Block { of, per, len, runs, found: &mut found })?;
        Ok(found)
    })?;
    let mut all = try_vec(n, Moment::default())?;
    all.iter_mut().zip(parts.iter().flatten()).for_each(|(to, m)| *to = *m);
    Ok(all)
}

struct Block<'a, T> {
    of: &'a Forward<'a, T>,
    per: usize,
    len: usize,
    runs: Range<usize>,
    found: &'a mut [Moment],
}

impl<T: Store> Kernel for Block<'_, T> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<()> {
        let Block { of: Forward { places, rule, x, y, gamma, beta }, per, len, runs, found } = self;
        let single = gamma.single(places) && beta.single(places);
        let room = if single { 0 } else { places.walk.longest() };
        let (mut one, mut two) = (try_vec(room, 0.0)?, try_vec(room, 0.0)?);
        let (mut id, mut left, mut unit) = (runs.start, 0, [0.0; 2]);
        places.walk.each(
            runs.start * per..runs.end * per,
            #[inline(always)]
            |p| {
                if left == 0 {
                    let m = moments(s, &x[p.at..p.at + len]);
                    (found[id - runs.start], unit, left) = (m, rule.unit(id, m), per);
                }
                let (x, y) = (&x[p.at..p.at + p.len], y.part(&p));
                if single {
                    let [at, r] = unit;
                    line(s, Line { at, by: gamma.of(&p, id) * r, plus: beta.of(&p, id), pull: 0.0 }, x, y);
                } else {
                    let ids = Ids::One(id);
                    let (a, b) = (gamma.all(places, &p, &ids, &mut one), beta.all(places, &p, &ids, &mut two));
                    near::mapped(s, unit, x, a, b, y);
                }
                left -= 1;
                id += usize::from(left == 0);
            },
        );
        Ok(())
    }
}

/// Rows over the root of the mean of their squares, of γ for each of a row.
pub fn rms<T: Store>(x: &[T], gamma: &[f64], eps: f64, y: &mut [T]) -> Result<()> {
    let d = gamma.len();
    blocks::fill(y, d, 1, |first, y| {
        dispatch(Rms { x: &x[first * d..][..y.len()], gamma, eps, y });
        Ok(())
    })
}

struct Rms<'a, T> {
    x: &'a [T],
    gamma: &'a [f64],
    eps: f64,
    y: &'a mut [T],
}

impl<T: Store> Kernel for Rms<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Rms { x, gamma, eps, y } = self;
        let d = gamma.len();
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            let mean = square(s, x) / d as f64;
            near::weighed(s, 1.0 / (mean + eps).sqrt(), x, gamma, y);
        }
    }
}

/// [`squares`] as a function of its own.
#[inline(never)]
fn square<S: Simd, T: Store>(s: S, x: &[T]) -> f64 {
    s.vectorize(
        #[inline(always)]
        || squares(s, x),
    )
}

/// [`moments_of`] as a function of its own.
#[inline(never)]
fn moments<S: Simd, T: Store>(s: S, x: &[T]) -> Moment {
    s.vectorize(
        #[inline(always)]
        || moments_of(s, x),
    )
}

/// [`near::line`] as a function of its own.
#[inline(never)]
fn line<S: Simd, T: Store>(s: S, of: Line, x: &[T], y: &mut [T]) {
    s.vectorize(
        #[inline(always)]
        || near::line(s, of, x, y),
    );
}
