//! The short way for NumPy: one call into Rust that reads the arguments, allocates the results (or takes `out`) and runs
//! the kernel. The one rule: it takes only what needs no thought (plain contiguous arrays that fit as they are, numbers); for
//! anything else it returns None, and the Python path broadcasts, copies or says what is wrong.

use crate::tensor::{self, View};
use crate::{PyOp, guarded, overlap, poll};
use base::{Dtype, Kind, Scalar, Tensor, pool};
use ops::Operator;
use ops::signature::{Lead, Wanted};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyTuple, PyType};

/// An operator with what its declaration says: defaults of all parameters, inputs exempt from the one-dtype rule.
#[pyclass(frozen, module = "tersor._core")]
pub struct Fast {
    op: &'static Operator,
    defaults: Vec<Option<Py<PyAny>>>,
    exempt: Vec<bool>,
    ndarray: Py<PyType>,
    empty: Py<PyAny>,
}

#[pymethods]
impl Fast {
    /// `defaults` holds one value per parameter, or `missing`.
    #[new]
    fn new(
        op: &PyOp,
        defaults: Vec<Py<PyAny>>,
        missing: &Bound<'_, PyAny>,
        exempt: Vec<bool>,
        ndarray: Py<PyType>,
        empty: Py<PyAny>,
    ) -> Self {
        let defaults = defaults.into_iter().map(|d| if d.is(missing) { None } else { Some(d) }).collect();
        Fast { op: op.0, defaults, exempt, ndarray, empty }
    }

    /// `out` is an array, or a tuple of them where the operator has several results; it is what is returned.
    #[pyo3(signature = (args, out=None))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        args: &Bound<'py, PyTuple>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (op, sig) = (self.op, &self.op.signature);
        let (n, results) = (sig.inputs.len(), sig.outputs.len());
        if args.len() > n + sig.scalars.len() || sig.lists() {
            return Ok(None);
        }
        // a tuple that is asked for what it has not raises an error first
        let given = args.len();
        let argument = |i: usize| match &self.defaults[i] {
            _ if i < given => args.get_borrowed_item(i).ok(),
            default => default.as_ref().map(|d| d.bind_borrowed(py)),
        };
        let mut views: Vec<View> = Vec::with_capacity(n);
        let mut objects = Vec::with_capacity(n);
        for (i, p) in sig.inputs.iter().enumerate() {
            let Some(a) = argument(i) else { return Ok(None) };
            let plain = a.get_type().is(&self.ndarray);
            let number = self.exempt[i] && (a.is_exact_instance_of::<PyFloat>() || a.is_exact_instance_of::<PyInt>());
            let view = if p.optional && a.is_none() {
                Ok(tensor::absent())
            } else if plain || number {
                tensor::view(&a, false)
            } else {
                return Ok(None);
            };
            let Ok(v) = view else { return Ok(None) };
            views.push(v);
            objects.push(a);
        }
        let mut scalars = Vec::with_capacity(sig.scalars.len());
        for (k, (_, kind)) in sig.scalars.iter().enumerate() {
            let Some(a) = argument(n + k) else { return Ok(None) };
            let value = match kind {
                Kind::Float if a.is_instance_of::<PyFloat>() => a.extract().map(Scalar::Float),
                Kind::Int | Kind::Needs if a.is_exact_instance_of::<PyInt>() => a.extract().map(Scalar::Int),
                Kind::Bool if a.is_instance_of::<PyBool>() => a.extract().map(Scalar::Bool),
                _ => return Ok(None),
            };
            let Ok(value) = value else { return Ok(None) };
            scalars.push(value);
        }
        // room for all at once: what is a few hundred bytes long is not moved
        let mut tensors = Vec::with_capacity(n + results);
        for v in &views {
            let Ok(t) = v.tensor() else { return Ok(None) };
            tensors.push(t);
        }
        if !self.simple(&tensors) {
            return Ok(None);
        }
        let Ok(sizes) = sig.bind(&tensors) else { return Ok(None) };
        let (mut made, all) = (Vec::with_capacity(results), sig.shown());
        let mut written: Vec<View> = Vec::with_capacity(results);
        for i in 0..results {
            let Ok(w) = &sig.output(i, &sizes, &tensors, &scalars) else { return Ok(None) };
            let shown = i < all;
            if let Some(out) = out
                && shown
            {
                let Some(v) = self.given(out, i, w) else { return Ok(None) };
                written.push(v);
                continue;
            }
            let bytes = w.shape().iter().fold(w.dtype.size(), |n, &m| n.saturating_mul(m));
            if base::room(bytes).is_err() {
                return Ok(None);
            }
            let shape = PyTuple::new(py, w.shape())?;
            // a type that an argument has is at hand
            let like = (0..n).find(|&k| tensors[k].dtype() == w.dtype && objects[k].get_type().is(&self.ndarray));
            let y = match like {
                Some(k) => self.empty.bind(py).call1((shape, objects[k].getattr(pyo3::intern!(py, "dtype"))?))?,
                None if w.dtype == Dtype::Bf16 => return Ok(None),
                None => self.empty.bind(py).call1((shape, w.dtype.name()))?,
            };
            written.push(tensor::view(&y, true)?);
            if shown {
                made.push(y);
            }
        }
        guarded(op.name(), || {
            for v in &written {
                tensors.push(v.tensor()?);
            }
            overlap(op, &tensors)?;
            let context = pool::Context { runner: None, threads: 0, poll: Some(poll) };
            py.detach(|| pool::with(context, || (op.run)(&tensors, &scalars)))
        })?;
        if out.is_some() {
            return Ok(out.cloned());
        }
        Ok(Some(if made.len() == 1 { made.swap_remove(0) } else { PyTuple::new(py, made)?.into_any() }))
    }
}

impl Fast {
    /// Result `i` of those that the caller brought, if it is just the array that would be allocated.
    fn given(&self, out: &Bound<'_, PyAny>, i: usize, wanted: &Wanted) -> Option<View> {
        let several = out.cast_exact::<PyTuple>().ok();
        let y = match (several, self.op.signature.shown()) {
            (None, 1) => out.clone(),
            (Some(ys), n) if n > 1 && ys.len() == n => ys.get_item(i).ok()?,
            _ => return None,
        };
        if !y.get_type().is(&self.ndarray) {
            return None;
        }
        tensor::view(&y, true).ok().filter(|v| v.shape() == wanted.shape() && v.dtype() == wanted.dtype)
    }

    /// One float type; rows all alike or one for all, and one number for all rows or one for each.
    fn simple(&self, tensors: &[Tensor]) -> bool {
        let sig = &self.op.signature;
        let rows = tensors[0].shape().split_last().filter(|_| sig.rows() > 0);
        let mut float = None;
        sig.inputs.iter().zip(tensors).enumerate().all(|(i, (p, t))| {
            let own = t.shape();
            let fits = match rows {
                _ if p.optional && own == [0] => true,
                Some((d, lead)) if p.lead == Lead::Rows => {
                    let (own_lead, core) = own.split_at(own.len() - p.core.as_ref().map_or(0, Vec::len).min(own.len()));
                    own_lead == lead
                        || (p.is_row() && core == [*d] && own_lead.is_empty())
                        || (p.is_number() && own.is_empty())
                }
                // a 0-d array has no rows
                None if sig.rows() > 0 => false,
                _ => true,
            };
            let alike = self.exempt[i] || !t.dtype().is_float() || p.fits(t.dtype(), *float.get_or_insert(t.dtype()));
            // uint16 words mean bfloat16 here, which only the Python path may say
            fits && alike && t.dtype() != Dtype::Bf16
        })
    }
}
