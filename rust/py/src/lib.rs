//! The extension module `tersor._core`: the table of operators as callables. It does not change when an operator is added.

mod fast;
mod tensor;
mod torch;

use base::{Error, Kind, Op, Rule, Scalar, Tensor, pool, simd};
use pyo3::create_exception;
use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

create_exception!(tersor, InternalError, PyRuntimeError, "A fault inside tersor: please report it.");

/// What a signal handler raised while a kernel ran; raised in its stead when the call returns.
static RAISED: Mutex<Option<PyErr>> = Mutex::new(None);

/// Runs pending signal handlers; true if one raised.
fn poll() -> bool {
    Python::try_attach(|py| match py.check_signals() {
        Ok(()) => false,
        Err(e) => {
            if let Ok(mut slot) = RAISED.lock() {
                *slot = Some(e);
            }
            true
        }
    })
    .unwrap_or(false)
}

fn raised() -> PyErr {
    let slot = RAISED.lock().ok().and_then(|mut s| s.take());
    slot.unwrap_or_else(|| PyKeyboardInterrupt::new_err(()))
}

fn error(op: &str, e: Error) -> PyErr {
    match e {
        Error::Type(m) => PyTypeError::new_err(format!("{op}: {m}")),
        Error::Value(m) => PyValueError::new_err(format!("{op}: {m}")),
        Error::Memory(_) => PyMemoryError::new_err(format!("{op}: {e}")),
        Error::Cancelled => raised(),
    }
}

/// Runs `f` with panics caught: a fault of ours is an ordinary exception, not one that `except Exception` misses.
fn guarded<T>(op: &str, f: impl FnOnce() -> base::Result<T>) -> PyResult<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(r) => r.map_err(|e| error(op, e)),
        Err(p) => Err(InternalError::new_err(format!("{op}: {}", panic_text(p.as_ref())))),
    }
}

fn panic_text(p: &(dyn std::any::Any + Send)) -> String {
    p.downcast_ref::<String>()
        .cloned()
        .or_else(|| p.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_default()
}

/// Outputs overlap nothing, or, where the operator allows it, are exactly an input.
fn overlap(op: &Op, tensors: &[Tensor]) -> base::Result<()> {
    let n = op.inputs.len();
    let range = |t: &Tensor| (t.as_ptr() as usize, t.as_ptr() as usize + t.bytes());
    for (i, out) in tensors.iter().enumerate().skip(n) {
        let (a, b) = range(out);
        for (j, other) in tensors.iter().enumerate() {
            let (c, d) = range(other);
            if j == i || a >= d || c >= b || (j < n && op.alias && (a, b) == (c, d)) {
                continue;
            }
            let name = |k: usize| {
                if k < n { op.inputs[k] } else { op.outputs[k - n].0 }
            };
            return Err(Error::Value(format!("output {} overlaps {}", name(i), name(j))));
        }
    }
    Ok(())
}

/// One operator: `op(*inputs, *outputs, *scalars)`, arrays C-contiguous, outputs written in place.
#[pyclass(frozen, name = "Op", module = "tersor._core")]
pub struct PyOp(&'static Op);

#[pymethods]
impl PyOp {
    #[getter]
    fn name(&self) -> &str {
        self.0.name
    }
    #[getter]
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.inputs)
    }
    #[getter]
    fn vectors(&self) -> usize {
        self.0.vectors
    }
    #[getter]
    fn alias(&self) -> bool {
        self.0.alias
    }
    /// Pairs of a name and a rule: "rows", "lead", "custom" or the position of the input the output is like.
    #[getter]
    fn outputs(&self, py: Python<'_>) -> PyResult<Vec<(&str, Py<PyAny>)>> {
        let rule = |r: Rule| -> PyResult<Py<PyAny>> {
            Ok(match r {
                Rule::Rows => "rows".into_pyobject(py)?.into_any().unbind(),
                Rule::Lead => "lead".into_pyobject(py)?.into_any().unbind(),
                Rule::Custom => "custom".into_pyobject(py)?.into_any().unbind(),
                Rule::Like(i) => i.into_pyobject(py)?.into_any().unbind(),
            })
        };
        self.0.outputs.iter().map(|&(n, r)| Ok((n, rule(r)?))).collect()
    }
    /// Pairs of a name and "float", "int" or "bool".
    #[getter]
    fn scalars(&self) -> Vec<(&str, &str)> {
        let kind = |k: Kind| match k {
            Kind::Float => "float",
            Kind::Int => "int",
            Kind::Bool => "bool",
        };
        self.0.scalars.iter().map(|&(n, k)| (n, kind(k))).collect()
    }

    #[pyo3(signature = (*args))]
    fn __call__(&self, py: Python<'_>, args: &Bound<'_, PyTuple>) -> PyResult<()> {
        let op = self.0;
        let (n, arrays) = (op.inputs.len(), op.inputs.len() + op.outputs.len());
        if args.len() != arrays + op.scalars.len() {
            return Err(PyTypeError::new_err(format!(
                "{}: expected {} arrays and {} scalars, got {} arguments",
                op.name,
                arrays,
                op.scalars.len(),
                args.len()
            )));
        }
        let mut views = Vec::with_capacity(arrays);
        for i in 0..arrays {
            let a = args.get_borrowed_item(i)?;
            views.push(tensor::view(&a, i >= n).map_err(|e| {
                let name = if i < n { op.inputs[i] } else { op.outputs[i - n].0 };
                rename(py, &e, &format!("{}: argument {name}: ", op.name))
            })?);
        }
        let mut scalars = Vec::with_capacity(op.scalars.len());
        for (i, (name, kind)) in op.scalars.iter().enumerate() {
            let a = args.get_borrowed_item(arrays + i)?;
            let value = match kind {
                Kind::Float => a.extract().map(Scalar::Float),
                Kind::Int => a.extract().map(Scalar::Int),
                Kind::Bool => a.extract().map(Scalar::Bool),
            };
            scalars.push(value.map_err(|e| rename(py, &e, &format!("{}: argument {name}: ", op.name)))?);
        }
        let tensors =
            views.iter().map(tensor::View::tensor).collect::<Result<Vec<_>, _>>().map_err(|e| error(op.name, e))?;
        guarded(op.name, || {
            overlap(op, &tensors)?;
            let context = pool::Context { runner: None, threads: 0, poll: Some(poll) };
            py.detach(|| pool::with(context, || (op.run)(&tensors, &scalars)))
        })
    }
}

/// The same kind of error, with the operator and the argument named first.
fn rename(py: Python<'_>, e: &PyErr, prefix: &str) -> PyErr {
    let text = format!("{prefix}{}", e.value(py));
    if e.is_instance_of::<PyTypeError>(py) { PyTypeError::new_err(text) } else { PyValueError::new_err(text) }
}

#[pymodule]
mod _core {
    use super::*;

    #[pymodule_export]
    use super::{InternalError, PyOp, fast::Fast};

    #[pymodule_init]
    fn init(m: &Bound<'_, PyModule>) -> PyResult<()> {
        m.add("__version__", env!("CARGO_PKG_VERSION"))
    }

    /// Every operator.
    #[pyfunction]
    fn ops() -> Vec<PyOp> {
        ::ops::all().map(PyOp).collect()
    }

    /// Sets the number of threads of large calls; 0 asks the environment again.
    #[pyfunction]
    fn set_num_threads(n: usize) {
        pool::set_threads(n);
    }

    /// The number of threads of large calls.
    #[pyfunction]
    fn get_num_threads() -> usize {
        pool::threads()
    }

    /// To be called in a forked child: the parent's threads are not there.
    #[pyfunction]
    fn after_fork() {
        pool::after_fork();
        torch::after_fork();
    }

    /// The instruction set in force, and those this machine has.
    #[pyfunction]
    fn level() -> (&'static str, Vec<&'static str>) {
        (simd::level_name(), simd::available())
    }

    /// Forces an instruction set by name (None: the best); for tests.
    #[pyfunction]
    #[pyo3(signature = (name=None))]
    fn force_level(name: Option<&str>) -> PyResult<()> {
        if simd::force(name) { Ok(()) } else { Err(PyValueError::new_err(format!("no level {name:?} here"))) }
    }

    /// Applies a function of `math` by name to a float64 or float32 array, element by element; for tests.
    #[pyfunction]
    fn math(name: &str, x: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let (x, out) = (tensor::view(x, false)?, tensor::view(out, true)?);
        let done = guarded(name, || {
            let (x, out) = (x.tensor()?, out.tensor()?);
            if x.dtype() == base::Dtype::F64 {
                Ok(base::math::eval_f64(name, x.slice()?, out.slice_mut()?))
            } else {
                Ok(base::math::eval_f32(name, x.slice()?, out.slice_mut()?))
            }
        })?;
        if done {
            Ok(())
        } else {
            Err(PyValueError::new_err(format!("{name}: no such function, or the lengths differ")))
        }
    }

    /// Registers the CPU kernels with torch's dispatcher; the names it did register.
    #[pyfunction]
    fn register_torch(py: Python<'_>, library: &str, namespace: &str) -> PyResult<Vec<&'static str>> {
        py.detach(|| torch::register(library, namespace)).map_err(PyRuntimeError::new_err)
    }

    /// The exception a kernel called through torch meant: torch itself can only raise RuntimeError.
    #[pyfunction]
    fn translate(message: &str) -> Option<PyErr> {
        torch::translate(message)
    }
}
