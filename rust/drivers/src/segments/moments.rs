//! Moments of neighbours: weight, mean and squares about it. The one rule: numbers whose mean is large beside their spread are
//! taken from one of their own, so that equal ones have exactly their value for a mean and no spread, whatever their size.

pub use super::moment::Moment;
use super::places::{Ids, Labels, Places, Reduction, Weight};
use super::sums::{moments, sums_of};
use super::walk::Piece;
use base::simd::*;
use base::store::Store;
use base::{Result, Tensor, try_vec};
use std::ops::Range;

/// A reduction to the moments of segments alone.
pub struct Alone<'a, T, const K: usize>(pub &'a Places<K>, pub &'a [T]);
impl<T: Store, const K: usize> Reduction<K> for Alone<'_, T, K> {
    type Table = Moments;
    fn table(&self, segments: Range<usize>) -> Result<Moments> {
        Moments::new(segments, self.0)
    }
    #[inline(always)]
    fn gather<S: Simd>(&self, s: S, table: &mut Moments, pieces: Range<usize>) -> Result<()> {
        table.add(s, self.0, self.1, pieces)
    }
    fn merge(&self, into: &mut Moments, later: &Moments) {
        into.merge(later);
    }
}

/// What numbers are taken from, where this is the first of them: 0 if it is none, since nothing is left of others less infinity.
#[inline(always)]
fn own(first: f64) -> f64 {
    if first.is_finite() { first } else { 0.0 }
}

/// The moments of the segments of a block; those that neighbours share one by one are sums about the first that was met.
pub struct Moments {
    first: usize,
    pub found: Vec<Moment>,
    /// w, p, Σw(x − p), Σw(x − p)², where neighbours lie in neighbouring segments, and where in any; empty elsewhere.
    rows: [Vec<f64>; 4],
    apart: Vec<[f64; 4]>,
}

impl Moments {
    pub fn new<const K: usize>(segments: Range<usize>, places: &Places<K>) -> Result<Self> {
        let n = segments.len();
        let [rows, apart] = places.apart().map(|some| if some { n } else { 0 });
        let room = || try_vec(rows, 0.0);
        let rows = [room()?, room()?, room()?, room()?];
        Ok(Moments {
            first: segments.start,
            found: try_vec(n, Moment::default())?,
            rows,
            apart: try_vec(apart, [0.0; 4])?,
        })
    }

    pub fn get(&self, segment: usize) -> &Moment {
        &self.found[segment - self.first]
    }

    pub fn merge(&mut self, later: &Moments) {
        for (a, b) in self.found.iter_mut().zip(&later.found) {
            a.merge(*b);
        }
    }

    /// Adds what pieces of `x` hold.
    #[inline(always)]
    pub fn add<S: Simd, T: Store, const K: usize>(
        &mut self,
        s: S,
        places: &Places<K>,
        x: &[T],
        pieces: Range<usize>,
    ) -> Result<()> {
        let mut room = places.room()?;
        places.walk.each(
            pieces,
            #[inline(always)]
            |p| {
                let x = &x[p.at..p.at + p.len];
                let weight = places.weight(&p);
                if let Some(labels) = places.labels(&p) {
                    return match (places.few(), &weight) {
                        (Some(n), Weight::One(w)) => self.marked(s, &labels, n, *w, x),
                        (_, Weight::One(w)) => self.scatter(|i| labels.at(i), |_| *w, x),
                        (_, Weight::Each(w)) => self.scatter(|i| labels.at(i), |i| w[i], x),
                    };
                }
                match (places.ids(&p, &mut room), weight) {
                    (Ids::None, _) => {}
                    (Ids::One(i), Weight::One(w)) if w > 0.0 => {
                        let m = moments(s, x);
                        self.found[i - self.first].merge(Moment { w: m.w * w, mean: m.mean, m2: m.m2 * w });
                    }
                    (_, Weight::One(w)) if !(w > 0.0) => {}
                    (Ids::Run(from), Weight::One(weight)) => self.row(from - self.first, weight, x),
                    (ids, weight) => self.scatter(|i| ids.at(i), |i| weight.at(i), x),
                }
            },
        );
        self.close();
        Ok(())
    }

    /// Neighbours of a few labels and of one weight.
    #[inline(always)]
    fn marked<S: Simd, T: Store>(&mut self, s: S, labels: &Labels, n: usize, weight: f64, x: &[T]) {
        for label in (0..n).filter(|_| weight > 0.0) {
            let apart = &mut self.apart[labels.id(label) - self.first];
            if apart[0] == 0.0 {
                let Some(at) = labels.each.iter().position(|&v| v as usize == label) else { continue };
                apart[1] = own(x[at].to_f64());
            }
            let [w, s1, s2] = sums_of(s, labels, label, x, T::from_f64(apart[1]));
            apart[0] += weight * w;
            apart[2] += weight * s1;
            apart[3] += weight * s2;
        }
    }

    /// Neighbours of neighbouring segments.
    #[inline(always)]
    fn row<T: Store>(&mut self, from: usize, weight: f64, x: &[T]) {
        let [w, p, s1, s2] = self.rows.each_mut().map(|v| &mut v[from..from + x.len()]);
        if w[0] == 0.0 {
            for (p, x) in p.iter_mut().zip(x) {
                *p = own(x.to_f64());
            }
        }
        for i in 0..x.len() {
            let d = x[i].to_f64() - p[i];
            w[i] += weight;
            s1[i] += weight * d;
            s2[i] += weight * d * d;
        }
    }

    /// Neighbours of any segments, with any weights.
    #[inline(always)]
    fn scatter<T: Store>(&mut self, id: impl Fn(usize) -> Option<usize>, weight: impl Fn(usize) -> f64, x: &[T]) {
        let apart = &mut self.apart[..];
        for (i, x) in x.iter().enumerate() {
            let (Some(at), weight) = (id(i), weight(i)) else { continue };
            if !(weight > 0.0) {
                continue;
            }
            let (a, x) = (&mut apart[at - self.first], x.to_f64());
            if a[0] == 0.0 {
                a[1] = own(x);
            }
            let d = x - a[1];
            *a = [a[0] + weight, a[1], a[2] + weight * d, a[3] + weight * d * d];
        }
    }

    /// What was met one by one joins the rest.
    #[inline(always)]
    fn close(&mut self) {
        let [w, p, s1, s2] = &mut self.rows;
        for (i, w) in w.iter_mut().enumerate().filter(|(_, w)| **w != 0.0) {
            self.found[i].merge(Moment::about(p[i], *w, s1[i], s2[i]));
            (*w, s1[i], s2[i]) = (0.0, 0.0, 0.0);
        }
        for (found, a) in self.found.iter_mut().zip(&mut self.apart).filter(|(_, a)| a[0] != 0.0) {
            found.merge(Moment::about(a[1], a[0], a[2], a[3]));
            *a = [0.0; 4];
        }
    }
}

/// Adds what the elements of a piece send to their weights, b(x − m) + ½c(x − m)² − d with [m, b, c, d] of the segment.
#[inline(always)]
pub fn send_weights<T: Store, const K: usize>(
    places: &Places<K>,
    p: &Piece<K>,
    ids: &Ids,
    x: &[T],
    of: impl Fn(usize) -> [f64; 4],
    table: &mut [f64],
) {
    let (at, step) = places.weight_place(p);
    for (i, x) in x[p.at..p.at + p.len].iter().enumerate() {
        let Some(id) = ids.at(i) else { continue };
        let [mean, b, c, d] = of(id);
        let u = x.to_f64() - mean;
        // where the variance sends nothing, the square of what is infinite does not matter
        table[at + i * step] += u * if c == 0.0 { b } else { 0.5 * c * u + b } - d;
    }
}

/// Writes W, mean and variance of segments, which have none where they are empty.
pub fn write<'a>(found: impl Iterator<Item = &'a Moment>, [count, mean, var]: [&Tensor; 3]) -> Result<()> {
    let (count, mean, var) = (count.slice_mut::<f64>()?, mean.slice_mut::<f64>()?, var.slice_mut::<f64>()?);
    for (i, m) in found.enumerate() {
        let none = m.w == 0.0;
        (count[i], mean[i], var[i]) =
            (m.w, if none { f64::NAN } else { m.mean }, if none { f64::NAN } else { m.m2 / m.w });
    }
    Ok(())
}
