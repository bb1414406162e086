//! The extension module `tersor._core`: the table of operators as callables. It does not change when an operator is added.

mod fast;
mod lists;
mod tensor;
mod torch;

use base::{Error, Kind, Scalar, Tensor, pool, simd};
use ops::Operator;
use ops::signature::{Lead, Shape, Size, Type};
use pyo3::create_exception;
use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PySequence, PyTuple};
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

/// What the output for result `k` is called: of several each by its name.
fn given(op: &Operator, k: usize) -> String {
    if op.signature.shown() == 1 { "out".to_owned() } else { format!("out for {}", op.signature.outputs[k].name) }
}

/// Outputs overlap nothing, or, where the operator allows it, are exactly an input.
fn overlap(op: &Operator, tensors: &[Tensor]) -> base::Result<()> {
    let inputs = &op.signature.inputs;
    let n = inputs.len();
    let range = |t: &Tensor| (t.as_ptr() as usize, t.as_ptr() as usize + t.bytes());
    for (i, out) in tensors.iter().enumerate().skip(n) {
        let (a, b) = range(out);
        for (j, other) in tensors.iter().enumerate() {
            let (c, d) = range(other);
            if j == i || a >= d || c >= b || (j < n && op.alias && (a, b) == (c, d)) {
                continue;
            }
            let name = |k: usize| if k < n { inputs[k].name.to_owned() } else { given(op, k - n) };
            return Err(Error::Value(format!("{} overlaps {}", name(i), name(j))));
        }
    }
    Ok(())
}

/// One operator: `op(*inputs, *outputs, *scalars)`, arrays C-contiguous, outputs written in place.
#[pyclass(frozen, name = "Op", module = "tersor._core")]
pub struct PyOp(&'static Operator);

#[pymethods]
impl PyOp {
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }
    /// Its name in the registry, `family.name`.
    #[getter]
    fn key(&self) -> String {
        self.0.key()
    }
    /// Its name in torch's namespace.
    #[getter]
    fn symbol(&self) -> String {
        self.0.symbol()
    }
    #[getter]
    fn alias(&self) -> bool {
        self.0.alias
    }
    /// The inputs that may be float32 beside 16-bit data.
    #[getter]
    fn wider(&self) -> Vec<&str> {
        self.0.signature.inputs.iter().filter(|p| p.wider).map(|p| p.name).collect()
    }
    /// The inputs and the results that are lists.
    #[getter]
    fn lists(&self) -> Vec<&str> {
        let sig = &self.0.signature;
        let inputs = sig.inputs.iter().filter(|p| p.many).map(|p| p.name);
        inputs.chain(sig.outputs.iter().filter(|o| o.many).map(|o| o.name)).collect()
    }
    /// Of each input: its name, whether it may be absent, the name of its leading axes ("", ".." or a letter), and its last
    /// axes as pairs of a letter (or None) and what is added to it; None for any shape.
    #[getter]
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let sig = &self.0.signature;
        let axes = |core: &Vec<(Option<usize>, usize)>| -> Vec<_> {
            core.iter().map(|&(l, more)| (l.map(|l| sig.letters[l]), more)).collect()
        };
        PyList::new(py, sig.inputs.iter().map(|p| (p.name, p.optional, self.lead(p.lead), p.core.as_ref().map(axes))))
    }
    /// Of each result: its name, its shape (the position of the input that it is like; the name of its leading axes and its
    /// last sizes; or an input and the two scalars of a grain), its type, and whether it is left empty where nobody needs it,
    /// or saved for the backward and not shown.
    /// Sizes are numbers, names of letters and scalars, or tuples of a sign and sizes.
    #[getter]
    fn outputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let sig = &self.0.signature;
        let made = PyList::empty(py);
        for o in &sig.outputs {
            let shape = match &o.shape {
                Shape::Like(k) => k.into_pyobject(py)?.into_any(),
                Shape::Of(lead, core) => {
                    let core = core.iter().map(|s| self.size(py, s)).collect::<PyResult<Vec<_>>>()?;
                    (self.lead(*lead), PyTuple::new(py, core)?).into_pyobject(py)?.into_any()
                }
                Shape::Grain([x, axes, group]) => {
                    (*x, sig.scalars[*axes].0, sig.scalars[*group].0).into_pyobject(py)?.into_any()
                }
            };
            made.append((o.name, shape, self.dtype(py, &o.dtype)?, o.needed, o.saved))?;
        }
        Ok(made)
    }
    /// Pairs of a name and "float", "int", "bool" or "needs".
    #[getter]
    fn scalars(&self) -> Vec<(&str, &str)> {
        let kind = |k: Kind| match k {
            Kind::Float => "float",
            Kind::Int => "int",
            Kind::Bool => "bool",
            Kind::Needs => "needs",
        };
        self.0.signature.scalars.iter().map(|&(n, k)| (n, kind(k))).collect()
    }

    #[pyo3(signature = (*args))]
    fn __call__(&self, py: Python<'_>, args: &Bound<'_, PyTuple>) -> PyResult<()> {
        let (op, sig) = (self.0, &self.0.signature);
        let (n, arrays) = (sig.inputs.len(), sig.inputs.len() + sig.outputs.len());
        if args.len() != arrays + sig.scalars.len() {
            return Err(PyTypeError::new_err(format!(
                "{}: expected {} arrays and {} scalars, got {} arguments",
                op.name(),
                arrays,
                sig.scalars.len(),
                args.len()
            )));
        }
        let mut views = Vec::with_capacity(arrays);
        let mut lengths = Vec::new();
        for i in 0..arrays {
            let a = args.get_borrowed_item(i)?;
            let (name, many) = match sig.inputs.get(i) {
                Some(p) => (p.name, p.many),
                None => (sig.outputs[i - n].name, sig.outputs[i - n].many),
            };
            let before = views.len();
            if many {
                for (k, a) in a.cast::<PySequence>()?.try_iter()?.enumerate() {
                    views.push(
                        tensor::view(&a?, i >= n)
                            .map_err(|e| rename(py, &e, &format!("{}: argument {name}[{k}]: ", op.name())))?,
                    );
                }
            } else {
                let named = |e| rename(py, &e, &format!("{}: argument {name}: ", op.name()));
                views.push(tensor::view(&a, i >= n).map_err(named)?);
            }
            if sig.lists() {
                lengths.push(views.len() - before);
            }
        }
        let mut scalars = Vec::with_capacity(sig.scalars.len());
        for (i, (name, kind)) in sig.scalars.iter().enumerate() {
            let a = args.get_borrowed_item(arrays + i)?;
            let value = match kind {
                Kind::Float => a.extract().map(Scalar::Float),
                Kind::Int | Kind::Needs => a.extract().map(Scalar::Int),
                Kind::Bool => a.extract().map(Scalar::Bool),
            };
            scalars.push(value.map_err(|e| rename(py, &e, &format!("{}: argument {name}: ", op.name())))?);
        }
        let tensors =
            views.iter().map(tensor::View::tensor).collect::<Result<Vec<_>, _>>().map_err(|e| error(op.name(), e))?;
        guarded(op.name(), || {
            if sig.lists() {
                let spans = lists::Spans::of(lengths);
                spans.overlap(op, &tensors)?;
                scalars.extend(spans.counts(op));
            } else {
                overlap(op, &tensors)?;
            }
            let context = pool::Context { runner: None, threads: 0, poll: Some(poll) };
            py.detach(|| pool::with(context, || (op.run)(&tensors, &scalars)))
        })
    }
}

impl PyOp {
    fn lead(&self, lead: Lead) -> &'static str {
        match lead {
            Lead::None => "",
            Lead::Rows => "..",
            Lead::Same => self.0.signature.pack.unwrap_or_default(),
        }
    }
    fn size<'py>(&self, py: Python<'py>, s: &Size) -> PyResult<Bound<'py, PyAny>> {
        let sig = &self.0.signature;
        Ok(match s {
            Size::Int(n) => n.into_pyobject(py)?.into_any(),
            Size::Letter(l) => sig.letters[*l].into_pyobject(py)?.into_any(),
            Size::Scalar(k) => sig.scalars[*k].0.into_pyobject(py)?.into_any(),
            Size::Lead => sig.pack.into_pyobject(py)?,
            Size::Of(sign, ab) => {
                (sign.text(), self.size(py, &ab[0])?, self.size(py, &ab[1])?).into_pyobject(py)?.into_any()
            }
            Size::If(abc) => {
                let [test, a, b] = &**abc;
                ("?", self.size(py, test)?, self.size(py, a)?, self.size(py, b)?).into_pyobject(py)?.into_any()
            }
        })
    }
    /// The position of an input, a name, or a tuple that decides.
    fn dtype<'py>(&self, py: Python<'py>, t: &Type) -> PyResult<Bound<'py, PyAny>> {
        Ok(match t {
            Type::Like(k) => k.into_pyobject(py)?.into_any(),
            Type::Is(d) => d.name().into_pyobject(py)?.into_any(),
            Type::Compute => "compute".into_pyobject(py)?.into_any(),
            Type::Float(k) => ("float", self.0.signature.scalars[*k].0).into_pyobject(py)?.into_any(),
            Type::If(test, ab) => ("?", self.size(py, test)?, self.dtype(py, &ab[0])?, self.dtype(py, &ab[1])?)
                .into_pyobject(py)?
                .into_any(),
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
        ::ops::all().iter().map(PyOp).collect()
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

    /// A MemoryError where the machine has not so many bytes.
    #[pyfunction]
    fn room(bytes: usize) -> PyResult<()> {
        base::room(bytes).map_err(|e| PyMemoryError::new_err(e.to_string()))
    }

    /// The instruction set in force, and those this machine has.
    #[pyfunction]
    fn level() -> (&'static str, Vec<&'static str>) {
        (simd::level_name(), simd::available())
    }

    /// Whether products of packed weights use tiles of AMX.
    #[pyfunction]
    fn tiles() -> bool {
        base::tiles::allowed()
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

    /// Registers the CPU kernels with torch's dispatcher; the symbols it did register.
    #[pyfunction]
    fn register_torch(py: Python<'_>, library: &str, namespace: &str) -> PyResult<Vec<String>> {
        py.detach(|| torch::register(library, namespace)).map_err(PyRuntimeError::new_err)
    }

    /// The exception a kernel called through torch meant: torch itself can only raise RuntimeError.
    #[pyfunction]
    fn translate(message: &str) -> Option<PyErr> {
        torch::translate(message)
    }
}
