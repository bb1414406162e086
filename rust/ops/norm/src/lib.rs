//! Norms of rows: a row divided by its size, then weighted. The one rule: moments are sums in f64 or better.

mod affine;
mod backward;
mod evo;
mod far;
mod forward;
mod narrow;
mod near;
mod residual;
mod rule;
mod runs;
mod standardize;

use base::near::{near, times};
use base::simd::*;
use base::store::Store;
use base::{Dtype, Op, Result, Tensor, by_float, ops, try_vec};
use drivers::{row, rows};
use std::sync::atomic::{AtomicBool, Ordering};

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    rms_norm(x[.., d], weight[.., d]?: x | float32; eps) -> (y[.., d]) in place
        = |t, s| weighted(t, 1, |t| forward(t, s[0].float()));
    rms_norm_bwd(g[.., d], x[.., d], weight[.., d]?: x | float32; eps, needs: needs)
        -> (dx[x]?, dweight[weight]?) in place
        = |t, s| weighted(t, 2, |t| backward(t, s[0].float(), s[1].int() & DWEIGHT != 0));
    standardize(x[*], weight[*]?: x | float32, bias[*]?: x | float32, labels[*]?, sample_weight[*]?, mean_given[*]?, var_given[*]?;
            kept: int, groups: int, mode: int, eps, correction, alpha, by_segment: bool)
        -> (y[x], count[grain(x, kept, groups)]: float64, mean[grain(x, kept, groups)]: float64,
            var[grain(x, kept, groups)]: float64)
        = standardize::forward;
    standardize_bwd(g[*], gcount[*], gmean[*], gvar[*], x[*], weight[*]?: x | float32, bias[*]?: x | float32,
            labels[*]?, sample_weight[*]?, mean_given[*]?, var_given[*]?, count[*], mean[*], var[*];
            kept: int, groups: int, mode: int, eps, correction, alpha, by_segment: bool, needs: needs)
        -> (dx[x]?, dweight[weight]?, dbias[bias]?, dsample_weight[sample_weight]?)
        = backward::backward;
    evonorm(x[n, c, i], weight[c]?: x | float32, bias[c]?: x | float32, v[c]?: x | float32, running_var[c]?;
            variant: int, groups: int, eps)
        -> (y[x], var[c]: float64, (own[n, c, 2]: float64)) = evo::forward;
    evonorm_bwd(g[n, c, i], gvar[c], x[n, c, i], weight[c]?: x | float32, bias[c]?: x | float32, v[c]?: x | float32,
            running_var[c]?, own[n, c, 2]; variant: int, groups: int, eps, needs: needs)
        -> (dx[x]?, dweight[weight]?, dbias[bias]?, dv[v]?) = evo::backward;
    add_norm(x[b.., d], residual[b.., d], weight[d]?: x | float32, bias[d]?: x | float32, inner_weight[d]?: x | float32,
            inner_bias[d]?: x | float32; layer: bool, inner: bool, eps, scale)
        -> (y[x], s[x]) = residual::forward;
    add_norm_bwd(gy[b.., d], gs[b.., d], x[b.., d], weight[d]?: x | float32, bias[d]?: x | float32,
            inner_weight[d]?: x | float32, inner_bias[d]?: x | float32, s[b.., d]; layer: bool, inner: bool, eps, scale,
            needs: needs)
        -> (dx[x]?, dresidual[x]?, dweight[weight]?, dbias[bias]?, dinner_weight[inner_weight]?, dinner_bias[inner_bias]?)
        = residual::backward;
};

/// The bit of `needs` for the gradient of the weight.
const DWEIGHT: i64 = 2;

/// 1/d, and whether a mean was met that is no ordinary number.
struct Mean {
    per: f64,
    far: AtomicBool,
}
impl Mean {
    fn of(x: &Tensor) -> Self {
        Mean { per: 1.0 / x.rows().1 as f64, far: AtomicBool::new(false) }
    }
    /// r = 1/√(s/d + ε)
    #[inline(always)]
    fn scale<S: Simd>(&self, s: f64x8<S>, eps: f64x8<S>) -> f64x8<S> {
        let mean = s * self.per + eps;
        if !(mean.simd_gt(f64::MIN_POSITIVE) & mean.simd_lt(f64::INFINITY)).all_true() {
            self.far.store(true, Ordering::Relaxed);
        }
        f64x8::splat(s.witness(), 1.0) / mean.sqrt()
    }
}

/// y = r w x
struct RmsNorm(Mean);
row! { RmsNorm(x, w; eps) -> (y;)
    dots(xx) { xx.dot(x, x); }
    solve(self) { ([self.0.scale(xx.get(), eps)], []) }
    combine(r) { [w * (x * r)] }
}

/// dx = r (w g − r²⟨g, w x⟩/d x)
struct Pull(Mean);
row! { Pull(g, x, w; eps) -> (dx;)
    dots(xx, gwx) { xx.dot(x, x); gwx.dot(g, w * x); }
    solve(self) {
        let r = self.0.scale(xx.get(), eps);
        ([r, gwx.get() * self.0.per * r * r], [])
    }
    combine(r, k) { [(w * g - x * k) * r] }
}

/// The same, and dw = r g x
struct Both(Mean);
row! { Both(g, x, w; eps) -> (dx, dw;)
    dots(xx, gwx) { xx.dot(x, x); gwx.dot(g, w * x); }
    solve(self) {
        let r = self.0.scale(xx.get(), eps);
        ([r, gwx.get() * self.0.per * r * r], [])
    }
    combine(r, k) { [(w * g - x * k) * r, g * (x * r)] }
}

fn forward(t: &[Tensor], eps: f64) -> Result<()> {
    let d = t[0].rows().1;
    // rows whose squares float64 holds, of one weight for all of them; or of one each, where those are mapped as these are
    let each = t[0].dtype() == Dtype::F32 && t[1].dtype() == Dtype::F32 && t[1].len() == t[0].len();
    if t[0].dtype() != Dtype::F64 && (t[1].len() == d || each) && d > 0 {
        let over = t[0].as_ptr() == t[2].as_ptr();
        return by_float!(t[0], T => {
            t[2].expect("y", t[0].len())?;
            let x = if over { None } else { Some(t[0].slice::<T>()?) };
            runs::rms(x, &t[1], d, eps, t[2].slice_mut::<T>()?)
        });
    }
    let run = |t: &[Tensor], eps: Tensor| {
        let op = RmsNorm(Mean::of(&t[0]));
        rows::run(&op, &[t[0], t[1], eps, t[2]])?;
        Ok(op.0.far.into_inner())
    };
    ranged(t, 0, 2, eps, run)
}

fn backward(t: &[Tensor], eps: f64, weight: bool) -> Result<()> {
    let run = |t: &[Tensor], eps: Tensor| {
        let mean = Mean::of(&t[1]);
        let far = if weight {
            let op = Both(mean);
            rows::run(&op, &[t[0], t[1], t[2], eps, t[3], t[4]])?;
            op.0.far
        } else {
            let op = Pull(mean);
            rows::run(&op, &[t[0], t[1], t[2], eps, t[3]])?;
            op.0.far
        };
        Ok(far.into_inner())
    };
    ranged(t, 1, 3, eps, run)
}

/// Runs `run` of an operator whose rows x are at `at` and whose results follow from `out` on, the first of them, of a
/// backward, being dx: where x has rows of f64 whose squares are no numbers, on x/2^e and ε/4^e, for which r is 2^e times as
/// large.
fn ranged(
    t: &[Tensor],
    at: usize,
    out: usize,
    eps: f64,
    run: impl Fn(&[Tensor], Tensor) -> Result<bool>,
) -> Result<()> {
    let doubles = t[at].dtype() == Dtype::F64;
    // what is written in place is gone when the sums are known
    let first = doubles && t[out..].iter().any(|y| t[..out].iter().any(|x| x.as_ptr() == y.as_ptr()));
    let far = first || run(t, Tensor::of(&mut [eps]))?;
    if !(far && doubles) {
        return Ok(());
    }
    let Some(mut found) = near(t[at].slice()?, t[at].rows().1)? else {
        return if first { run(t, Tensor::of(&mut [eps])).map(drop) } else { Ok(()) };
    };
    let mut each = try_vec(found.by.len(), eps)?;
    for (eps, &by) in each.iter_mut().zip(&found.by) {
        (0..2).for_each(|_| times(std::slice::from_mut(eps), -by));
    }
    let mut all = t.to_vec();
    all[at] = found.tensor(&t[at])?;
    run(&all, Tensor::of(&mut each))?;
    if at > 0 { found.back(&t[out]) } else { Ok(()) }
}

/// Runs `f` with ones where the array at `at` is absent, and room for gradients that nobody needs.
fn weighted(t: &[Tensor], at: usize, f: impl Fn(&[Tensor]) -> Result<()>) -> Result<()> {
    if !t[at..].iter().any(Tensor::is_empty) {
        return f(t);
    }
    let d = t[0].rows().1;
    by_float!(t[0], A => {
        let (mut ones, mut sums) = (try_vec(d, A::from_f64(1.0))?, try_vec(d, A::default())?);
        let mut all = t.to_vec();
        if t[at].is_empty() {
            all[at] = Tensor::of(&mut ones);
        }
        let sums = Tensor::of(&mut sums);
        all[at + 1..].iter_mut().filter(|y| y.shape() == [0]).for_each(|y| *y = sums);
        f(&all)
    })
}
