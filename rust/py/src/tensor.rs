//! Two doors for arrays: the buffer protocol (NumPy) and the DLPack C exchange API (torch). The one rule: a view is
//! C-contiguous, aligned, in native byte order and on the CPU, or it is refused with the reason.

use base::{Dtype, Error, MAX_DIMS, Tensor};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyFloat, PyInt, PyType};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Mutex;

/// A borrowed array and whatever keeps it alive. Not moved once [`View::tensor`] was taken.
pub struct View {
    data: *mut u8,
    dims: [usize; MAX_DIMS],
    ndim: usize,
    dtype: Dtype,
    writable: bool,
    buffer: Option<Box<ffi::Py_buffer>>,
    /// A Python number stands for a 0-d float64 array.
    number: Option<Box<f64>>,
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(b) = &mut self.buffer {
            // SAFETY: filled by PyObject_GetBuffer, released once, and views die with the GIL held.
            unsafe { ffi::PyBuffer_Release(&raw mut **b) }
        }
    }
}

impl View {
    pub fn shape(&self) -> &[usize] {
        &self.dims[..self.ndim]
    }
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }
    pub fn tensor(&self) -> Result<Tensor<'_>, Error> {
        let data = self.number.as_ref().map_or(self.data, |n| (&raw const **n).cast_mut().cast());
        // SAFETY: the doors below checked layout, alignment and dtype; `self` keeps the memory alive.
        unsafe { Tensor::new(data, &self.dims[..self.ndim], self.dtype, self.writable) }
    }
}

fn plain(data: *mut u8, dtype: Dtype, writable: bool) -> View {
    View { data, dims: [0; MAX_DIMS], ndim: 0, dtype, writable, buffer: None, number: None }
}

/// What stands for an array that is not there.
pub fn absent() -> View {
    let mut v = plain(std::ptr::dangling_mut::<f64>().cast(), Dtype::F32, false);
    v.ndim = 1;
    v
}

/// The memory of `object`, by whichever door it has.
pub fn view(object: &Bound<'_, PyAny>, output: bool) -> PyResult<View> {
    // SAFETY: a borrowed reference, GIL held.
    if unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) } != 0 {
        return buffer(object, output);
    }
    if !output && (object.is_instance_of::<PyFloat>() || object.is_instance_of::<PyInt>()) {
        let mut v = plain(std::ptr::null_mut(), Dtype::F64, false);
        v.number = Some(Box::new(object.extract()?));
        return Ok(v);
    }
    match exchange(&object.get_type())? {
        Some(api) => dlpack(object, api),
        None => Err(PyTypeError::new_err(format!("expected an array, got {}", object.get_type().name()?))),
    }
}

fn buffer(object: &Bound<'_, PyAny>, output: bool) -> PyResult<View> {
    let py = object.py();
    let mut b = Box::new(ffi::Py_buffer::new());
    let flags = ffi::PyBUF_FORMAT | ffi::PyBUF_C_CONTIGUOUS | if output { ffi::PyBUF_WRITABLE } else { 0 };
    // SAFETY: a live object and a buffer struct that outlives the view.
    if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *b, flags) } != 0 {
        let cause = PyErr::take(py).map_or_else(String::new, |e| e.value(py).to_string());
        return Err(PyValueError::new_err(if output {
            format!("an output must be a writable C-contiguous array ({cause})")
        } else {
            format!("an input must be C-contiguous ({cause})")
        }));
    }
    let mut v = plain(b.buf.cast(), Dtype::U8, b.readonly == 0);
    // SAFETY: with PyBUF_FORMAT, null means unsigned bytes.
    let format = if b.format.is_null() { c"B" } else { unsafe { CStr::from_ptr(b.format) } };
    let (itemsize, ndim, shape) = (b.itemsize as usize, b.ndim as usize, b.shape);
    v.buffer = Some(b); // from here on dropping `v` releases it
    v.dtype = parse(format, itemsize)
        .ok_or_else(|| PyTypeError::new_err(format!("unsupported element type {format:?} (byte order included)")))?;
    dims(&mut v, ndim, shape.cast_const())?;
    Ok(v)
}

/// Formats of the struct module. The order character must be native: the protocol itself would let `>f4` through.
/// `H` is bfloat16: NumPy has none, the Python side shows such arrays as their 16-bit words, and no kernel takes uint16.
fn parse(format: &CStr, itemsize: usize) -> Option<Dtype> {
    let f = format.to_bytes();
    let native = if cfg!(target_endian = "little") { b'<' } else { b'>' };
    let code = match f {
        [c] => *c,
        [o, c] if *o == b'@' || *o == b'=' || *o == native || (itemsize == 1 && b"<>|".contains(o)) => *c,
        _ => return None,
    };
    Some(match (code, itemsize) {
        (b'd', 8) => Dtype::F64,
        (b'f', 4) => Dtype::F32,
        (b'e', 2) => Dtype::F16,
        (b'H', 2) => Dtype::Bf16,
        (b'b', 1) => Dtype::I8,
        (b'B', 1) => Dtype::U8,
        (b'?', 1) => Dtype::Bool,
        (b'h', 2) => Dtype::I16,
        (b'i' | b'l', 4) => Dtype::I32,
        (b'I' | b'L', 4) => Dtype::U32,
        (b'l' | b'q', 8) => Dtype::I64,
        (b'L' | b'Q', 8) => Dtype::U64,
        _ => return None,
    })
}

fn dims(v: &mut View, ndim: usize, shape: *const isize) -> PyResult<()> {
    if ndim > MAX_DIMS {
        return Err(PyValueError::new_err(format!("at most {MAX_DIMS} dimensions, got {ndim}")));
    }
    for i in 0..ndim {
        // SAFETY: both doors give `ndim` sizes (none are read when ndim is 0 and the pointer may be null).
        v.dims[i] = unsafe { *shape.add(i) } as usize;
    }
    v.ndim = ndim;
    let empty = v.dims[..ndim].contains(&0);
    if !empty && !(v.data as usize).is_multiple_of(v.dtype.size()) {
        return Err(PyValueError::new_err("the array is not aligned to its elements"));
    }
    Ok(())
}

#[repr(C)]
struct DLTensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLPackExchangeAPI` of dlpack.h, version 1.
#[repr(C)]
pub struct Exchange {
    major: u32,
    minor: u32,
    previous: *const Exchange,
    allocator: *const c_void,
    from_object: *const c_void,
    to_object: *const c_void,
    borrow: Option<unsafe extern "C" fn(*mut ffi::PyObject, *mut DLTensor) -> c_int>,
    stream: *const c_void,
}

/// Types seen so far with the table each has. The types are kept alive, so that an address means one type for good.
static SEEN: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

fn exchange(kind: &Bound<'_, PyType>) -> PyResult<Option<&'static Exchange>> {
    let key = kind.as_ptr() as usize;
    let seen = |list: &Vec<(usize, usize)>| list.iter().find(|(k, _)| *k == key).map(|&(_, api)| api);
    let mut api = SEEN.lock().ok().and_then(|l| seen(&l));
    if api.is_none() {
        let found = match kind.getattr_opt("__dlpack_c_exchange_api__")? {
            Some(capsule) => {
                let name: &CStr = c"dlpack_exchange_api";
                let capsule = capsule.cast_into::<PyCapsule>()?;
                // SAFETY: a capsule object; the name is checked by the call.
                let p = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), name.as_ptr().cast::<c_char>()) };
                if p.is_null() {
                    return Err(PyErr::fetch(kind.py()));
                }
                p as usize
            }
            None => return Ok(None),
        };
        if let Ok(mut list) = SEEN.lock()
            && list.len() < 64
        {
            std::mem::forget(kind.clone());
            list.push((key, found));
        }
        api = Some(found);
    }
    // SAFETY: the table lives as long as the process (dlpack.h), and its first version number is checked.
    Ok(api.map(|p| unsafe { &*(p as *const Exchange) }).filter(|a| a.major == 1 && a.borrow.is_some()))
}

fn dlpack(object: &Bound<'_, PyAny>, api: &Exchange) -> PyResult<View> {
    let mut t = std::mem::MaybeUninit::<DLTensor>::zeroed();
    let Some(borrow) = api.borrow else {
        return Err(PyTypeError::new_err("no DLPack view"));
    };
    // SAFETY: the function fills a DLTensor that borrows from `object`, which the caller's arguments keep alive.
    if unsafe { borrow(object.as_ptr(), t.as_mut_ptr()) } != 0 {
        return Err(PyErr::fetch(object.py()));
    }
    // SAFETY: filled on success.
    let t = unsafe { t.assume_init() };
    if t.device_type != 1 {
        return Err(PyValueError::new_err("the tensor is not on the CPU"));
    }
    let dtype = match (t.code, t.bits, t.lanes) {
        (2, 64, 1) => Dtype::F64,
        (2, 32, 1) => Dtype::F32,
        (2, 16, 1) => Dtype::F16,
        (4, 16, 1) => Dtype::Bf16,
        (0, 8, 1) => Dtype::I8,
        (0, 16, 1) => Dtype::I16,
        (0, 32, 1) => Dtype::I32,
        (0, 64, 1) => Dtype::I64,
        (1, 8, 1) => Dtype::U8,
        (1, 32, 1) => Dtype::U32,
        (1, 64, 1) => Dtype::U64,
        (6, 8, 1) => Dtype::Bool,
        (code, bits, _) => {
            return Err(PyTypeError::new_err(format!("unsupported element type (DLPack {code}, {bits} bits)")));
        }
    };
    // SAFETY: data + byte_offset is where the elements start (dlpack.h).
    let mut v = plain(unsafe { t.data.cast::<u8>().add(t.byte_offset as usize) }, dtype, true);
    dims(&mut v, t.ndim as usize, t.shape.cast::<isize>().cast_const())?;
    // strides mean nothing where there are no elements, and may be anything
    let empty = v.dims[..v.ndim].contains(&0);
    let mut dense = 1;
    // strides of an array without elements say nothing, and NumPy's are 0
    let checked = if v.dims[..v.ndim].contains(&0) { 0 } else { v.ndim };
    for i in (0..checked).rev() {
        // SAFETY: `ndim` strides, or null for C-contiguous.
        let stride = if t.strides.is_null() { dense as i64 } else { unsafe { *t.strides.add(i) } };
        if !empty && v.dims[i] > 1 && stride != dense as i64 {
            return Err(PyValueError::new_err("the tensor is not contiguous"));
        }
        dense *= usize::max(v.dims[i], 1);
    }
    Ok(v)
}
