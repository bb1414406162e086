//! The arguments of one call. The one rule: everything is checked here, before an output is touched.

use crate::store::{Bf16, F16, Store};
use crate::{Dtype, Error, Result, Tensor};

/// One call, checked: shapes folded to rows, all arrays of one float type.
pub struct Call<'a, const V: usize, const C: usize, const O: usize, const R: usize> {
    pub rows: usize,
    pub d: usize,
    pub x: [Tensor<'a>; V],
    pub c: [Tensor<'a>; C],
    pub y: [Tensor<'a>; O],
    pub n: [Tensor<'a>; R],
}

fn part<'a, const N: usize>(t: &[Tensor<'a>], at: usize) -> Result<[Tensor<'a>; N]> {
    t.get(at..at + N).and_then(|s| s.try_into().ok()).ok_or_else(|| Error::Type("wrong number of arrays".into()))
}

impl<'a, const V: usize, const C: usize, const O: usize, const R: usize> Call<'a, V, C, O, R> {
    pub fn new(t: &[Tensor<'a>], curved: bool) -> Result<Self> {
        let call = Call { rows: 0, d: 0, x: part(t, 0)?, c: part(t, V)?, y: part(t, V + C)?, n: part(t, V + C + O)? };
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
            if x.dtype() != dtype {
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
        for c in &call.c {
            if !c.dtype().is_float() {
                return Err(Error::Type(format!("a float type is needed, got {}", c.dtype().name())));
            }
            if c.len() != 1 && c.len() != rows {
                return Err(Error::Value(format!("one number or one per row ({rows}), got {}", c.len())));
            }
        }
        for y in &call.y {
            let (n, own) = y.rows();
            if y.dtype() != dtype {
                return Err(Error::Type(format!("output of {}, expected {}", y.dtype().name(), dtype.name())));
            }
            if own != d || (n != rows && n != 1) {
                return Err(Error::Value(format!("output of shape {:?} for {rows} rows of {d}", y.shape())));
            }
        }
        for n in &call.n {
            if !n.dtype().is_float() {
                return Err(Error::Type(format!("output of {}, expected a float type", n.dtype().name())));
            }
            if n.len() != rows && n.len() != 1 {
                return Err(Error::Value(format!("output of {} numbers for {rows} rows", n.len())));
            }
        }
        if let Some(o) = call.y.iter().chain(&call.n).find(|o| !o.writable()) {
            return Err(Error::Value(format!("output of shape {:?} is read-only", o.shape())));
        }
        if curved {
            let c = &call.c[C - 1];
            for i in 0..c.len() {
                let v = number(c, i);
                if !(v >= 0.0 && v.is_finite()) {
                    return Err(Error::Value(format!("curvature must be finite and not negative, got {v}")));
                }
            }
        }
        Ok(Call { rows, d, ..call })
    }
}

/// Number `i` of a float array.
pub fn number(t: &Tensor, i: usize) -> f64 {
    // SAFETY: a float dtype and `i < len`, checked by the callers; `Tensor::new` promises the memory.
    unsafe {
        let p = t.as_ptr();
        match t.dtype() {
            Dtype::F64 => *p.cast::<f64>().add(i),
            Dtype::F32 => f64::from(*p.cast::<f32>().add(i)),
            Dtype::F16 => (*p.cast::<F16>().add(i)).to_f64(),
            _ => (*p.cast::<Bf16>().add(i)).to_f64(),
        }
    }
}

/// Writes number `i` of a float array.
///
/// # Safety
/// The array is writable, `i` is below its length, and no other thread touches that element.
pub unsafe fn put(t: &Tensor, i: usize, v: f64) {
    // SAFETY: as in `number`; the output is writable and element `i` belongs to the caller.
    unsafe {
        let p = t.as_ptr();
        match t.dtype() {
            Dtype::F64 => *p.cast::<f64>().add(i) = v,
            Dtype::F32 => *p.cast::<f32>().add(i) = v as f32,
            Dtype::F16 => *p.cast::<F16>().add(i) = F16::from_f64(v),
            _ => *p.cast::<Bf16>().add(i) = Bf16::from_f64(v),
        }
    }
}
