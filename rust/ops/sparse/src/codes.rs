//! Sparse weights of codes in one byte with a scale for each row, times activations [rows, features]. The one rule: a sum is one
//! chain over codes, which are exact, and is multiplied by its scale and added to its bias once, whichever way it is made.
//!
//! With Z = X Qᵀ and Y = Z diag(s) + b: dX = (G diag(s)) Q by the transpose of Q, ds = sums of the columns of G ∘ Z, db = those
//! of G.

use super::linear::{Act, like, product};
use super::product::transposed;
use super::{FIRST, SECOND, THIRD, by_index};
use base::lane::Lane;
use base::store::Store;
use base::wide::wide;
use base::{Dtype, Result, Scalar, Tensor, by_float, try_vec};
use drivers::csr::spmm::Real;
use drivers::csr::{self, Index, Lined, Pattern, Place};

fn numbers<T: Real>(codes: &[i8]) -> Result<Vec<T>> {
    let mut wide = try_vec(codes.len(), T::default())?;
    for (to, &code) in wide.iter_mut().zip(codes) {
        *to = T::from_f64(f64::from(code));
    }
    Ok(wide)
}

/// The scales of `m` rows, which may be of another type than the activations.
fn scales(scale: &Tensor, m: usize) -> Result<Vec<f64>> {
    scale.expect_shape("scale", &[m])?;
    let mut wide = try_vec(m, 0.0)?;
    by_float!(scale, T => {
        for (to, s) in wide.iter_mut().zip(scale.slice::<T>()?) {
            *to = s.to_f64();
        }
        Ok(())
    })?;
    Ok(wide)
}

/// `y = y diag(scale) + bias` in rows as long as there are scales.
fn scaled<T: Real + Lane>(y: &mut [T], scale: &[f64], bias: Option<&[T]>) -> Result<()> {
    let m = scale.len();
    let mut steps = try_vec(m, T::default())?;
    for (to, &s) in steps.iter_mut().zip(scale) {
        *to = T::from_f64(s);
    }
    for row in y.chunks_exact_mut(m.max(1)) {
        for (y, &s) in row.iter_mut().zip(&steps) {
            *y *= s;
        }
        for (y, &b) in row.iter_mut().zip(bias.unwrap_or(&[])) {
            *y += b;
        }
    }
    Ok(())
}

/// linear8(x, codes, scale, indices, indptr, places, rows, bias, perm, t_indices, t_indptr) -> y: in lanes where there are places
pub fn linear8(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    fn lanes<P: Place, I: Index>(t: &[Tensor]) -> Result<()> {
        let (x, cols) = (t[0].slice::<f32>()?, t[0].rows().1);
        Lined::<i8, P>::new(t[1].slice()?, t[4].slice()?, t[5].slice::<I>()?, t[3].slice::<I>()?, cols)?.product(
            x,
            None,
            t[10].slice_mut()?,
        )
    }
    fn run<T: Real + Lane, I: Index>(t: &[Tensor], scale: &[f64]) -> Result<()> {
        let (n, cols) = t[0].rows();
        t[10].expect_shape("y", &like(&t[0], scale.len()))?;
        let bias = (!t[6].is_empty()).then(|| t[6].slice::<T>()).transpose()?;
        if bias.is_some() {
            t[6].expect_shape("bias", &[scale.len()])?;
        }
        if t[5].is_empty() || T::DTYPE != Dtype::F32 {
            let a = Pattern::bare(t[2].slice::<I>()?, t[3].slice::<I>()?, cols)?;
            t[1].expect_shape("codes", &[a.entries()])?;
            let data = numbers(t[1].slice()?)?;
            product::<T, I>(&a, &data, (t[0].slice()?, n), None, Act::None, t[10].slice_mut()?)?;
        } else if t[4].dtype() == Dtype::I16 {
            lanes::<i16, I>(t)?;
        } else {
            lanes::<i32, I>(t)?;
        }
        scaled(t[10].slice_mut::<T>()?, scale, bias)
    }
    let (scale, rest) = (scales(&t[2], t[4].len().saturating_sub(1))?, [&t[..2], &t[3..]].concat());
    wide(&rest, 10, |t| by_index!(t[2], I => by_float!(wide t[0], T => run::<T, I>(t, &scale))))
}

/// linear8_bwd(g, x, codes, scale, indices, indptr, bias, perm, t_indices, t_indptr) -> dx, dscale, dbias; needs
pub fn linear8_bwd(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<T: Real + Lane, I: Index>(t: &[Tensor], scale: &[f64], slopes: &mut [f64], needs: i64) -> Result<()> {
        let ((n, cols), m, g) = (t[1].rows(), scale.len(), t[0].slice::<T>()?);
        let a = Pattern::new(t[3].slice::<I>()?, t[4].slice::<I>()?, cols)?;
        t[2].expect_shape("codes", &[a.entries()])?;
        t[0].expect_shape("g", &like(&t[1], m))?;
        let data = numbers::<T>(t[2].slice()?)?;
        let mut h = try_vec(g.len(), T::default())?;
        if needs & FIRST != 0 {
            t[9].expect_shape("dx", t[1].shape())?;
            h.copy_from_slice(g);
            scaled(&mut h, scale, None)?;
            transposed(&a, &t[6..9], &data, |a, data| product(a, data, (&h, n), None, Act::None, t[9].slice_mut()?))?;
        }
        if needs & SECOND != 0 {
            // the sums again, which nobody has kept
            product(&a, &data, (t[1].slice()?, n), None, Act::None, &mut h)?;
            for (g, z) in g.chunks_exact(m.max(1)).zip(h.chunks_exact(m.max(1))) {
                for ((to, g), z) in slopes.iter_mut().zip(g).zip(z) {
                    *to += g.to_f64() * z.to_f64();
                }
            }
        }
        if needs & THIRD != 0 {
            t[10].expect_shape("dbias", &[m])?;
            csr::column_sums(g, [n, m], t[10].slice_mut()?)?;
        }
        Ok(())
    }
    let (needs, scale) = (s[0].int(), scales(&t[3], t[5].len().saturating_sub(1))?);
    let (mut slopes, rest) = (try_vec(scale.len(), 0.0)?, [&t[..3], &t[4..11], &t[12..]].concat());
    let of = std::cell::RefCell::new(&mut slopes[..]);
    wide(&rest, 9, |t| {
        let mut slopes = of.borrow_mut();
        by_index!(t[3], I => by_float!(wide t[0], T => run::<T, I>(t, &scale, &mut slopes, needs)))
    })?;
    if needs & SECOND != 0 {
        t[11].expect_shape("dscale", t[3].shape())?;
        by_float!(t[11], T => {
            for (to, &s) in t[11].slice_mut::<T>()?.iter_mut().zip(&slopes) {
                *to = T::from_f64(s);
            }
            Ok(())
        })?;
    }
    Ok(())
}
