//! Norms of rows: a row divided by its size, then weighted. The one rule: moments are sums in f64 or better.

use base::simd::*;
use base::store::Store;
use base::{Op, Result, Tensor, by_float, ops, try_vec};
use drivers::{row, rows};

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    rms_norm(x[.., d], weight[.., d]?; eps) -> (y[.., d]) in place
        = |t, s| weighted(t, 1, |t| rows::run(&RmsNorm(Mean::new(t, s[0].float())), t));
    rms_norm_bwd(g[.., d], x[.., d], weight[.., d]?; eps) -> (dx[x], dweight[weight]) in place
        = |t, s| weighted(t, 2, |t| rows::run(&RmsNormBwd(Mean::new(t, s[0].float())), t));
};

/// 1/d, and ε.
struct Mean {
    per: f64,
    eps: f64,
}
impl Mean {
    fn new(t: &[Tensor], eps: f64) -> Self {
        Mean { per: 1.0 / t[0].rows().1 as f64, eps }
    }
    /// r = 1/√(s/d + ε)
    #[inline(always)]
    fn scale<S: Simd>(&self, s: f64x8<S>) -> f64x8<S> {
        f64x8::splat(s.witness(), 1.0) / (s * self.per + self.eps).sqrt()
    }
}

/// y = r w x
struct RmsNorm(Mean);
row! { RmsNorm(x, w;) -> (y;)
    dots(xx) { xx.dot(x, x); }
    solve(self) { ([self.0.scale(xx.get())], []) }
    combine(r) { [w * (x * r)] }
}

/// dx = r (w g − r²⟨g, w x⟩/d x), dw = r g x
struct RmsNormBwd(Mean);
row! { RmsNormBwd(g, x, w;) -> (dx, dw;)
    dots(xx, gwx) { xx.dot(x, x); gwx.dot(g, w * x); }
    solve(self) {
        let r = self.0.scale(xx.get());
        ([r, gwx.get() * self.0.per * r * r], [])
    }
    combine(r, k) { [(w * g - x * k) * r, g * (x * r)] }
}

/// Runs `f` with ones where the array at `at` is absent, and room for what would be its gradient.
fn weighted(t: &[Tensor], at: usize, f: impl Fn(&[Tensor]) -> Result<()>) -> Result<()> {
    if !t[at].is_empty() {
        return f(t);
    }
    let d = t[0].rows().1;
    by_float!(t[0], A => {
        let (mut ones, mut sums) = (try_vec(d, A::from_f64(1.0))?, try_vec(d, A::default())?);
        let mut all = t.to_vec();
        all[at] = Tensor::of(&mut ones);
        let sums = Tensor::of(&mut sums);
        all.iter_mut().filter(|y| y.shape() == [0]).for_each(|y| *y = sums);
        f(&all)
    })
}
