//! The nearest rows of one set to each of another. The one rule: of equal scores the lowest row is chosen, before it is rounded.

use base::store::Store;
use base::wide::wide;
use base::{Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::pairs::{
    All, Cosine, Distance, Dot, Extent, Hamming, Hyperbolic, Item, Labels, Number, Others, Score, Sides, TopK,
};

/// The numbers of the metrics.
const L2: i64 = 0;
const INNER: i64 = 1;
const COSINE: i64 = 2;
const HYPERBOLIC: i64 = 3;

pub fn rows(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<T: Number>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let (sides, c) = (sides::<T>(t)?, t[2].number()?);
        let (k, others) = (size(s[1], sides.m)?, s[2].bool());
        let labels = labels(t, &sides)?;
        let largest = matches!(s[0].int(), INNER | COSINE);
        let top = TopK::new(sides.n, k, largest, t[6].slice_mut::<i64>()?, t[5].slice_mut::<T>()?)?;
        match s[0].int() {
            L2 => among(&sides, &Distance, labels, others, &top),
            INNER => among(&sides, &Dot, labels, others, &top),
            COSINE => among(&sides, &Cosine, labels, others, &top),
            HYPERBOLIC if c >= 0.0 && c.is_finite() => among(&sides, &Hyperbolic { c }, labels, others, &top),
            HYPERBOLIC => Err(Error::Value(format!("curvature must be finite and not negative, got {c}"))),
            other => Err(Error::Value(format!("no metric has the number {other}"))),
        }
    }
    wide(t, 3, |t| by_float!(wide t[0], T => run::<T>(t, s)))
}

pub fn codes(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let sides = sides::<u64>(t)?;
    let k = size(s[0], sides.m)?;
    let mut found = try_vec(sides.n * k, 0f64)?;
    let top = TopK::new(sides.n, k, false, t[3].slice_mut::<i64>()?, &mut found)?;
    among(&sides, &Hamming, None, s[1].bool(), &top)?;
    for (d, found) in t[2].slice_mut::<i64>()?.iter_mut().zip(found) {
        *d = if found.is_nan() { -1 } else { found as i64 };
    }
    Ok(())
}

fn sides<'a, T: Item>(t: &[Tensor<'a>]) -> Result<Sides<'a, T>> {
    let ((n, d), (m, other)) = (t[0].rows(), t[1].rows());
    if d != other {
        return Err(Error::Value(format!("rows of {d} and of {other} have no distance")));
    }
    Sides::new(t[0].slice()?, t[1].slice()?, n, m, d)
}

fn size(k: Scalar, m: usize) -> Result<usize> {
    let k = k.int();
    usize::try_from(k).map_err(|_| Error::Value(format!("k must be between 0 and {m}, got {k}")))
}

fn labels<'a, T>(t: &[Tensor<'a>], sides: &Sides<T>) -> Result<Option<Labels<'a>>> {
    if t[3].is_empty() && t[4].is_empty() {
        return Ok(None);
    }
    t[3].expect("x_labels", sides.n)?;
    t[4].expect("y_labels", sides.m)?;
    Ok(Some(Labels { x: t[3].slice()?, y: t[4].slice()?, same: true }))
}

/// The walk over the pairs that count: of equal labels if there are any, not of a row with itself if others are asked for.
fn among<T: Item<Class = Sc::Class>, Sc: Score, V: Store>(
    sides: &Sides<T>,
    score: &Sc,
    labels: Option<Labels>,
    others: bool,
    top: &TopK<V>,
) -> Result<()> {
    fn walk<T: Item<Class = Sc::Class>, Sc: Score, V: Store>(
        sides: &Sides<T>,
        score: &Sc,
        extent: &impl Extent,
        top: &TopK<V>,
    ) -> Result<()> {
        sides.run(score, extent, top)
    }
    match (labels, others) {
        (None, false) => walk(sides, score, &All, top),
        (None, true) => walk(sides, score, &Others, top),
        (Some(labels), false) => walk(sides, score, &labels, top),
        (Some(labels), true) => walk(sides, score, &(labels, Others), top),
    }
}
