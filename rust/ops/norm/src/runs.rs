//! Segments that are runs of the array: each is met while it is in the nearest caches, its moments first. The one rule: what is
//! read twice is read from there, and a run costs no table.

use crate::affine::K;
use crate::forward::Forward;
use crate::narrow::{self, Affine, Parts, Row};
use crate::near::{self, Line};
use base::simd::*;
use base::store::Store;
use base::{Result, Tensor, try_vec};
use drivers::blocks;
use drivers::segments::moments::Moment;
use drivers::segments::places::{self, BLOCK, Ids};
use drivers::segments::walk::Piece;
use drivers::segments::{moments_of, squares};
use std::ops::Range;

/// Standardises runs of `per` pieces each, and gives their moments.
pub fn each<T: Store>(of: &Forward<T>, per: usize) -> Result<Vec<Moment>> {
    let (n, len) = (of.places.len, of.x.len() / of.places.len.max(1));
    let single = of.gamma.single(of.places) && of.beta.single(of.places);
    let row = match [&of.gamma, &of.beta].map(|a| a.row(of.places)) {
        [Some(gamma), Some(beta)] if per == 1 && !single => Some(Row::new::<T>(gamma, beta)?),
        _ => None,
    };
    let parts = blocks::map(n, BLOCK / len.max(1), of.x.len(), |runs| {
        let mut found = try_vec(runs.len(), Moment::default())?;
        dispatch(Block { of, row: row.as_ref(), per, len, runs, found: &mut found })?;
        Ok(found)
    })?;
    let mut all = try_vec(n, Moment::default())?;
    all.iter_mut().zip(parts.iter().flatten()).for_each(|(to, m)| *to = *m);
    Ok(all)
}

struct Block<'a, T> {
    of: &'a Forward<'a, T>,
    row: Option<&'a Row<'a>>,
    per: usize,
    len: usize,
    runs: Range<usize>,
    found: &'a mut [Moment],
}

impl<T: Store> Kernel for Block<'_, T> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<()> {
        let Block { of, row, per, len, runs, found } = self;
        let Forward { places, rule, x, y, gamma, beta } = of;
        if let Some(row) = row {
            rows(s, of, row, runs, found);
            return Ok(());
        }
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

/// Rows of γ and β for each of a row: what is asked of the next is asked before a root is waited for.
#[inline(always)]
fn rows<S: Simd, T: Store>(s: S, of: &Forward<T>, affine: &Row, runs: Range<usize>, found: &mut [Moment]) {
    let (len, end) = (affine.gamma.len(), runs.end);
    let row = |id: usize| &of.x[id * len..(id + 1) * len];
    let mut next = moments(s, row(runs.start));
    for (id, found) in runs.zip(found) {
        *found = next;
        let unit = of.rule.unit(id, next);
        if id + 1 < end {
            next = moments(s, row(id + 1));
        }
        let p = Piece { at: id * len, len, of: [0; K] };
        mapped(s, unit, affine, row(id), of.y.part(&p));
    }
}

/// y = γ(x − μ)r + β of a row, of float32 in float32 where that will do.
#[inline(always)]
pub fn mapped<S: Simd, T: Store>(s: S, [mu, r]: [f64; 2], of: &Row, x: &[T], y: &mut [T]) {
    if !of.near::<S, T>(s, mu, r).is_some_and(|(parts, affine)| own(s, parts, affine, x, y)) {
        near::mapped(s, [mu, r], x, of.gamma, of.beta, y);
    }
}

/// [`narrow::map`] as a function of its own.
#[inline(never)]
fn own<S: Simd, T: Store>(s: S, of: Parts, affine: &Affine, x: &[T], y: &mut [T]) -> bool {
    s.vectorize(
        #[inline(always)]
        || narrow::map(s, of, x, affine, y),
    )
}

/// Rows over the root of the mean of their squares, times a γ for all of them or, of float32, for each; without x, those that y
/// holds.
pub fn rms<T: Store>(x: Option<&[T]>, gamma: &Tensor, d: usize, eps: f64, y: &mut [T]) -> Result<()> {
    let run = |first: usize, y: &mut [T], of: &Row| {
        let x = x.map(|x| &x[first * d..][..y.len()]);
        // a row that is written over is kept, as it may be met again
        let own = if x.is_none() { try_vec(d, T::default())? } else { Vec::new() };
        dispatch(Rms { x, own, of, eps, y });
        Ok(())
    };
    if gamma.len() == d {
        let gamma = places::numbers(gamma)?;
        let of = Row::new::<T>(&gamma, &gamma)?;
        return blocks::fill(y, d, 1, |first, y| run(first, y, &of));
    }
    let gammas = gamma.slice::<f32>()?;
    blocks::fill(y, d, 1, |first, y| {
        let mut gamma = try_vec(d, 0.0)?;
        for (r, y) in y.chunks_exact_mut(d).enumerate() {
            gamma.iter_mut().zip(&gammas[(first + r) * d..]).for_each(|(to, v)| *to = f64::from(*v));
            run(first + r, y, &Row::new::<T>(&gamma, &gamma)?)?;
        }
        Ok(())
    })
}

struct Rms<'a, T> {
    x: Option<&'a [T]>,
    own: Vec<T>,
    of: &'a Row<'a>,
    eps: f64,
    y: &'a mut [T],
}

impl<T: Store> Kernel for Rms<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Rms { x, mut own, of, eps, y } = self;
        let d = of.gamma.len();
        let unit = |x: &[T]| 1.0 / (square(s, x) / d as f64 + eps).sqrt();
        let mut r = unit(&x.unwrap_or(y)[..d]);
        for at in (0..y.len()).step_by(d) {
            // before this one is waited for
            let next = x.unwrap_or(y)[at + d..].chunks_exact(d).next().map(unit);
            let y = &mut y[at..][..d];
            let row = match x {
                Some(x) => &x[at..][..d],
                None => {
                    own.copy_from_slice(y);
                    &own[..]
                }
            };
            weighed(s, r, of, row, y);
            r = next.unwrap_or_default();
        }
    }
}

/// y = γ r x, of float32 in float32 where that will do.
#[inline(always)]
pub fn weighed<S: Simd, T: Store>(s: S, r: f64, of: &Row, x: &[T], y: &mut [T]) {
    if !of.near::<S, T>(s, 0.0, r).is_some_and(|(parts, affine)| scaled(s, parts, affine, x, y)) {
        near::weighed(s, r, x, of.gamma, y);
    }
}

/// [`narrow::weighed`] as a function of its own.
#[inline(never)]
fn scaled<S: Simd, T: Store>(s: S, of: Parts, affine: &Affine, x: &[T], y: &mut [T]) -> bool {
    s.vectorize(
        #[inline(always)]
        || narrow::weighed(s, of, x, affine, y),
    )
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

/// [`narrow::lined`] as a function of its own.
#[inline(never)]
fn line<S: Simd, T: Store>(s: S, of: Line, x: &[T], y: &mut [T]) {
    s.vectorize(
        #[inline(always)]
        || narrow::lined(s, of, x, y),
    );
}
