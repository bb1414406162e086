//! The arguments of one call. The one rule: everything is checked here, before an output is touched.

use base::store::Store;
use base::stream;
use base::{Dtype, Error, Result, Tensor, by_float};

/// Outputs of so many bytes go past the caches. Up to here the caches still hold what was just written, and going past
/// them costs a quarter more.
pub const LARGE: usize = 2 * stream::LARGE;

/// One call, checked: shapes folded to rows, all arrays of one float type, or f32 beside 16-bit ones.
pub struct Call<'a> {
    pub rows: usize,
    pub d: usize,
    /// vectors and row numbers in
    pub x: &'a [Tensor<'a>],
    pub c: &'a [Tensor<'a>],
    /// vectors and row numbers out
    pub y: &'a [Tensor<'a>],
    pub n: &'a [Tensor<'a>],
    /// where the mark of each row is
    pub at: &'a [usize],
}

impl<'a> Call<'a> {
    /// Of so many arrays of each kind, and marks if there are any.
    pub fn new(t: &'a [Tensor<'a>], [v, c, o, r, m]: [usize; 5], at: &'a [usize]) -> Result<Self> {
        if t.len() < v + c + o + r {
            return Err(Error::Type("wrong number of arrays".into()));
        }
        let ((x, t), (y, n)) = (t.split_at(v), t[v + c..].split_at(o));
        let call = Call { rows: 0, d: 0, x, c: &t[..c], y, n: &n[..r], at };
        let dtype = call.x[0].dtype();
        if !dtype.is_float() {
            return Err(Error::Type(format!("a float type is needed, got {}", dtype.name())));
        }
        let d = call.x[0].rows().1;
        let mut rows = call.x[0].rows().0;
        for (i, x) in call.x.iter().enumerate() {
            let (n, own) = x.rows();
            if x.shape().is_empty() {
                return Err(Error::Value("a last axis is needed, got a 0-d array".into()));
            }
            if !beside(dtype, x.dtype()) {
                return Err(Error::Type(format!("arrays of {} and {} in one call", dtype.name(), x.dtype().name())));
            }
            if own != d {
                return Err(Error::Value(format!("last axes differ: {d} and {own}")));
            }
            if i == 0 || rows == 1 {
                rows = n;
            } else if n != 1 && n != rows {
                return Err(Error::Value(format!("{rows} rows and {n} rows do not go together")));
            }
        }
        if at.len() != m * rows {
            return Err(Error::Value(format!("{} marks for {rows} rows", at.len())));
        }
        for c in call.c {
            if !c.dtype().is_float() {
                return Err(Error::Type(format!("a float type is needed, got {}", c.dtype().name())));
            }
            if c.len() != 1 && c.len() != rows {
                return Err(Error::Value(format!("one number or one per row ({rows}), got {}", c.len())));
            }
        }
        for y in call.y {
            let (n, own) = y.rows();
            if !beside(dtype, y.dtype()) {
                return Err(Error::Type(format!("output of {}, expected {}", y.dtype().name(), dtype.name())));
            }
            if own != d || (n != rows && n != 1) {
                return Err(Error::Value(format!("output of shape {:?} for {rows} rows of {d}", y.shape())));
            }
        }
        for n in call.n {
            if !n.dtype().is_float() {
                return Err(Error::Type(format!("output of {}, expected a float type", n.dtype().name())));
            }
            if n.len() != rows && n.len() != 1 {
                return Err(Error::Value(format!("output of {} numbers for {rows} rows", n.len())));
            }
        }
        if let Some(o) = call.y.iter().chain(call.n).find(|o| !o.writable()) {
            return Err(Error::Value(format!("output of shape {:?} is read-only", o.shape())));
        }
        Ok(Call { rows, d, ..call })
    }

    /// Whether the outputs are larger than the caches and not in them already as inputs.
    pub fn large(&self) -> bool {
        let bytes = self.y.iter().map(Tensor::bytes).sum::<usize>();
        bytes >= LARGE && !self.y.iter().any(|y| self.x.iter().any(|x| x.as_ptr() == y.as_ptr()))
    }
}

/// Whether rows of type `own` go with those of `dtype`: f32 is what 16-bit rows are computed in.
fn beside(dtype: Dtype, own: Dtype) -> bool {
    own == dtype || (own == Dtype::F32 && dtype.size() == 2)
}

/// Numbers `at..` of a float array; one alone serves all. Not inlined: it is the same for every operator.
#[inline(never)]
pub fn numbers(t: &Tensor, at: usize, into: &mut [f64]) {
    let one = t.len() == 1;
    let done = by_float!(t, T => {
        let p = t.as_ptr().cast::<T>();
        for (i, v) in into.iter_mut().enumerate() {
            // SAFETY: a float dtype and one number or one for each of these rows, checked by `Call::new`; `Tensor::new`
            // promises the memory.
            *v = unsafe { (*p.add(if one { 0 } else { at + i })).to_f64() };
        }
        Ok(())
    });
    debug_assert!(done.is_ok());
}

/// Writes numbers `at..` of a float array. Not inlined: it is the same for every operator.
///
/// # Safety
/// The array is writable and as long, and no other thread touches these elements.
#[inline(never)]
pub unsafe fn put(t: &Tensor, at: usize, from: &[f64]) {
    let done = by_float!(t, T => {
        let p = t.as_ptr().cast::<T>();
        for (i, &v) in from.iter().enumerate() {
            // SAFETY: as in `numbers`; the output is writable and these elements belong to the caller.
            unsafe { *p.add(at + i) = T::from_f64(v) };
        }
        Ok(())
    });
    debug_assert!(done.is_ok());
}
