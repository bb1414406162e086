//! Cross entropy of rows of logits. The one rule: what is small is a sum of what is small, never a difference of what is not.
//!
//! With m = max x, p = softmax x, u = (1 − ε) w_t and v = ε/C, of a row with label t:
//! ce = −u log p_t − v Σ_c w_c log p_c and the loss is (1 − p_t)^γ ce (Lin et al., 2017; smoothing after Szegedy et al., 2016).
//! One walk counts the elements that are m, sums e^{x − m} over those that are not, and Σ w_c (m − x_c): with these
//! log Σ e^{x − m} = log1p(more), 1 − p_t = rest/(1 + more) and no difference of two sums. With A = (1 − p_t)^γ, Q = u + v Σ w
//! and k = γ ce p_t (1 − p_t)^{γ−1}: dx = p (A Q + k) − A v w, at t −A u (1 − p_t) + A v (p_t Σ w − w_t) − k (1 − p_t), and
//! dw_c = −A v log p_c, at t −A (1 − ε) log p_t more.

use base::math;
use base::simd::*;
use base::{Dtype, Error, Result, Scalar, Tensor, try_vec};
use drivers::by_index;
use drivers::index::{Index, copied};
use drivers::row;
use drivers::rows::{NONE, marked};
use drivers::segments::places::{numbers, write};

mod rule;
use rule::{Rule, SCALE, both, exp, half, times};

/// The bits of `needs`.
const DLOGITS: i64 = 1;
const DWEIGHT: i64 = 2;

/// The loss, and what its gradient needs: m, Σ e^{x − m} − 1, the same without t, Σ w (m − x) scaled.
struct Forward(Rule);
row! { Forward(x, w; wt) -> (; loss, m, over, others, less)
    mark(xt)
    peak(top) { [x] }
    dots(many, small, below) {
        let s = x.witness();
        let (zero, one) = (f64x8::splat(s, 0.0), f64x8::splat(s, 1.0));
        let first = x.simd_eq(top);
        many.dot(first.select(one, zero), one);
        small.dot(first.select(zero, exp(s, !A::TWICE, x - top, one)), one);
        // past the end, and of a class that counts for nothing, x may be -inf
        below.dot(w, w.simd_eq(0.0).select(zero, x.mul_add(f64x8::splat(s, -SCALE), top * SCALE)));
    }
    solve(self, s) {
        let (many, small, below, one) = (many.get(), small.get(), below.get(), f64x8::splat(s, 1.0));
        // NaN of a peak that is infinite
        let more = (many - 1.0) + small + (top - top);
        let own = exp(s, N::SINGLE, xt - top, one);
        let rest = xt.simd_eq(top).select(more, many + (small - own) + (top - top));
        let ce = self.0.entropy(s, more, below, half(top, xt), wt)[1];
        // 0, the limit, where all other classes are at -inf, each of which ce has a share of
        let loss = times(self.0.doubt(s, rest / (more + 1.0)), ce);
        ([], [loss, top, more, rest, below], [xt])
    }
}

/// dx
struct Pull(Rule);
row! { Pull(x, w; g, wt, top, more, rest, below) -> (dx;)
    mark(xt)
    dots() {}
    solve(self, s) {
        let [p, even, at, _] = self.0.slopes(s, g, [top, more, rest, below], xt, wt);
        ([top, p, even], [], [at])
    }
    combine[narrow](top, p, even) { [exp(x.witness(), narrow, x - top, p) - w * even] }
}

/// dx, dw but for what comes to the label of each row, and that.
struct Both(Rule);
row! { Both(x, w; g, wt, top, more, rest, below) -> (dx, dw; own)
    mark(xt)
    dots() {}
    solve(self, s) {
        let [p, even, at, own] = self.0.slopes(s, g, [top, more, rest, below], xt, wt);
        ([top, p, even, math::log1p(s, more)], [own], [at])
    }
    combine[narrow](top, p, even, log) {
        let zero = f64x8::splat(x.witness(), 0.0);
        let less = even.simd_eq(0.0).select(zero, both(even, log, half(top, x)));
        [exp(x.witness(), narrow, x - top, p) - w * even, less]
    }
}

/// The labels, [`NONE`] of rows that are left out; w_t of each row; w; what all rows share.
struct Told {
    at: Vec<usize>,
    own: Vec<f64>,
    rule: Rule,
}

/// Labels that lie within `0..classes`, or are `ignore`.
fn labels<I: Index>(target: &Tensor, classes: usize, ignore: i64) -> Result<Vec<usize>> {
    let mut at = copied(target.slice::<I>()?, |i, t| {
        if t < classes || t as i64 == ignore {
            return Ok(());
        }
        Err(Error::Value(format!("target[{i}] = {} is outside 0..{classes} and not ignore_index = {ignore}", t as i64)))
    })?;
    for t in &mut at {
        if *t as i64 == ignore {
            *t = NONE;
        }
    }
    Ok(at)
}

impl Told {
    fn new(x: &Tensor, target: &Tensor, weight: &Tensor, s: &[Scalar]) -> Result<Told> {
        let (rows, classes) = x.rows();
        target.expect("target", rows)?;
        let (ignore, smoothing, gamma) = (s[0].int(), s[1].float(), s[2].float());
        if !(0.0..=1.0).contains(&smoothing) {
            return Err(Error::Value(format!("label_smoothing must be within 0..1, got {smoothing}")));
        }
        if !(0.0..f64::INFINITY).contains(&gamma) {
            return Err(Error::Value(format!("gamma must be finite and not negative, got {gamma}")));
        }
        let at = by_index!(target, I => labels::<I>(target, classes, ignore))?;
        let mut own = try_vec(rows, 1.0)?;
        let mut weights = classes as f64;
        if !weight.is_empty() {
            weight.expect("weight", classes)?;
            let all = numbers(weight)?;
            weights = all.iter().sum();
            own.iter_mut().zip(&at).for_each(|(w, &t)| *w = if t == NONE { 0.0 } else { all[t] });
        }
        Ok(Told { at, own, rule: Rule { smoothing, even: smoothing / classes.max(1) as f64, weights, gamma } })
    }
}

/// Runs `f` with `given`, or a row of ones where it is not there.
fn or_ones(x: &Tensor, given: &Tensor, there: bool, f: impl FnOnce(Tensor) -> Result<()>) -> Result<()> {
    let classes = x.rows().1;
    match (there, x.dtype()) {
        (true, _) => f(*given),
        (_, Dtype::F64) => f(Tensor::of(&mut try_vec(classes, 1f64)?)),
        _ => f(Tensor::of(&mut try_vec(classes, 1f32)?)),
    }
}

/// logits, target, weight; loss, and what is kept.
pub fn forward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let mut told = Told::new(&t[0], &t[1], &t[2], s)?;
    let own = Tensor::of(&mut told.own);
    or_ones(&t[0], &t[2], !t[2].is_empty(), |w| {
        marked(&Forward(told.rule), &[t[0], w, own, t[3], t[4], t[5], t[6], t[7]], &told.at)
    })
}

/// g, logits, target, weight and what was kept; dlogits, dweight.
pub fn backward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (x, needs) = (&t[1], s[3].int());
    let mut told = Told::new(x, &t[2], &t[3], s)?;
    let (rows, classes) = x.rows();
    for (name, at) in [("g", 0), ("top", 4), ("more", 5), ("rest", 6), ("below", 7)] {
        t[at].expect(name, rows)?;
    }
    let own = Tensor::of(&mut told.own);
    or_ones(x, &t[3], !t[3].is_empty(), |w| {
        let given = [*x, w, t[0], own, t[4], t[5], t[6], t[7]];
        if needs & DWEIGHT == 0 || t[3].is_empty() {
            let all = [&given[..], &t[8..9]].concat();
            return if needs & DLOGITS == 0 { Ok(()) } else { marked(&Pull(told.rule), &all, &told.at) };
        }
        t[9].expect("dweight", classes)?;
        let mut to_own = try_vec(rows, 0.0)?;
        // one row is the sum over rows: room enough for what nobody asked for
        or_ones(x, &t[8], needs & DLOGITS != 0, |dx| {
            let all = [&given[..], &[dx, t[9], Tensor::of(&mut to_own)]].concat();
            marked(&Both(told.rule), &all, &told.at)
        })?;
        let mut sums = numbers(&t[9])?;
        for (&t, v) in told.at.iter().zip(&to_own).filter(|(t, _)| **t != NONE) {
            sums[t] += v;
        }
        write(&t[9], &sums)
    })
}
