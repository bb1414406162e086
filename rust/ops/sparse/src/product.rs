//! Products with sparse matrices and their gradients. The one rule: f16 and bf16 are worked on in f32 and rounded once.
//!
//! With Y = clamp(A X + b) and G the gradient that arrives, 0 where the clamp holds: dX = Aᵀ G, db = sums of the rows of G,
//! and dA on the pattern, (G Xᵀ)_ik for every stored (i, k): equal places each get the whole.

use super::{FIRST, SECOND, THIRD, by_index, stack};
use base::pool::{self, Shared};
use base::store::Store;
use base::wide::wide;
use base::{Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::csr::spmm::Real;
use drivers::csr::{self, Dot, Index, Pattern};

/// Elements that one task of an elementwise pass takes.
const BLOCK: usize = 64 * 1024;

pub fn spmm(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<T: Real, I: Index>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let [batch, cols, n] = stack("x", &t[3])?;
        let a = Pattern::new(t[1].slice::<I>()?, t[2].slice::<I>()?, cols)?;
        t[0].expect_shape("data", &[a.entries()])?;
        product_shape("y", &t[8], &t[3], a.rows())?;
        let bias = (!t[4].is_empty()).then(|| t[4].slice::<T>()).transpose()?;
        csr::spmm(&a, t[0].slice()?, t[3].slice()?, [batch, n], bias, clamp(s), t[8].slice_mut()?)
    }
    wide(t, 8, |t| by_index!(t[1], I => by_float!(wide t[0], T => run::<T, I>(t, s))))
}

pub fn spmm_bwd(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<T: Dot + Real, I: Index>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let ([batch, cols, n], needs) = (stack("x", &t[4])?, s[2].int());
        let a = Pattern::new(t[2].slice::<I>()?, t[3].slice::<I>()?, cols)?;
        let (data, x) = (t[1].slice::<T>()?, t[4].slice::<T>()?);
        t[1].expect_shape("data", &[a.entries()])?;
        product_shape("g", &t[0], &t[4], a.rows())?;
        let held = match clamp(s) {
            Some(bounds) => {
                t[5].expect_shape("y", t[0].shape())?;
                Some(inside(t[0].slice::<T>()?, t[5].slice()?, bounds)?)
            }
            None => None,
        };
        let g = match &held {
            Some(g) => g,
            None => t[0].slice::<T>()?,
        };
        let outputs = [
            (FIRST, &t[9], t[1].shape(), "ddata"),
            (SECOND, &t[10], t[4].shape(), "dx"),
            (THIRD, &t[11], &[a.rows()], "dbias"),
        ];
        for (bit, out, shape, name) in outputs {
            if needs & bit != 0 {
                out.expect_shape(name, shape)?;
            }
        }
        if needs & SECOND != 0 {
            transposed(&a, &t[6..9], data, |a, data| {
                csr::spmm(a, data, g, [batch, n], None, None, t[10].slice_mut()?)
            })?;
        }
        if needs & FIRST != 0 {
            csr::sddmm(&a, g, x, [batch, n], t[9].slice_mut()?)?;
        }
        if needs & THIRD != 0 {
            csr::row_sums(g, [batch, a.rows(), n], t[11].slice_mut()?)?;
        }
        Ok(())
    }
    wide(t, 9, |t| by_index!(t[2], I => by_float!(wide t[0], T => run::<T, I>(t, s))))
}

pub fn sddmm(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<T: Dot, I: Index>(t: &[Tensor], _: &[Scalar]) -> Result<()> {
        let (p, [batch, d]) = sampled::<I>(&t[0], &t[1], &t[2], &t[3])?;
        t[7].expect_shape("data", &[p.entries()])?;
        csr::sddmm(&p, t[0].slice::<T>()?, t[1].slice()?, [batch, d], t[7].slice_mut()?)
    }
    wide(t, 7, |t| by_index!(t[2], I => by_float!(wide t[0], T => run::<T, I>(t, s))))
}

pub fn sddmm_bwd(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<T: Real, I: Index>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let (p, shape) = sampled::<I>(&t[1], &t[2], &t[3], &t[4])?;
        let (g, needs) = (t[0].slice::<T>()?, s[0].int());
        t[0].expect_shape("g", &[p.entries()])?;
        for (bit, out, like, name) in [(FIRST, &t[8], &t[1], "da"), (SECOND, &t[9], &t[2], "db")] {
            if needs & bit != 0 {
                out.expect_shape(name, like.shape())?;
            }
        }
        if needs & FIRST != 0 {
            csr::spmm(&p, g, t[2].slice()?, shape, None, None, t[8].slice_mut()?)?;
        }
        if needs & SECOND != 0 {
            transposed(&p, &t[5..8], g, |p, g| csr::spmm(p, g, t[1].slice()?, shape, None, None, t[9].slice_mut()?))?;
        }
        Ok(())
    }
    wide(t, 8, |t| by_index!(t[3], I => by_float!(wide t[0], T => run::<T, I>(t, s))))
}

fn sampled<'a, I: Index>(
    a: &Tensor<'a>,
    b: &Tensor<'a>,
    indices: &Tensor<'a>,
    indptr: &Tensor<'a>,
) -> Result<(Pattern<'a, I>, [usize; 2])> {
    let ([batch, rows, d], [_, cols, _]) = (stack("a", a)?, stack("b", b)?);
    let lead = &a.shape()[..a.shape().len() - 2];
    b.expect_shape("b", &[lead, &[cols, d]].concat())?;
    let p = Pattern::new(indices.slice::<I>()?, indptr.slice::<I>()?, cols)?;
    if p.rows() != rows {
        return Err(Error::Value(format!("a has {rows} rows, the pattern {}", p.rows())));
    }
    Ok((p, [batch, d]))
}

/// `t` must be what A times `x` is, A having `rows` rows.
fn product_shape(name: &str, t: &Tensor, x: &Tensor, rows: usize) -> Result<()> {
    let mut shape = x.shape().to_vec();
    let at = shape.len() - 2;
    shape[at] = rows;
    t.expect_shape(name, &shape)
}

fn clamp<T: Real>(s: &[Scalar]) -> Option<[T; 2]> {
    let (lo, hi) = (s[0].float(), s[1].float());
    (lo > f64::NEG_INFINITY || hi < f64::INFINITY).then(|| [T::from_f64(lo), T::from_f64(hi)])
}

/// The gradient where the result lies strictly between the bounds, 0 elsewhere.
pub(super) fn inside<T: Real>(g: &[T], y: &[T], [lo, hi]: [T; 2]) -> Result<Vec<T>> {
    let mut held = try_vec(g.len(), T::default())?;
    let out = Shared(held.as_mut_ptr());
    pool::run(g.len().div_ceil(BLOCK), g.len(), |b| {
        let part = b * BLOCK..g.len().min((b + 1) * BLOCK);
        // SAFETY: blocks are disjoint parts of `held`, which is as long as g.
        let out = unsafe { out.part(part.start, part.len()) };
        for ((o, &g), &y) in out.iter_mut().zip(&g[part.clone()]).zip(&y[part]) {
            *o = if y <= lo || y >= hi { T::default() } else { g };
        }
    })?;
    Ok(held)
}

/// Calls `f` with the transpose of a matrix: structure as given, or made here, values gathered.
pub(super) fn transposed<T: Store, I: Index>(
    a: &Pattern<I>,
    given: &[Tensor],
    data: &[T],
    f: impl FnOnce(&Pattern<I>, &[T]) -> Result<()>,
) -> Result<()> {
    let (entries, cols) = (a.entries(), a.cols());
    let (absent, zero) = (given[2].is_empty(), I::new(0).ok_or_else(csr::raced)?);
    let list = |n: usize| try_vec(if absent { n } else { 0 }, zero);
    let (mut perm, mut rows, mut ptr) = (list(entries)?, list(entries)?, list(cols + 1)?);
    let (t_perm, t_indices, t_indptr) = if absent {
        csr::transpose(a, &mut rows, &mut ptr, &mut perm)?;
        (&perm[..], &rows[..], &ptr[..])
    } else {
        (given[0].slice()?, given[1].slice()?, given[2].slice()?)
    };
    let t = Pattern::new(t_indices, t_indptr, a.rows())?;
    if [t.rows(), t_perm.len(), t.entries()] != [cols, entries, entries] {
        return Err(Error::Value("perm, t_indices and t_indptr are not the transpose of the matrix".into()));
    }
    f(&t, &csr::gather(data, t_perm)?)
}
