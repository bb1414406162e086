//! Standardisation over segments: y = γ (x − μ) r + β. The one rule: statistics are float64, and maps are
//! rounded once from it, or of float32 where two parts of a product tell as much.
//!
//! With W = Σw, c the correction and M = Σw(x − μ)²: of the variance v = M/(W − c) and r = (v + ε)^-½; of the root mean square
//! μ = 0 and v = Σwx²/W; completed (Jiang et al., 2023), v = (Σx² + (Σx)²)/(d + 1); centred alone, r = 1. Statistics may be mixed
//! with given ones, μ = αμ₀ + (1 − α)μ_b and so v.

use crate::affine::{Affine, K, both, load, store};
use crate::far::far;
use crate::forward::Forward;
use crate::narrow;
use crate::near::{self, Line};
use crate::rule::Rule;
use crate::runs;
use base::near::scaled;
use base::simd::*;
use base::store::Store;
use base::{Dtype, Result, Scalar, Tensor, by_float, try_vec};
use drivers::segments::moments::{self, Moment, Moments};
use drivers::segments::places::{self, FEW, Ids, Out, Places, Reduction};
use drivers::segments::walk::lanes;
use std::ops::Range;

pub struct Table {
    first: usize,
    moments: Moments,
    units: Vec<[f64; 2]>,
}

impl<T: Store> Reduction<K> for Forward<'_, T> {
    type Table = Table;
    fn table(&self, segments: Range<usize>) -> Result<Table> {
        let units = try_vec(segments.len(), [0.0; 2])?;
        Ok(Table { first: segments.start, moments: Moments::new(segments, self.places)?, units })
    }
    #[inline(always)]
    fn gather<S: Simd>(&self, s: S, table: &mut Table, pieces: Range<usize>) -> Result<()> {
        if self.rule.given() { Ok(()) } else { table.moments.add(s, self.places, self.x, pieces) }
    }
    fn merge(&self, into: &mut Table, later: &Table) {
        into.moments.merge(&later.moments);
    }
    fn finish(&self, table: &mut Table, segments: Range<usize>) {
        for i in segments {
            table.units[i - table.first] = self.rule.unit(i, *table.moments.get(i));
        }
    }
    fn spreads(&self) -> bool {
        true
    }
    #[inline(always)]
    fn spread<S: Simd>(&self, s: S, table: &Table, pieces: Range<usize>) -> Result<()> {
        let places = self.places;
        let single = self.gamma.single(places) && self.beta.single(places);
        let [each, mixed] =
            [places.apart() != [false; 2], !single].map(|some| if some { places.walk.longest() } else { 0 });
        let (mut ids, mut rooms) = (places.room()?, try_vec(2 * (each + each.max(mixed)), 0.0)?);
        let (affine, units) = rooms.split_at_mut(2 * each.max(mixed));
        let (one, two) = affine.split_at_mut(affine.len() / 2);
        let (mus, rs) = units.split_at_mut(each);
        places.walk.each(
            pieces,
            #[inline(always)]
            |p| {
                let (x, y) = (&self.x[p.at..p.at + p.len], self.y.part(&p));
                let unit = |id: usize| table.units[id - table.first];
                if let (Some(labels), Some(n), true) = (places.labels(&p), places.few(), single) {
                    let mut of = [Line::default(); FEW];
                    for (label, line) in of[..n].iter_mut().enumerate() {
                        let id = labels.id(label);
                        let [at, r] = unit(id);
                        *line = Line { at, by: self.gamma.of(&p, id) * r, plus: self.beta.of(&p, id), pull: 0.0 };
                    }
                    return near::lines(s, &labels, &of[..n], None, x, y);
                }
                let ids = places.ids(&p, &mut ids);
                if matches!(ids, Ids::None) {
                    return y.fill(T::default());
                }
                let Ids::One(id) = ids else {
                    let (gamma, beta) = (self.gamma.all(places, &p, &ids, one), self.beta.all(places, &p, &ids, two));
                    match ids {
                        Ids::Run(from) => {
                            for (i, [mu, r]) in table.units[from - table.first..][..p.len].iter().enumerate() {
                                (mus[i], rs[i]) = (*mu, *r);
                            }
                        }
                        _ => {
                            for i in 0..p.len {
                                [mus[i], rs[i]] = ids.at(i).map_or([0.0; 2], unit);
                            }
                        }
                    }
                    lanes(
                        p.len,
                        #[inline(always)]
                        |at, n| {
                            let (x, mu, r) = (load(s, x, at, n), load(s, mus, at, n), load(s, rs, at, n));
                            let (a, b) = (load(s, gamma, at, n), load(s, beta, at, n));
                            store(
                                s,
                                both(
                                    #[inline(always)]
                                    |k| ((x[k] - mu[k]) * r[k]).mul_add(a[k], b[k]),
                                ),
                                y,
                                at,
                                n,
                            );
                        },
                    );
                    if let Ids::Each(_) = ids {
                        y.iter_mut()
                            .enumerate()
                            .filter(|(i, _)| ids.at(*i).is_none())
                            .for_each(|(_, y)| *y = T::default());
                    }
                    return;
                };
                let [mu, r] = unit(id);
                if single {
                    let line = Line { at: mu, by: self.gamma.of(&p, id) * r, plus: self.beta.of(&p, id), pull: 0.0 };
                    return narrow::lined(s, line, x, y);
                }
                let (gamma, beta) = (self.gamma.all(places, &p, &ids, one), self.beta.all(places, &p, &ids, two));
                near::map(s, [mu, r], x, gamma, beta, y);
            },
        );
        Ok(())
    }
}

/// A forward of x, and the moments of its segments.
fn run<T: Store>(places: &Places<K>, rule: Rule, x: &[T], t: &[Tensor], segmented: bool) -> Result<Vec<Moment>> {
    let r = Forward {
        places,
        rule,
        x,
        y: Out::new(t[7].slice_mut::<T>()?),
        gamma: Affine::new(places, &t[1], 0, segmented, 1.0)?,
        beta: Affine::new(places, &t[2], 1, segmented, 0.0)?,
    };
    if let (Some(per), false) = (places.together(), r.rule.given()) {
        return runs::each(&r, per);
    }
    let mut all = try_vec(places.len, Moment::default())?;
    let tables = places::reduce(places, &r)?;
    all.iter_mut().zip(tables.iter().flat_map(|t| &t.moments.found)).for_each(|(to, m)| *to = *m);
    Ok(all)
}

/// x, γ, β, labels, weights, μ₀, v₀; y, W, mean, variance.
pub fn forward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let segmented = s[6].bool();
    let places = beside(&t[0], s, [&t[3], &t[4]], [&t[1], &t[2]])?;
    let rule = || Rule::new(s, [&t[5], &t[6]], places.len);
    for (name, t) in ["count", "mean", "var"].iter().zip(&t[8..11]) {
        t.expect(name, places.len)?;
    }
    let all = by_float!(t[0], T => run(&places, rule()?, t[0].slice::<T>()?, t, segmented))?;
    let found = |all: &[Moment]| moments::write(all.iter(), [&t[8], &t[9], &t[10]]);
    let mut rule = rule()?;
    if rule.given() {
        t[8].slice_mut::<f64>()?.fill(0.0);
        t[9].slice_mut::<f64>()?.copy_from_slice(&rule.fixed[0]);
        t[10].slice_mut::<f64>()?.copy_from_slice(&rule.fixed[1]);
        return Ok(());
    }
    if t[0].dtype() == Dtype::F64
        && let Some(far) = far(&places, &rule, t[0].slice()?, all.iter().copied())?
    {
        rule.by.clone_from(&far.by);
        found(&run(&places, rule, &far.x, t, segmented)?)?;
        let stats = t[9].slice_mut::<f64>()?.iter_mut().zip(t[10].slice_mut::<f64>()?);
        for ((mean, var), &e) in stats.zip(&far.by) {
            (*mean, *var) = (scaled(*mean, e), scaled(scaled(*var, e), e));
        }
        return Ok(());
    }
    found(&all)
}

/// The segments of `x`, with γ and β beside it or of a number for each of them.
pub fn beside(x: &Tensor, s: &[Scalar], given: [&Tensor; 2], [weight, bias]: [&Tensor; 2]) -> Result<Places<K>> {
    let named = [("weight", weight), ("bias", bias)];
    let segmented = s[6].bool();
    let [labels, sample_weight] = given;
    let weights = ("sample_weight", sample_weight);
    let places = Places::new(x, s[0].int(), s[1].int(), labels, weights, if segmented { &[] } else { &named })?;
    for (name, t) in named.iter().filter(|(_, t)| segmented && t.shape() != [0]) {
        t.expect(name, places.len)?;
    }
    Ok(places)
}
