//! Weight, mean and variance of segments, and what segments send to their elements. The one rule: every gradient here is
//! dx = w(b + c(x − m)) of numbers of the segment, and dw = b(x − m) + ½c(x − m)² − d.

use base::simd::*;
use base::store::Store;
use base::{Dtype, Result, Scalar, Tensor, by_float, try_vec};
use drivers::segments::moments::{self, Moment, Moments};
use drivers::segments::places::{self, Ids, OWN, Out, Places, Reduction, Weight};
use std::ops::Range;

struct Forward<'a, T> {
    places: &'a Places<OWN>,
    x: &'a [T],
}

impl<T: Store> Reduction<OWN> for Forward<'_, T> {
    type Table = Moments;
    fn table(&self, segments: Range<usize>) -> Result<Moments> {
        Moments::new(segments, self.places)
    }
    #[inline(always)]
    fn gather<S: Simd>(&self, s: S, table: &mut Moments, pieces: Range<usize>) -> Result<()> {
        table.add(s, self.places, self.x, pieces)
    }
    fn merge(&self, into: &mut Moments, later: &Moments) {
        into.merge(later);
    }
}

/// x, labels, weights; W, mean, variance.
pub fn forward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let places = Places::<OWN>::new(&t[0], s[0].int(), s[1].int(), &t[1], ("weight", &t[2]), &[])?;
    for (name, t) in ["count", "mean", "var"].iter().zip(&t[3..]) {
        t.expect(name, places.len)?;
    }
    let tables = by_float!(t[0], T => places::reduce(&places, &Forward { places: &places, x: t[0].slice::<T>()? }))?;
    let found = || tables.iter().flat_map(|t| &t.found);
    moments::write(found(), [&t[3], &t[4], &t[5]])?;
    if t[0].dtype() == Dtype::F64 && found().any(|m| !(m.mean.is_finite() && m.m2.is_finite())) {
        return far(&places, t, found());
    }
    Ok(())
}

/// Segments whose sums left the range of float64 on the way, once more, far below its end: means and variances may lie in it.
fn far<'a>(places: &Places<OWN>, t: &[Tensor], found: impl Iterator<Item = &'a Moment>) -> Result<()> {
    let mut less = try_vec(t[0].len(), 0.0)?;
    less.iter_mut().zip(t[0].slice::<f64>()?).for_each(|(l, x)| *l = x / FAR);
    let tables = places::reduce(places, &Forward { places, x: &less })?;
    let (mean, var) = (t[4].slice_mut::<f64>()?, t[5].slice_mut::<f64>()?);
    for (i, (m, again)) in found.zip(tables.iter().flat_map(|t| &t.found)).enumerate() {
        if !m.mean.is_finite() {
            mean[i] = again.mean * FAR;
        }
        if !m.m2.is_finite() {
            var[i] = again.m2 / again.w * FAR * FAR;
        }
    }
    Ok(())
}

/// 2^600: the squares of the largest numbers over it are far from both ends of the range.
const FAR: f64 = f64::from_bits((1023 + 600) << 52);

/// What a segment sends back.
#[derive(Clone, Copy, Default)]
struct Back {
    mean: f64,
    b: f64,
    c: f64,
    d: f64,
}

struct Pull<'a, T> {
    places: &'a Places<OWN>,
    x: &'a [T],
    backs: &'a [Back],
    dx: Option<Out<'a, T>>,
    /// Elements of the gradient of the weights, 0 if that is not asked for.
    size: usize,
}

impl<T: Store> Reduction<OWN> for Pull<'_, T> {
    type Table = Vec<f64>;
    fn extra(&self) -> usize {
        self.size
    }
    fn table(&self, _: Range<usize>) -> Result<Vec<f64>> {
        try_vec(self.size, 0.0)
    }
    #[inline(always)]
    fn gather<S: Simd>(&self, _: S, table: &mut Vec<f64>, pieces: Range<usize>) -> Result<()> {
        let mut room = self.places.room()?;
        self.places.walk.each(
            pieces,
            #[inline(always)]
            |p| {
                let (ids, weight) = (self.places.ids(&p, &mut room), self.places.weight(&p));
                if let Some(dx) = &self.dx {
                    let (dx, x) = (dx.part(&p), &self.x[p.at..p.at + p.len]);
                    // where the variance sends nothing, an infinite number has a slope like any other
                    let pull = |back: Back, w: f64, x: T| {
                        let own = if back.c == 0.0 { 0.0 } else { back.c * (x.to_f64() - back.mean) };
                        T::from_f64(w * (back.b + own))
                    };
                    match (&ids, &weight) {
                        (Ids::None, _) => dx.fill(T::default()),
                        (Ids::One(id), Weight::One(w)) => {
                            let back = self.backs[*id];
                            dx.iter_mut().zip(x).for_each(|(d, x)| *d = pull(back, *w, *x));
                        }
                        _ => {
                            for (i, (d, x)) in dx.iter_mut().zip(x).enumerate() {
                                *d = ids.at(i).map_or(T::default(), |id| pull(self.backs[id], weight.at(i), *x));
                            }
                        }
                    }
                }
                if self.size == 0 {
                    return;
                }
                let of = |id: usize| {
                    let Back { mean, b, c, d } = self.backs[id];
                    [mean, b, c, d]
                };
                moments::send_weights(self.places, &p, &ids, self.x, of, table);
            },
        );
        Ok(())
    }
    fn merge(&self, into: &mut Vec<f64>, later: &Vec<f64>) {
        into.iter_mut().zip(later).for_each(|(a, b)| *a += b);
    }
}

/// Writes dx and dw, as far as they are needed.
fn pull(x: &Tensor, weight: &Tensor, places: &Places<OWN>, backs: &[Back], into: &[Tensor], needs: i64) -> Result<()> {
    by_float!(x, T => {
        let dx = if needs & 1 != 0 { Some(Out::new(into[0].slice_mut::<T>()?)) } else { None };
        let size = if needs & 2 != 0 && places.weighted() { weight.len() } else { 0 };
        let tables = places::reduce(places, &Pull { places, x: x.slice::<T>()?, backs, dx, size })?;
        if size == 0 {
            return Ok(());
        }
        places::write(&into[1], &places::total(&tables, size)?)
    })
}

/// The gradients of W, mean and variance; x, labels, weights; W, mean, variance; dx, dw.
pub fn backward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (x, labels, weight) = (&t[3], &t[4], &t[5]);
    let places = Places::<OWN>::new(x, s[0].int(), s[1].int(), labels, ("weight", weight), &[])?;
    let mut of = [&[][..]; 6];
    for (slot, t) in of.iter_mut().zip(t[..3].iter().chain(&t[6..9])) {
        t.expect("a gradient or statistic", places.len)?;
        *slot = t.slice::<f64>()?;
    }
    let [gcount, gmean, gvar, count, mean, var] = of;
    let mut backs = try_vec(places.len, Back::default())?;
    for (i, back) in backs.iter_mut().enumerate() {
        *back = Back { mean: mean[i], b: gmean[i] / count[i], c: 2.0 * gvar[i] / count[i], d: 0.0 };
        back.d = gvar[i] * var[i] / count[i] - gcount[i];
    }
    pull(x, weight, &places, &backs, &t[9..11], s[2].int())
}

/// The gradient of sums; x, labels, weights; dx, dw.
pub fn sum_backward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (x, labels, weight) = (&t[1], &t[2], &t[3]);
    let places = Places::<OWN>::new(x, s[0].int(), s[1].int(), labels, ("weight", weight), &[])?;
    t[0].expect("g", places.len)?;
    let backs = places::numbers(&t[0])?.into_iter().map(|b| Back { b, ..Back::default() }).collect::<Vec<_>>();
    pull(x, weight, &places, &backs, &t[4..6], s[2].int())
}
