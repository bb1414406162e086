//! The short way for NumPy: one call into Rust that reads the arguments, allocates the results (or takes `out`) and runs
//! the kernel. The one rule: it takes only what needs no thought (plain contiguous arrays, equal shapes, numbers); for anything else it
//! returns None, and the Python path broadcasts, copies or says what is wrong.

use crate::tensor::{self, View};
use crate::{PyOp, guarded, overlap, poll};
use base::{Dtype, Kind, Op, Rule, Scalar, pool};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyTuple, PyType};

/// An operator with what its declaration says: defaults of all parameters, inputs exempt from the one-dtype rule.
#[pyclass(frozen, module = "tersor._core")]
pub struct Fast {
    op: &'static Op,
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
        let (op, n) = (self.op, self.op.inputs.len());
        if args.len() > n + op.scalars.len() {
            return Ok(None);
        }
        let argument = |i: usize| match args.get_item(i) {
            Ok(a) => Some(a),
            Err(_) => self.defaults[i].as_ref().map(|d| d.bind(py).clone()),
        };
        let mut views: Vec<View> = Vec::with_capacity(n + op.outputs.len());
        let mut objects = Vec::with_capacity(n);
        for i in 0..n {
            let Some(a) = argument(i) else { return Ok(None) };
            let plain = a.get_type().is(&self.ndarray);
            let number = self.exempt[i] && (a.is_exact_instance_of::<PyFloat>() || a.is_exact_instance_of::<PyInt>());
            if !plain && !number {
                return Ok(None);
            }
            let Ok(v) = tensor::view(&a, false) else { return Ok(None) };
            views.push(v);
            objects.push(a);
        }
        if !self.simple(&views) {
            return Ok(None);
        }
        let mut scalars = Vec::with_capacity(op.scalars.len());
        for (k, (_, kind)) in op.scalars.iter().enumerate() {
            let Some(a) = argument(n + k) else { return Ok(None) };
            scalars.push(match kind {
                Kind::Float if a.is_instance_of::<PyFloat>() => Scalar::Float(a.extract()?),
                Kind::Int if a.is_exact_instance_of::<PyInt>() => Scalar::Int(a.extract()?),
                Kind::Bool if a.is_instance_of::<PyBool>() => Scalar::Bool(a.extract()?),
                _ => return Ok(None),
            });
        }
        let mut results = Vec::with_capacity(op.outputs.len());
        for &(_, rule) in op.outputs {
            let like = if let Rule::Like(i) = rule { i } else { 0 };
            let shape = views[like].shape();
            let shape = if rule == Rule::Lead { &shape[..shape.len() - 1] } else { shape };
            if let Some(out) = out {
                let Some(v) = self.given(out, results.len(), shape, views[like].dtype()) else { return Ok(None) };
                views.push(v);
                results.push(out.clone());
                continue;
            }
            let shape = PyTuple::new(py, shape)?;
            let y = if objects[like].get_type().is(&self.ndarray) {
                self.empty.bind(py).call1((shape, objects[like].getattr(pyo3::intern!(py, "dtype"))?))?
            } else {
                self.empty.bind(py).call1((shape,))?
            };
            views.push(tensor::view(&y, true)?);
            results.push(y);
        }
        guarded(op.name, || {
            let tensors = views.iter().map(View::tensor).collect::<Result<Vec<_>, _>>()?;
            overlap(op, &tensors)?;
            let context = pool::Context { runner: None, threads: 0, poll: Some(poll) };
            py.detach(|| pool::with(context, || (op.run)(&tensors, &scalars)))
        })?;
        if out.is_some() {
            return Ok(out.cloned());
        }
        Ok(Some(if results.len() == 1 { results.swap_remove(0) } else { PyTuple::new(py, results)?.into_any() }))
    }
}

impl Fast {
    /// Result `i` of those that the caller brought, if it is just the array that would be allocated.
    fn given(&self, out: &Bound<'_, PyAny>, i: usize, shape: &[usize], dtype: Dtype) -> Option<View> {
        let several = out.cast_exact::<PyTuple>().ok();
        let y = match (several, self.op.outputs.len()) {
            (None, 1) => out.clone(),
            (Some(ys), n) if n > 1 && ys.len() == n => ys.get_item(i).ok()?,
            _ => return None,
        };
        if !y.get_type().is(&self.ndarray) {
            return None;
        }
        tensor::view(&y, true).ok().filter(|v| v.shape() == shape && v.dtype() == dtype)
    }

    /// Rows of one shape, one dtype, and one number for all rows or one for each.
    fn simple(&self, views: &[View]) -> bool {
        let (first, v) = (&views[0], self.op.vectors);
        let (shape, dtype) = (first.shape(), first.dtype());
        // a 0-d array has no rows to lead
        let Some((_, lead)) = shape.split_last() else {
            return v == 0 && self.op.outputs.iter().all(|o| o.1 != Rule::Lead);
        };
        views.iter().enumerate().all(|(i, x)| {
            let own = x.shape();
            let fits = if i < v {
                own == shape
            } else if v == 0 || own.is_empty() {
                true
            } else if self.exempt[i] {
                own.split_last().is_some_and(|(&one, rows)| one == 1 && rows == lead)
            } else {
                own == lead
            };
            // uint16 words mean bfloat16 here, which only the Python path may say
            fits && x.dtype() != Dtype::Bf16 && (self.exempt[i] || !x.dtype().is_float() || x.dtype() == dtype)
        })
    }
}
