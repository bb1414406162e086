//! Two sparse matrices multiplied, and softmax over the entries of rows. The one rule: places are made by two operators, values
//! by another at any places, so that gradients and traces meet known shapes.
//!
//! With C = A B at the places of a pattern and G the gradient there: `dA_ik = Σ_j G_ij B_kj` and `dB_kj = Σ_i A_ik G_ij`, G taken as
//! 0 elsewhere.

use super::{FIRST, SECOND, by_index};
use base::store::Store;
use base::wide::wide;
use base::{Error, Result, Scalar, Tensor, by_float};
use drivers::csr::{self, Index, Matmul, Pattern};

fn size(s: &Scalar) -> Result<usize> {
    usize::try_from(s.int()).map_err(|_| Error::Value(format!("cols must not be negative, got {}", s.int())))
}

/// The patterns of two matrices, the second with `cols` columns and as many rows as its offsets say.
fn both<'a, I: Index>(t: [&Tensor<'a>; 4], cols: usize) -> Result<[Pattern<'a, I>; 2]> {
    let b = Pattern::new(t[2].slice::<I>()?, t[3].slice::<I>()?, cols)?;
    Ok([Pattern::new(t[0].slice::<I>()?, t[1].slice::<I>()?, b.rows())?, b])
}

/// matmul_count(a_indices, a_indptr, b_indices, b_indptr) -> indptr; cols
pub fn count(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    by_index!(t[0], I => {
        let [a, b] = both::<I>([&t[0], &t[1], &t[2], &t[3]], size(&s[0])?)?;
        csr::matmul_count(&a, &b, t[4].slice_mut()?)
    })
}

/// matmul_places(a_indices, a_indptr, b_indices, b_indptr, indptr) -> indices; cols, entries
pub fn places(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    by_index!(t[0], I => {
        let [a, b] = both::<I>([&t[0], &t[1], &t[2], &t[3]], size(&s[0])?)?;
        csr::matmul_places(&a, &b, t[4].slice::<I>()?, t[5].slice_mut()?)
    })
}

/// csr_matmul(a_data, a_indices, a_indptr, b_data, b_indices, b_indptr, indices, indptr) -> data; cols
pub fn values(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let cols = size(&s[0])?;
    wide(t, 8, |t| {
        by_index!(t[1], I => by_float!(wide t[0], T => {
            let [a, b] = both::<I>([&t[1], &t[2], &t[4], &t[5]], cols)?;
            let c = Pattern::new(t[6].slice::<I>()?, t[7].slice::<I>()?, cols)?;
            Matmul::<T, I>::new((&a, t[0].slice()?), (&b, t[3].slice()?), &c)?.values(t[8].slice_mut()?)
        }))
    })
}

/// csr_matmul_bwd(g, a_data, a_indices, a_indptr, b_data, b_indices, b_indptr, indices, indptr) -> da, db; cols, needs
pub fn values_bwd(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (cols, needs) = (size(&s[0])?, s[1].int());
    wide(t, 9, |t| {
        by_index!(t[2], I => by_float!(wide t[0], T => {
            let [a, b] = both::<I>([&t[2], &t[3], &t[5], &t[6]], cols)?;
            let c = Pattern::new(t[7].slice::<I>()?, t[8].slice::<I>()?, cols)?;
            let m = Matmul::<T, I>::new((&a, t[1].slice()?), (&b, t[4].slice()?), &c)?;
            for (bit, out, like, name) in [(FIRST, &t[9], &t[1], "da_data"), (SECOND, &t[10], &t[4], "db_data")] {
                if needs & bit != 0 {
                    out.expect_shape(name, like.shape())?;
                }
            }
            if needs & FIRST != 0 {
                m.left(t[0].slice()?, t[9].slice_mut()?)?;
            }
            if needs & SECOND != 0 {
                m.right(t[0].slice()?, t[10].slice_mut()?)?;
            }
            Ok(())
        }))
    })
}

/// csr_softmax(data, indptr) -> y
pub fn softmax(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    fn typed<T: Store, I: Index>(t: &[Tensor]) -> Result<()> {
        csr::softmax(t[1].slice::<I>()?, t[0].slice::<T>()?, t[2].slice_mut()?)
    }
    by_index!(t[1], I => by_float!(t[0], T => typed::<T, I>(t)))
}

/// csr_softmax_bwd(g, y, indptr) -> ddata
pub fn softmax_bwd(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    fn typed<T: Store, I: Index>(t: &[Tensor]) -> Result<()> {
        csr::softmax_bwd(t[2].slice::<I>()?, t[0].slice::<T>()?, t[1].slice()?, t[3].slice_mut()?)
    }
    by_index!(t[2], I => by_float!(t[0], T => typed::<T, I>(t)))
}
