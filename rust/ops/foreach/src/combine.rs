//! Linear combinations of lists. The one rule: an entry of the result is summed in f64, in the order of the lists, and rounded
//! once.

use crate::{alike, count};
use base::random::{LANES, Source, tag};
use base::simd::{Kernel, Simd, dispatch};
use base::{Dtype, Error, Result, Scalar, Tensor, by_float, store::Store};
use drivers::lists::{self, Pass, Piece, Plan, Reader, Room, Sum};

fn plan(xs: &[Tensor]) -> Result<Plan> {
    let lens: Vec<_> = xs.iter().map(Tensor::len).collect();
    Plan::of(&lens, 1, |_| true)
}

/// y_i = Σ_k c_{ik} x_{ik}
struct Combine<'a> {
    c: &'a [f64],
}

/// y = c x, or y += c x
struct Term<'a>(&'a mut [f64], f64, &'a [f64]);
impl Kernel for Term<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Term(y, c, x) = self;
        for (y, x) in y.iter_mut().zip(x) {
            *y += c * x;
        }
    }
}
struct Scaled<'a>(&'a mut [f64], f64);
impl Kernel for Scaled<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for y in self.0.iter_mut() {
            *y *= self.1;
        }
    }
}

impl Pass for Combine<'_> {
    type Gather = ();
    fn chunk(&self, (): &mut (), at: Piece, lists: &Reader, Room(x, _): &mut Room, y: &mut [f64]) {
        let k = lists.count();
        let c = &self.c[at.entry * k..][..k];
        lists.read(0, y);
        dispatch(Scaled(y, c[0]));
        for (j, &c) in c.iter().enumerate().skip(1) {
            lists.read(j, &mut x[..at.len]);
            dispatch(Term(y, c, &x[..at.len]));
        }
    }
}

/// c, the first list, the others one after another; all as they must be.
fn terms<'a, 'b>(
    first: &'b [Tensor<'a>],
    others: &'b [Tensor<'a>],
    c: &Tensor,
) -> Result<(Vec<f64>, Vec<&'b [Tensor<'a>]>)> {
    let n = first.len();
    let &[rows, k] = c.shape() else {
        return Err(Error::Value(format!("c must be [n, k], got shape {:?}", c.shape())));
    };
    if rows != n || k == 0 || others.len() != n * (k - 1) {
        let all = n + others.len();
        return Err(Error::Value(format!("c of shape [{rows}, {k}] for {all} entries, {n} of them in a list")));
    }
    let mut lists = vec![first];
    for (j, list) in others.chunks_exact(n.max(1)).enumerate() {
        alike(["first", &format!("others[{j}]")], [first, list], false)?;
        lists.push(list);
    }
    if n == 0 {
        lists.truncate(1);
    }
    let c = by_float!(c, T => Ok(c.slice::<T>()?.iter().map(|v| v.to_f64()).collect()))?;
    Ok((c, lists))
}

pub fn lincomb(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let n = count(s, 0)?;
    let (first, rest) = t.split_at(n);
    let (others, rest) = rest.split_at(count(s, 1)?);
    let (c, lists) = terms(first, others, &rest[0])?;
    lists::walk(&Combine { c: &c }, &plan(first)?, &lists, &rest[1..]).map(drop)
}

/// dc_{ik} = ⟨g_i, x_{ik}⟩
struct Dots;
impl Pass for Dots {
    type Gather = Vec<Sum>;
    fn chunk(&self, sums: &mut Vec<Sum>, at: Piece, lists: &Reader, Room(g, x): &mut Room, _: &mut [f64]) {
        sums.resize(lists.count() - 1, Sum::default());
        lists.read(0, &mut g[..at.len]);
        for (k, sum) in sums.iter_mut().enumerate() {
            lists.read(k + 1, &mut x[..at.len]);
            *sum = sum.and(lists::dot(&g[..at.len], &x[..at.len]));
        }
    }
}

/// dx_{ik} = c_{ik} g_i, and the gradient of c
pub fn backward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let needs = s[0].int();
    let (gs, rest) = t.split_at(count(s, 1)?);
    let (first, rest) = rest.split_at(count(s, 2)?);
    let (others, rest) = rest.split_at(count(s, 3)?);
    let (dfirst, after) = rest[1..].split_at(count(s, 4)?);
    let (dothers, dc) = after.split_at(count(s, 5)?);
    alike(["first", "gs"], [first, gs], false)?;
    let (c, mut lists) = terms(first, others, &rest[0])?;
    let (n, k) = (first.len(), lists.len());
    if needs & 4 != 0 && n != 0 {
        lists.insert(0, gs);
        let mut all = vec![Sum::default(); n * k];
        for (piece, sums) in lists::walk(&Dots, &plan(gs)?, &lists, &[])? {
            for (one, sum) in all[piece.entry * k..].iter_mut().zip(sums) {
                *one = one.and(sum);
            }
        }
        dc[0].expect("dc", n * k)?;
        by_float!(dc[0], T => {
            for (d, sum) in dc[0].slice_mut::<T>()?.iter_mut().zip(&all) {
                *d = T::from_f64(sum.get());
            }
            Ok(())
        })?;
    }
    // each is a combination of one
    for (j, out) in std::iter::once(dfirst).chain(dothers.chunks_exact(n.max(1))).enumerate() {
        if !out.is_empty() {
            let c: Vec<f64> = c.iter().skip(j).step_by(k).copied().collect();
            lists::walk(&Combine { c: &c }, &plan(gs)?, &[gs], out)?;
        }
    }
    Ok(())
}

/// t ← t + (1 − β)(x − t); β = 1 leaves the bits, β = 0 copies
struct Average {
    decay: f64,
    /// What targets of 16 bits are rounded by, at random.
    source: Option<Source>,
    kinds: Vec<Dtype>,
}

struct Toward<'a>(&'a mut [f64], &'a [f64], f64);
impl Kernel for Toward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Toward(t, x, decay) = self;
        let rate = 1.0 - decay;
        for (t, x) in t.iter_mut().zip(x) {
            let d = x - *t;
            // where the difference is none, the mean of two is one all the same
            let (near, far) = (*t + rate * d, decay * *t + rate * x);
            *t = if d.is_finite() { near } else { far };
        }
    }
}

impl Pass for Average {
    type Gather = ();
    fn chunk(&self, (): &mut (), at: Piece, lists: &Reader, Room(x, _): &mut Room, y: &mut [f64]) {
        if self.decay == 0.0 {
            return lists.read(1, y); // of a narrower type, so that there is nothing to round
        }
        lists.read(0, y);
        if self.decay == 1.0 {
            return;
        }
        lists.read(1, &mut x[..at.len]);
        dispatch(Toward(y, &x[..at.len], self.decay));
        let (digits, least) = match self.kinds[at.entry] {
            Dtype::F16 => (11, -14),
            Dtype::Bf16 => (8, -126),
            _ => return,
        };
        if let Some(source) = self.source {
            dispatch(Stochastic { y, source, at, digits, least });
        }
    }
}

/// Up with probability (y − lo)/(hi − lo), by word i of column a = entry.
struct Stochastic<'a> {
    y: &'a mut [f64],
    source: Source,
    at: Piece,
    digits: i32,
    least: i32,
}
impl Kernel for Stochastic<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Stochastic { y, source, at, digits, least } = self;
        for (i, y) in y.chunks_mut(4 * LANES).enumerate() {
            let words = source.along(s, at.entry as u64, (at.at / 4 + i * LANES) as u32);
            for (j, y) in y.iter_mut().enumerate() {
                *y = rounded(*y, words[j % 4][j / 4], digits, least);
            }
        }
    }
}

#[inline(always)]
fn rounded(y: f64, word: u32, digits: i32, least: i32) -> f64 {
    let e = (y.abs().to_bits() >> 52) as i32 - 1023;
    let place = e.max(least) - (digits - 1);
    let unit = |e: i32| f64::from_bits(((1023 + e) as u64) << 52);
    if e > 1023 - digits {
        return y; // not finite, or beyond both types
    }
    let q = y.abs() * unit(-place);
    let low = q.floor();
    let up = f64::from(word >> 8) * unit(-24) < q - low;
    ((low + f64::from(u8::from(up))) * unit(place)).copysign(y)
}

fn average(t: &[Tensor], decay: f64, source: Option<Source>, counts: &[Scalar]) -> Result<()> {
    if !(0.0..=1.0).contains(&decay) {
        return Err(Error::Value(format!("decay must be in [0, 1], got {decay}")));
    }
    let (targets, rest) = t.split_at(count(counts, 0)?);
    let (xs, ys) = rest.split_at(count(counts, 1)?);
    alike(["targets", "xs"], [targets, xs], true)?;
    let kinds = targets.iter().map(Tensor::dtype).collect();
    lists::walk(&Average { decay, source, kinds }, &plan(targets)?, &[targets, xs], ys).map(drop)
}

pub fn ema(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    average(t, s[0].float(), None, &s[1..])
}

pub fn ema_stochastic(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let step = s[2].int();
    let stream = u32::try_from(step).ok().filter(|&step| step < 1 << 24);
    let stream = stream.ok_or_else(|| Error::Value(format!("step must be in [0, 2**24), got {step}")))?;
    average(t, s[0].float(), Some(Source::new(s[1].int() as u64, tag::ROUNDING, stream)), &s[3..])
}
