//! The gradient of a standardisation. The one rule: only what is asked is computed, read and written.
//!
//! With h = γg, z = (x − μ)r, H = Σh and A = Σhz of a segment, statistics send back w(B + C(x − μ_b)): for the variance
//! B = −(1 − α)rH/W and C = −(1 − α)r²A/(W − c); dx = rh + w(B + C(x − μ_b)), dγ = Σgz, dβ = Σg and
//! dw = B(x − μ_b) + ½C(x − μ_b)² − D, where D = ½Cv. What comes in for W, μ_b and v_b is added to B, C and D.

use crate::affine::{Affine, K, both, load, store};
use crate::far::far;
use crate::near::{self, Line};
use crate::rule::{Mode, Rule};
use crate::standardize::beside;
use base::near::scaled;
use base::simd::*;
use base::store::Store;
use base::{Dtype, Result, Scalar, Tensor, by_float, try_vec};
use drivers::segments::moments::{self, Moment};
use drivers::segments::places::{self, FEW, Ids, Out, Places, Reduction, Weight};
use drivers::segments::walk::lanes;
use std::ops::Range;

/// The bits of `needs`.
const DX: i64 = 1;
const DWEIGHT: i64 = 2;
const DBIAS: i64 = 4;
const DSAMPLE: i64 = 8;

/// What a segment knows: μ, r, μ_b, and what it sends back.
#[derive(Clone, Copy, Default)]
struct Back {
    mu: f64,
    r: f64,
    mean: f64,
    b: f64,
    c: f64,
    d: f64,
}

struct Pull<'a, T> {
    places: &'a Places<K>,
    rule: Rule,
    /// W, μ_b, v_b and their gradients.
    stats: [&'a [f64]; 3],
    into: [&'a [f64]; 3],
    g: &'a [T],
    x: &'a [T],
    dx: Option<Out<'a, T>>,
    gamma: Affine,
    beta: Affine,
    /// Sizes of dγ and dβ, as far as they are wanted.
    sizes: [usize; 2],
}

struct Table {
    first: usize,
    backs: Vec<Back>,
    /// H and A.
    sums: Vec<[f64; 2]>,
    affine: [Vec<f64>; 2],
}

impl<T> Pull<'_, T> {
    fn unit(&self, i: usize) -> Back {
        let [w, mean, var] = self.stats.map(|v| v[i]);
        let [mu, r] = self.rule.unit(i, Moment { w, mean, m2: var * w });
        Back { mu, r, mean, ..Back::default() }
    }
    fn back(&self, i: usize, [h, a]: [f64; 2]) -> Back {
        let (mut back, [w, mean, var]) = (self.unit(i), self.stats.map(|v| v[i]));
        if self.rule.given() || w == 0.0 {
            return back;
        }
        let (r, part) = (back.r, 1.0 - self.rule.alpha);
        let [gw, gm, gv] = self.into.map(|v| v[i]);
        let (b, c, d) = match self.rule.mode {
            Mode::Var => {
                let free = w - self.rule.correction;
                let c = -part * r * r * a / free;
                (-part * r * h / w, c, 0.5 * c * var * (w / free))
            }
            Mode::Rms => {
                let c = -r * r * a / w;
                (c * mean, c, 0.5 * c * var)
            }
            Mode::Crms => {
                let c = -r * r * a / (w + 1.0);
                (c * mean * (1.0 + w), c, 0.0)
            }
            Mode::Centre => (-r * h / w, 0.0, 0.0),
        };
        // of x that was divided by 2^e; what comes in is of statistics of x itself
        let e = self.rule.power(i);
        back.r = scaled(r, -e);
        back.b = scaled(b, -e) + gm / w;
        back.c = scaled(c, -e) + 2.0 * scaled(gv, e) / w;
        back.d = d + scaled(scaled(gv, e), e) * var / w - gw;
        back
    }
}

impl<T: Store> Reduction<K> for Pull<'_, T> {
    type Table = Table;
    fn extra(&self) -> usize {
        self.sizes.iter().sum()
    }
    fn table(&self, segments: Range<usize>) -> Result<Table> {
        let mut backs = try_vec(segments.len(), Back::default())?;
        for (back, i) in backs.iter_mut().zip(segments.clone()) {
            *back = self.unit(i);
        }
        let affine = [try_vec(self.sizes[0], 0.0)?, try_vec(self.sizes[1], 0.0)?];
        Ok(Table { first: segments.start, backs, sums: try_vec(segments.len(), [0.0; 2])?, affine })
    }
    #[inline(always)]
    fn gather<S: Simd>(&self, s: S, table: &mut Table, pieces: Range<usize>) -> Result<()> {
        let places = self.places;
        let Table { first, backs, sums, affine: [dgamma, dbeta] } = table;
        let single = self.gamma.single(places) && (dbeta.is_empty() || self.beta.single(places));
        let [each, mixed] =
            [places.apart() != [false; 2], !single].map(|some| if some { places.walk.longest() } else { 0 });
        let (mut ids, mut rooms) = (places.room()?, try_vec(2 * each + each.max(mixed), 0.0)?);
        let (one, rooms) = rooms.split_at_mut(each.max(mixed));
        let (zs, hs) = rooms.split_at_mut(each);
        places.walk.each(
            pieces,
            #[inline(always)]
            |p| {
                let (g, x) = (&self.g[p.at..p.at + p.len], &self.x[p.at..p.at + p.len]);
                // γ and β are one, or one is absent or not asked for
                let mut sent = |id: usize, [sum, along]: [f64; 2], dgamma: &mut [f64], dbeta: &mut [f64]| {
                    let along = along * backs[id - *first].r;
                    let (gamma, to) = (self.gamma.of(&p, id), &mut sums[id - *first]);
                    *to = [to[0] + gamma * sum, to[1] + gamma * along];
                    self.gamma.send_one(&p, id, dgamma, along);
                    self.beta.send_one(&p, id, dbeta, sum);
                };
                if let (Some(labels), Some(n), true) = (places.labels(&p), places.few(), single) {
                    for label in 0..n {
                        let id = labels.id(label);
                        let found = near::along_of(s, &labels, label, backs[id - *first].mu, g, x);
                        sent(id, found, dgamma, dbeta);
                    }
                    return;
                }
                let ids = places.ids(&p, &mut ids);
                if let Ids::None = ids {
                    return;
                }
                if let Ids::One(id) = ids {
                    let Back { mu, r, .. } = backs[id - *first];
                    if single {
                        return sent(id, near::along(s, mu, g, x), dgamma, dbeta);
                    }
                    let gamma = self.gamma.all(places, &p, &ids, one);
                    let own = [self.gamma.each(places, &p), self.beta.each(places, &p)];
                    let [for_gamma, for_beta] = own.clone();
                    let dg = for_gamma.filter(|_| !dgamma.is_empty()).map_or(&mut [][..], |at| &mut dgamma[at]);
                    let db = for_beta.filter(|_| !dbeta.is_empty()).map_or(&mut [][..], |at| &mut dbeta[at]);
                    let found = near::pull(s, [mu, r], (g, x), gamma, [dg, db]);
                    let to = &mut sums[id - *first];
                    *to = [to[0] + found[0], to[1] + found[1]];
                    // what is one number beside one for each
                    let [g_each, b_each] = own.map(|at| at.is_some());
                    if (!g_each && !dgamma.is_empty()) || (!b_each && !dbeta.is_empty()) {
                        let [sum, along] = near::along(s, mu, g, x);
                        self.gamma.send_one(&p, id, if g_each { &mut [] } else { dgamma }, along * r);
                        self.beta.send_one(&p, id, if b_each { &mut [] } else { dbeta }, sum);
                    }
                    return;
                }
                let gamma = self.gamma.all(places, &p, &ids, one);
                if let Ids::Run(from) = ids {
                    let from = from - *first;
                    for (i, (back, to)) in backs[from..].iter().zip(&mut sums[from..]).take(p.len).enumerate() {
                        let g = g[i].to_f64();
                        let z = (x[i].to_f64() - back.mu) * back.r;
                        (zs[i], hs[i]) = (g * z, g);
                        *to = [to[0] + g * gamma[i], to[1] + g * gamma[i] * z];
                    }
                } else {
                    for i in 0..p.len {
                        (zs[i], hs[i]) = (0.0, 0.0);
                        let Some(id) = ids.at(i) else { continue };
                        let (g, back) = (g[i].to_f64(), &backs[id - *first]);
                        let z = (x[i].to_f64() - back.mu) * back.r;
                        (zs[i], hs[i]) = (g * z, g);
                        let to = &mut sums[id - *first];
                        *to = [to[0] + g * gamma[i], to[1] + g * gamma[i] * z];
                    }
                }
                self.gamma.send(places, &p, &ids, dgamma, &zs[..p.len]);
                self.beta.send(places, &p, &ids, dbeta, &hs[..p.len]);
            },
        );
        Ok(())
    }
    fn merge(&self, into: &mut Table, later: &Table) {
        for (a, b) in into.sums.iter_mut().zip(&later.sums) {
            *a = [a[0] + b[0], a[1] + b[1]];
        }
        for (a, b) in into.affine.iter_mut().zip(&later.affine) {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        }
    }
    fn finish(&self, table: &mut Table, segments: Range<usize>) {
        for i in segments {
            table.backs[i - table.first] = self.back(i, table.sums[i - table.first]);
        }
    }
    fn spreads(&self) -> bool {
        self.dx.is_some()
    }
    #[inline(always)]
    fn spread<S: Simd>(&self, s: S, table: &Table, pieces: Range<usize>) -> Result<()> {
        let (places, Some(dx)) = (self.places, &self.dx) else { return Ok(()) };
        let each = if places.apart() == [false; 2] { 0 } else { places.walk.longest() };
        let (mut ids, mut rooms) = (places.room()?, try_vec(5 * each, 0.0)?);
        let (one, rooms) = rooms.split_at_mut(each);
        let (scale, rooms) = rooms.split_at_mut(each);
        let (mean, rooms) = rooms.split_at_mut(each);
        let (bs, cs) = rooms.split_at_mut(each);
        places.walk.each(
            pieces,
            #[inline(always)]
            |p| {
                let (g, x) = (&self.g[p.at..p.at + p.len], &self.x[p.at..p.at + p.len]);
                let dx = dx.part(&p);
                let weight = places.weight(&p);
                let line = |id: usize, w: f64, gamma: f64| {
                    let Back { r, mean, b, c, .. } = table.backs[id - table.first];
                    Line { at: mean, by: w * c, plus: w * b, pull: gamma * r }
                };
                if let (Some(labels), Some(n), Weight::One(w)) = (places.labels(&p), places.few(), &weight)
                    && self.gamma.single(places)
                {
                    let mut of = [Line::default(); FEW];
                    for (label, to) in of[..n].iter_mut().enumerate() {
                        let id = labels.id(label);
                        *to = line(id, *w, self.gamma.of(&p, id));
                    }
                    return near::lines(s, &labels, &of[..n], Some(g), x, dx);
                }
                let ids = places.ids(&p, &mut ids);
                if let Ids::None = ids {
                    return dx.fill(T::default());
                }
                if let (Ids::One(id), Weight::One(w)) = (&ids, &weight) {
                    if self.gamma.single(places) {
                        return near::sent(s, line(*id, *w, self.gamma.of(&p, *id)), None, g, x, dx);
                    }
                    let gamma = self.gamma.all(places, &p, &ids, one);
                    return near::sent(s, line(*id, *w, 1.0), Some(gamma), g, x, dx);
                }
                let gamma = self.gamma.all(places, &p, &ids, one);
                for i in 0..p.len {
                    let back = ids.at(i).map_or(Back::default(), |id| table.backs[id - table.first]);
                    let w = weight.at(i);
                    (scale[i], mean[i], bs[i], cs[i]) = (gamma[i] * back.r, back.mean, w * back.b, w * back.c);
                }
                lanes(
                    p.len,
                    #[inline(always)]
                    |at, n| {
                        let (g, x, a) = (load(s, g, at, n), load(s, x, at, n), load(s, scale, at, n));
                        let (m, b, c) = (load(s, mean, at, n), load(s, bs, at, n), load(s, cs, at, n));
                        store(
                            s,
                            both(
                                #[inline(always)]
                                |k| g[k].mul_add(a[k], (x[k] - m[k]).mul_add(c[k], b[k])),
                            ),
                            dx,
                            at,
                            n,
                        );
                    },
                );
                if let Ids::Each(_) = ids {
                    dx.iter_mut()
                        .enumerate()
                        .filter(|(i, _)| ids.at(*i).is_none())
                        .for_each(|(_, d)| *d = T::default());
                }
            },
        );
        Ok(())
    }
}

/// The gradient of weights, once it is known what segments send back.
struct Weighed<'a, T> {
    places: &'a Places<K>,
    rule: &'a Rule,
    backs: &'a [Back],
    x: &'a [T],
    size: usize,
}

impl<T: Store> Reduction<K> for Weighed<'_, T> {
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
                let ids = self.places.ids(&p, &mut room);
                let of = |id: usize| {
                    let (Back { mean, b, c, d, .. }, e) = (self.backs[id], self.rule.power(id));
                    [mean, scaled(b, e), scaled(c, e), d]
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

/// g, those of W, mean and variance, x, γ, β, labels, weights, μ₀, v₀, W, mean, variance; dx, dγ, dβ, dw.
pub fn backward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let [x, weight, bias, labels, sample] = [&t[4], &t[5], &t[6], &t[7], &t[8]];
    let (needs, segmented) = (s[7].int(), s[6].bool());
    let places = beside(x, s, [labels, sample], [weight, bias])?;
    t[0].expect("g", x.len())?;
    for (name, t) in
        ["gcount", "gmean", "gvar"].iter().zip(&t[1..4]).chain(["count", "mean", "var"].iter().zip(&t[11..14]))
    {
        t.expect(name, places.len)?;
    }
    let of = |at: usize| -> Result<[&[f64]; 3]> { Ok([t[at].slice()?, t[at + 1].slice()?, t[at + 2].slice()?]) };
    let mut rule = Rule::new(s, [&t[9], &t[10]], places.len)?;
    let stats = of(11)?;
    if x.dtype() == Dtype::F64 {
        let moment = |i: usize| Moment { w: stats[0][i], mean: stats[1][i], m2: stats[2][i] * stats[0][i] };
        if let Some(far) = far(&places, &rule, x.slice()?, (0..places.len).map(moment))? {
            let near = far.moments(&places)?;
            rule.by = far.by;
            return run::<f64>(&places, rule, &far.x, near.each_ref().map(|v| &v[..]), of(1)?, t, (needs, segmented));
        }
    }
    by_float!(x, T => run::<T>(&places, rule, x.slice()?, stats, of(1)?, t, (needs, segmented)))
}

/// The gradient of a standardisation of x.
fn run<T: Store>(
    places: &Places<K>,
    rule: Rule,
    x: &[T],
    stats: [&[f64]; 3],
    into: [&[f64]; 3],
    t: &[Tensor],
    (needs, segmented): (i64, bool),
) -> Result<()> {
    let [weight, bias, sample] = [&t[5], &t[6], &t[8]];
    let size = |bit: i64, p: &Tensor| if needs & bit != 0 && p.shape() != [0] { p.len() } else { 0 };
    let pull = Pull {
        places,
        rule,
        stats,
        into,
        g: t[0].slice::<T>()?,
        x,
        dx: if needs & DX != 0 { Some(Out::new(t[14].slice_mut::<T>()?)) } else { None },
        gamma: Affine::new(places, weight, 0, segmented, 1.0)?,
        beta: Affine::new(places, bias, 1, segmented, 0.0)?,
        sizes: [size(DWEIGHT, weight), size(DBIAS, bias)],
    };
    let (mut backs, mut sums) = (try_vec(0, Back::default())?, pull.sizes.map(|n| vec![0.0; n]));
    for table in places::reduce(places, &pull)? {
        for (sum, v) in sums.iter_mut().zip(&table.affine) {
            sum.iter_mut().zip(v).for_each(|(a, b)| *a += b);
        }
        backs.extend(table.backs);
    }
    for (t, sum) in t[15..17].iter().zip(sums).filter(|(_, sum)| !sum.is_empty()) {
        places::write(t, &sum)?;
    }
    if needs & DSAMPLE != 0 && places.weighted() {
        let weighed = Weighed { places, rule: &pull.rule, backs: &backs, x, size: sample.len() };
        places::write(&t[17], &places::total(&places::reduce(places, &weighed)?, sample.len())?)?;
    }
    Ok(())
}
