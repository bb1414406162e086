//! Codes that answer for the errors of those before them: x_k = w_k + Σ_{j<k} (w_j − ŵ_j) M_jk, q_k the code of x_k. The one rule:
//! a number becomes a code as in `quantize`, or the nearest entry of a table, the lowest of two equally near.
//!
//! With H = R Rᵀ, R upper triangular, M = R / diag R and D = diag R², these are the codes of GPTQ (Frantar et al. 2022) without
//! the inverse of H: LDLQ (Chee et al. 2023, "QuIP", theorem 6). tr(ΔHΔᵀ) of Δ = W − Ŵ is Σ_k (x_k − ŵ_k)² D_k.

use super::affine::Range;
use super::scales::{Form, Scales};
use base::lane::{Lane, load};
use base::simd::*;
use base::{Dtype, Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::feedback::{self, Decide, Factor};
use drivers::flat::{Compute, Real};
use drivers::index;

/// The scales of a matrix, as rows that lie across the lanes of a vector want them.
struct Grid<'a, T: Real> {
    scales: Scales<'a, T>,
    rows: usize,
    /// Rows and columns that share a scale, scales in a row.
    share: [usize; 2],
    wide: usize,
}

impl<T: Real + Lane> Grid<'_, T> {
    /// The scales and zero points of a column.
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, rows: &[Vec<T>; 2], column: usize) -> [T::V<S>; 2] {
        let at = column / self.share[1] * T::LANES;
        [load::<S, T>(s, &rows[0][at..]), load::<S, T>(s, &rows[1][at..])]
    }
}

impl<'a, T: Real> Grid<'a, T> {
    fn new(w: &Tensor<'a>, scale: &Tensor<'a>, zero: &Tensor<'a>) -> Result<Self> {
        let scales = Scales::new(w, scale, zero, Form::Divide)?.positive()?;
        let (rows, columns) = w.rows();
        let [high, wide] = match *scale.shape() {
            [high, wide] => [high.max(1), wide.max(1)],
            _ => [1, 1],
        };
        Ok(Grid { scales, rows, share: [(rows / high).max(1), (columns / wide).max(1)], wide })
    }

    /// Scales and zero points of the rows from `first` on, the lanes of a group of columns side by side.
    fn rows(&self, first: usize, lanes: usize) -> Result<[Vec<T>; 2]> {
        let (mut s, mut z) = (try_vec(self.wide * lanes, T::ONE)?, try_vec(self.wide * lanes, T::ZERO)?);
        for lane in 0..lanes.min(self.rows - first) {
            let row = (first + lane) / self.share[0] * self.wide;
            for group in 0..self.wide {
                s[group * lanes + lane] = self.scales.scale(row + group);
                z[group * lanes + lane] = self.scales.zero(row + group);
            }
        }
        Ok([s, z])
    }
}

/// q = clamp(rne(x/s) + z, lo, hi)
struct Integers<'a, T: Real>(Grid<'a, T>, Range);

impl<T: Real + Lane> Decide<T> for Integers<'_, T> {
    type Rows = [Vec<T>; 2];
    fn rows(&self, first: usize, lanes: usize) -> Result<Self::Rows> {
        self.0.rows(first, lanes)
    }
    #[inline(always)]
    fn decide<S: Simd>(&self, s: S, rows: &Self::Rows, column: usize, x: T::V<S>) -> [T::V<S>; 2] {
        let [step, zero] = self.0.of(s, rows, column);
        let [lo, hi] = [self.1.lo, self.1.hi].map(
            #[inline(always)]
            |end| T::V::<S>::splat(s, T::int(end)) - zero,
        );
        // clamped first, between integers, as in `affine`
        let q = (x / step).max(lo).min(hi).round_ties_even();
        [q * step, q + zero]
    }
}

/// The entry of a table that is nearest to x/s.
struct Entries<'a, T: Real>(Grid<'a, T>, &'a [T]);

impl<T: Real + Lane> Decide<T> for Entries<'_, T> {
    type Rows = [Vec<T>; 2];
    fn rows(&self, first: usize, lanes: usize) -> Result<Self::Rows> {
        self.0.rows(first, lanes)
    }
    #[inline(always)]
    fn decide<S: Simd>(&self, s: S, rows: &Self::Rows, column: usize, x: T::V<S>) -> [T::V<S>; 2] {
        let [step, _] = self.0.of(s, rows, column);
        let v = x / step;
        let (mut best, mut code) = (T::V::<S>::splat(s, self.1[0]), T::V::<S>::splat(s, T::ZERO));
        for (c, &entry) in self.1.iter().enumerate() {
            let entry = T::V::<S>::splat(s, entry);
            let nearer = (v - entry).abs().simd_lt((v - best).abs());
            best = nearer.select(entry, best);
            code = nearer.select(T::V::<S>::splat(s, T::int(c as i32)), code);
        }
        [best * step, code]
    }
}

/// ldlq(w, ldl, order, scale, zero_point, codebook) -> q, error; lo, hi, damp
pub fn ldlq(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let [w, ldl, order, scale, zero, codebook, q, error] = t else { return Err(super::arrays(8, t)) };
    let (lo, hi, damp) = (k[0].int(), k[1].int(), k[2].float());
    let range = Range::new(lo, hi)?;
    if q.shape() != w.shape() || q.dtype().size() != 1 || (lo < 0) != (q.dtype() == Dtype::I8) {
        return Err(super::shapes("q", q, w));
    }
    let n = w.rows().1;
    let order = match order.dtype() {
        Dtype::I32 => index::copied(order.slice::<i32>()?, |_, _| Ok(()))?,
        Dtype::I64 => index::copied(order.slice::<i64>()?, |_, _| Ok(()))?,
        other => return Err(Error::Type(format!("order must be int32 or int64, got {}", other.name()))),
    };
    if order.len() != n {
        return Err(Error::Value(format!("order has {} columns, w has {n}", order.len())));
    }
    if error.len() != w.rows().0 {
        return Err(Error::Value(format!("{} errors for {} rows", error.len(), w.rows().0)));
    }
    by_float!(w, A => {
        type R = <A as Compute>::Real;
        let numbers = w.slice::<A>()?;
        if numbers.iter().any(|v| !base::store::Store::to_f64(*v).is_finite()) {
            return Err(Error::Value("w holds non-finite values".into()));
        }
        let factor = Factor { ldl: ldl.slice::<R>()?, order: &order, damp };
        let errors = error.slice_mut::<f64>()?;
        let grid = Grid::<R>::new(w, scale, zero)?;
        if codebook.is_empty() {
            return feedback::run(&Integers(grid, range), numbers, factor, q, errors);
        }
        let entries = codebook.slice::<R>()?;
        if entries.len() > 256 || entries.iter().any(|v| !v.is_finite()) {
            return Err(Error::Value(format!("a codebook has 1 to 256 finite entries, got {}", entries.len())));
        }
        feedback::run(&Entries(grid, entries), numbers, factor, q, errors)
    })
}
