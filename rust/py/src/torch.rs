//! The torch door: every operator registered as a CPU kernel in torch's dispatcher, through the stable C ABI of LibTorch
//! (torch/csrc/stable/c/shim.h), looked up by name. The one rule: no code per operator, no C++, no link to torch.
//!
//! A kernel here gets a stack of 64-bit words: owned tensor handles, then float, int and bool bits; it leaves output
//! handles. It has no error code: a failure is raised with `aoti_torch_check`, a C++ exception that passes through, so
//! nothing that owns memory may be alive in this frame by then. Its text starts with [`MARK`], by which the Python side
//! finds the right exception again.

use crate::lists::{self, Spans};
use crate::{error, poll};
use base::pool::{self, Context};
use base::{Dtype, Error, Kind, MAX_DIMS, Scalar, Tensor};
use ops::Operator;
use pyo3::PyErr;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

const MARK: &str = "[tersor:";

type Handle = *mut c_void;
type Boxed = unsafe extern "C-unwind" fn(*mut u64, u64, u64);
type Body = unsafe extern "C" fn(i64, i64, *mut c_void);

macro_rules! symbols { ($($name:ident: fn($($arg:ty),*) $(-> $ret:ty)?;)*) => {
    /// The functions of LibTorch that this file calls.
    struct Api { $($name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)* check: unsafe extern "C-unwind" fn(bool, *const c_char, *const c_char, u32, *const c_char) }
    impl Api {
        /// # Safety
        /// `library` is a handle of `dlopen` on LibTorch's CPU library.
        unsafe fn find(library: *mut c_void) -> Result<Api, String> {
            let look = |name: &CStr| {
                // SAFETY: a live handle and a C string.
                let p = unsafe { libc::dlsym(library, name.as_ptr()) };
                if p.is_null() { Err(format!("torch has no {}", name.to_string_lossy())) } else { Ok(p) }
            };
            // SAFETY: the signatures are those of the headers named above.
            Ok(unsafe { Api {
                $($name: std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) $(-> $ret)?>(
                    look(CString::new(stringify!($name)).map_err(|e| e.to_string())?.as_c_str())?),)*
                check: std::mem::transmute::<*mut c_void, unsafe extern "C-unwind" fn(bool, *const c_char, *const c_char, u32, *const c_char)>(
                    look(c"aoti_torch_check")?),
            } })
        }
    }
} }
symbols! {
    aoti_torch_library_init_impl: fn(*const c_char, *const c_char, *const c_char, u32, *mut Handle) -> c_int;
    aoti_torch_library_impl: fn(Handle, *const c_char, Boxed) -> c_int;
    aoti_torch_get_data_ptr: fn(Handle, *mut *mut c_void) -> c_int;
    aoti_torch_get_dim: fn(Handle, *mut i64) -> c_int;
    aoti_torch_get_sizes: fn(Handle, *mut *mut i64) -> c_int;
    aoti_torch_get_strides: fn(Handle, *mut *mut i64) -> c_int;
    aoti_torch_get_storage_offset: fn(Handle, *mut i64) -> c_int;
    aoti_torch_get_storage_size: fn(Handle, *mut i64) -> c_int;
    aoti_torch_is_contiguous: fn(Handle, *mut bool) -> c_int;
    aoti_torch_get_dtype: fn(Handle, *mut i32) -> c_int;
    aoti_torch_empty_strided: fn(i64, *const i64, *const i64, i32, i32, i32, *mut Handle) -> c_int;
    aoti_torch_copy_: fn(Handle, Handle, i32) -> c_int;
    aoti_torch_delete_tensor_object: fn(Handle) -> c_int;
    aoti_torch_dtype_float64: fn() -> i32;
    aoti_torch_dtype_float32: fn() -> i32;
    aoti_torch_dtype_float16: fn() -> i32;
    aoti_torch_dtype_bfloat16: fn() -> i32;
    aoti_torch_dtype_int64: fn() -> i32;
    aoti_torch_dtype_int32: fn() -> i32;
    aoti_torch_dtype_int16: fn() -> i32;
    aoti_torch_dtype_int8: fn() -> i32;
    aoti_torch_dtype_uint64: fn() -> i32;
    aoti_torch_dtype_uint32: fn() -> i32;
    aoti_torch_dtype_uint16: fn() -> i32;
    aoti_torch_dtype_uint8: fn() -> i32;
    aoti_torch_dtype_bool: fn() -> i32;
    torch_list_size: fn(Handle, *mut usize) -> c_int;
    torch_list_get_item: fn(Handle, usize, *mut u64) -> c_int;
    torch_new_list_reserve_size: fn(usize, *mut Handle) -> c_int;
    torch_list_push_back: fn(Handle, u64) -> c_int;
    torch_delete_list: fn(Handle) -> c_int;
    torch_parallel_for: fn(i64, i64, i64, Body, *mut c_void) -> c_int;
    torch_get_num_threads: fn(*mut u32) -> c_int;
}

struct Torch {
    api: Api,
    /// Torch's code for each of [`Dtype::ALL`].
    codes: [i32; Dtype::ALL.len()],
    ops: &'static [Operator],
}
static TORCH: OnceLock<Torch> = OnceLock::new();
/// In a child forked after torch's own threads were used, torch's OpenMP hangs: there the work runs on our pool.
static FORKED: AtomicBool = AtomicBool::new(false);

pub fn after_fork() {
    FORKED.store(true, Ordering::Relaxed);
}

impl Torch {
    /// # Safety
    /// `path` names torch's CPU library, which is loaded already.
    unsafe fn load(path: &CStr) -> Result<Torch, String> {
        // SAFETY: opening a library that is loaded runs no new code.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY) };
        if library.is_null() {
            return Err(format!("cannot open {}", path.to_string_lossy()));
        }
        // SAFETY: a handle of dlopen; the getters below take nothing and return a number.
        unsafe {
            let api = Api::find(library)?;
            let codes = Dtype::ALL.map(|d| match d {
                Dtype::F64 => (api.aoti_torch_dtype_float64)(),
                Dtype::F32 => (api.aoti_torch_dtype_float32)(),
                Dtype::F16 => (api.aoti_torch_dtype_float16)(),
                Dtype::Bf16 => (api.aoti_torch_dtype_bfloat16)(),
                Dtype::I64 => (api.aoti_torch_dtype_int64)(),
                Dtype::I32 => (api.aoti_torch_dtype_int32)(),
                Dtype::I16 => (api.aoti_torch_dtype_int16)(),
                Dtype::I8 => (api.aoti_torch_dtype_int8)(),
                Dtype::U64 => (api.aoti_torch_dtype_uint64)(),
                Dtype::U32 => (api.aoti_torch_dtype_uint32)(),
                Dtype::U16 => (api.aoti_torch_dtype_uint16)(),
                Dtype::U8 => (api.aoti_torch_dtype_uint8)(),
                Dtype::Bool => (api.aoti_torch_dtype_bool)(),
            });
            Ok(Torch { api, codes, ops: ops::all() })
        }
    }

    fn code(&self, d: Dtype) -> i32 {
        Dtype::ALL.iter().position(|&e| e == d).map_or(-1, |i| self.codes[i])
    }

    fn dtype(&self, code: i32) -> Result<Dtype, Error> {
        let i = self.codes.iter().position(|&c| c == code);
        i.map(|i| Dtype::ALL[i]).ok_or_else(|| Error::Type(format!("unsupported torch dtype (code {code})")))
    }

    fn tensor<'a>(&self, handle: Handle, writable: bool) -> Result<Tensor<'a>, Error> {
        let (mut data, mut dim, mut sizes, mut code) = (std::ptr::null_mut(), 0, std::ptr::null_mut(), 0);
        // SAFETY: a live handle; `sizes` is borrowed from it.
        let failed = unsafe {
            (self.api.aoti_torch_get_data_ptr)(handle, &raw mut data)
                | (self.api.aoti_torch_get_dim)(handle, &raw mut dim)
                | (self.api.aoti_torch_get_sizes)(handle, &raw mut sizes)
                | (self.api.aoti_torch_get_dtype)(handle, &raw mut code)
        };
        let ndim = dim as usize;
        if failed != 0 || ndim > MAX_DIMS {
            return Err(Error::Value(format!("a dense tensor of at most {MAX_DIMS} dimensions is needed")));
        }
        let dtype = self.dtype(code)?;
        let mut shape = [0; MAX_DIMS];
        for (i, s) in shape.iter_mut().enumerate().take(ndim) {
            // SAFETY: torch gives `dim` sizes.
            *s = unsafe { *sizes.add(i) } as usize;
        }
        if !shape[..ndim].contains(&0) && !(data as usize).is_multiple_of(dtype.size()) {
            return Err(Error::Value("the tensor is not aligned to its elements".into()));
        }
        // torch's tensors of no elements lie nowhere, which no slice may
        let data = if data.is_null() { std::ptr::without_provenance_mut(dtype.size()) } else { data };
        // SAFETY: contiguous or read by its shape alone (see `dense`), and alive as long as the handle, which outlives the call.
        unsafe { Tensor::new(data.cast(), &shape[..ndim], dtype, writable) }
    }

    /// An error if a tensor reaches past its storage, which others may have freed or made shorter.
    fn held(&self, handle: Handle, t: &Tensor) -> Result<(), Error> {
        let (mut strides, mut offset, mut bytes) = (std::ptr::null_mut(), 0, 0);
        // SAFETY: a live handle; `strides` is borrowed from it.
        let failed = unsafe {
            (self.api.aoti_torch_get_strides)(handle, &raw mut strides)
                | (self.api.aoti_torch_get_storage_offset)(handle, &raw mut offset)
                | (self.api.aoti_torch_get_storage_size)(handle, &raw mut bytes)
        };
        // SAFETY: torch gives as many strides as sizes.
        let last = |i: usize, n: usize| (n as i64 - 1).saturating_mul(unsafe { *strides.add(i) });
        let end = t.shape().iter().enumerate().fold(offset + 1, |end, (i, &n)| end.saturating_add(last(i, n)));
        if failed != 0 || (!t.is_empty() && end.saturating_mul(t.dtype().size() as i64) > bytes) {
            return Err(Error::Type("a tensor's storage was freed or made shorter".into()));
        }
        Ok(())
    }

    fn empty(&self, shape: &[usize], dtype: Dtype) -> Result<Handle, Error> {
        let (mut sizes, mut strides, mut dense) = ([0i64; MAX_DIMS], [0i64; MAX_DIMS], 1i64);
        for i in (0..shape.len()).rev() {
            (sizes[i], strides[i]) = (shape[i] as i64, dense);
            dense = dense.saturating_mul(sizes[i].max(1));
        }
        let bytes = (dense as usize).saturating_mul(dtype.size());
        base::room(bytes)?;
        let mut out = std::ptr::null_mut();
        // SAFETY: arrays of `ndim` entries; device 0 of type CPU, whose code is 0.
        let failed = unsafe {
            (self.api.aoti_torch_empty_strided)(
                shape.len() as i64,
                sizes.as_ptr(),
                strides.as_ptr(),
                self.code(dtype),
                0,
                0,
                &raw mut out,
            )
        };
        if failed != 0 {
            return Err(Error::Memory(bytes));
        }
        if bytes >= LARGE && !shape.contains(&0) {
            base::huge(self.tensor(out, true)?.as_ptr(), bytes);
        }
        Ok(out)
    }

    /// A dense copy of a tensor that is not contiguous.
    fn dense(&self, handle: Handle, t: &Tensor) -> Result<Option<Handle>, Error> {
        let mut yes = false;
        // SAFETY: a live handle.
        if unsafe { (self.api.aoti_torch_is_contiguous)(handle, &raw mut yes) } == 0 && yes {
            return Ok(None);
        }
        let copy = self.empty(t.shape(), t.dtype())?;
        // SAFETY: two live handles of the same shape and dtype.
        if unsafe { (self.api.aoti_torch_copy_)(copy, handle, 0) } != 0 {
            self.delete(copy);
            return Err(Error::Value("cannot be made contiguous".into()));
        }
        Ok(Some(copy))
    }

    /// The words of a list, which is given back to torch; its entries are whoever calls' own now.
    fn unpack(&self, list: Handle, into: &mut Vec<Handle>) -> usize {
        let mut n = 0;
        // SAFETY: an owned list; places below its size are read, and it is deleted once.
        unsafe {
            (self.api.torch_list_size)(list, &raw mut n);
            for i in 0..n {
                let mut word = 0;
                (self.api.torch_list_get_item)(list, i, &raw mut word);
                into.push(word as Handle);
            }
            (self.api.torch_delete_list)(list);
        }
        n
    }

    /// A list of owned handles, which it owns from now on.
    fn pack(&self, handles: &[Handle]) -> Handle {
        let mut list = std::ptr::null_mut();
        // SAFETY: a fresh list, filled to the size that was asked for.
        unsafe {
            (self.api.torch_new_list_reserve_size)(handles.len(), &raw mut list);
            for &h in handles {
                (self.api.torch_list_push_back)(list, h as u64);
            }
        }
        list
    }

    fn delete(&self, handle: Handle) {
        // SAFETY: an owned handle, deleted once.
        unsafe { (self.api.aoti_torch_delete_tensor_object)(handle) };
    }
}

/// Fresh results from this size on are worth asking for huge pages.
const LARGE: usize = 4 << 20;

/// Owned handles that are deleted whatever happens.
struct Handles<'a>(&'a Torch, Vec<Handle>);
impl Drop for Handles<'_> {
    fn drop(&mut self) {
        for &h in &self.1 {
            self.0.delete(h);
        }
    }
}

fn call(torch: &Torch, op: &'static Operator, stack: &mut [u64]) -> Result<(), Error> {
    let sig = &op.signature;
    let n = sig.inputs.len();
    let mut owned = Handles(torch, Vec::with_capacity(n));
    let mut lengths = Vec::new();
    for (p, &word) in sig.inputs.iter().zip(&*stack) {
        if p.many {
            lengths.push(torch.unpack(word as Handle, &mut owned.1));
        } else {
            owned.1.push(word as Handle);
            lengths.push(1);
        }
    }
    let all = owned.1.len();
    let mut tensors = Vec::with_capacity(all + sig.outputs.len());
    for i in 0..all {
        let t = torch.tensor(owned.1[i], false)?;
        torch.held(owned.1[i], &t)?;
        tensors.push(match torch.dense(owned.1[i], &t)? {
            None => t,
            Some(copy) => {
                owned.1.push(copy);
                torch.tensor(copy, false)?
            }
        });
    }
    let mut scalars = [Scalar::Int(0); 16];
    for (k, &(_, kind)) in sig.scalars.iter().enumerate() {
        let word = stack[n + k];
        scalars[k] = match kind {
            Kind::Float => Scalar::Float(f64::from_bits(word)),
            Kind::Int | Kind::Needs => Scalar::Int(word as i64),
            Kind::Bool => Scalar::Bool(word & 1 != 0),
        };
    }
    let scalars = &scalars[..sig.scalars.len()];
    let mut results = Handles(torch, Vec::with_capacity(sig.outputs.len()));
    let spans = sig.lists().then(|| Spans::of(lengths.iter().copied()));
    let heads = spans.as_ref().map(|spans| spans.heads(&tensors));
    let sizes = sig.bind(heads.as_deref().unwrap_or(&tensors))?;
    for i in 0..sig.outputs.len() {
        let before = results.1.len();
        match &spans {
            Some(spans) if sig.outputs[i].many => {
                for k in lists::like(op, i, spans, scalars) {
                    results.1.push(torch.empty(tensors[k].shape(), tensors[k].dtype())?);
                }
            }
            _ => {
                let wanted = sig.output(i, &sizes, heads.as_deref().unwrap_or(&tensors), scalars)?;
                results.1.push(torch.empty(wanted.shape(), wanted.dtype)?);
            }
        }
        lengths.push(results.1.len() - before);
    }
    for &out in &results.1 {
        tensors.push(torch.tensor(out, true)?);
    }
    let behind: Vec<Scalar>;
    let scalars = if sig.lists() {
        behind = scalars.iter().copied().chain(Spans::of(lengths.iter().copied()).counts(op)).collect();
        &behind[..]
    } else {
        scalars
    };
    let mut threads = 1;
    // SAFETY: writes one number.
    unsafe { (torch.api.torch_get_num_threads)(&raw mut threads) };
    let runner = if FORKED.load(Ordering::Relaxed) { None } else { Some(parallel as pool::Runner) };
    let context = Context { runner, threads: threads as usize, poll: Some(poll) };
    pool::with(context, || (op.run)(&tensors, scalars))?;
    let made = std::mem::take(&mut results.1);
    let mut rest = &made[..];
    for ((slot, out), &n) in stack.iter_mut().zip(&sig.outputs).zip(&lengths[n..]) {
        let (own, after) = rest.split_at(n);
        *slot = if out.many { torch.pack(own) } else { own[0] } as u64;
        rest = after;
    }
    Ok(())
}

/// Blocks on torch's threads: `torch.set_num_threads` is obeyed and no second pool wakes.
fn parallel(blocks: usize, body: &(dyn Fn(usize) + Sync)) {
    unsafe extern "C" fn range(begin: i64, end: i64, body: *mut c_void) {
        // SAFETY: the pointer made below, alive during the loop.
        let body = unsafe { &*body.cast::<&(dyn Fn(usize) + Sync)>() };
        for b in begin..end {
            body(b as usize);
        }
    }
    if let Some(torch) = TORCH.get() {
        // SAFETY: `body` outlives the call, and the pool's workers catch panics themselves.
        unsafe { (torch.api.torch_parallel_for)(0, blocks as i64, 1, range, (&raw const body).cast_mut().cast()) };
    }
}

unsafe extern "C-unwind" fn boxed<const ID: usize>(stack: *mut u64, inputs: u64, outputs: u64) {
    // SAFETY: torch's stack, as it came.
    unsafe { enter(ID, stack, inputs, outputs) }
}

/// # Safety
/// `stack` holds max(inputs, outputs) words.
unsafe fn enter(id: usize, stack: *mut u64, inputs: u64, outputs: u64) {
    let Some(torch) = TORCH.get() else { return };
    let op = &torch.ops[id];
    // SAFETY: torch passes a stack of max(inputs, outputs) words.
    let words = unsafe { std::slice::from_raw_parts_mut(stack, inputs.max(outputs) as usize) };
    let failure = match catch_unwind(AssertUnwindSafe(|| call(torch, op, words))) {
        Ok(Ok(())) => return,
        Ok(Err(e)) => message(op.name(), &e),
        Err(p) => format!("{MARK}internal] {}: {}", op.name(), crate::panic_text(p.as_ref())),
    };
    let mut text = [0; 1024]; // owns nothing: the exception leaves through this frame
    let n = failure.len().min(text.len() - 1);
    text[..n].copy_from_slice(&failure.as_bytes()[..n]);
    drop(failure);
    // SAFETY: C strings; the call does not return.
    unsafe { (torch.api.check)(false, c"tersor".as_ptr(), c"torch.rs".as_ptr(), 0, text.as_ptr().cast()) }
}

fn message(op: &str, e: &Error) -> String {
    let kind = match e {
        Error::Type(_) => "type",
        Error::Value(_) => "value",
        Error::Memory(_) => "memory",
        Error::Cancelled => "cancelled",
    };
    format!("{MARK}{kind}] {op}: {e}") // as it is read where nothing translates: in a compiled graph
}

/// The exception that a message raised by [`boxed`] stands for.
pub fn translate(text: &str) -> Option<PyErr> {
    let (_, rest) = text.split_once(MARK)?;
    let (kind, rest) = rest.split_once("] ")?;
    let line = rest.lines().next().unwrap_or("");
    let (op, what) = line.split_once(": ").unwrap_or(("", line));
    Some(match kind {
        "type" => error(op, Error::Type(what.into())),
        "value" => error(op, Error::Value(what.into())),
        "memory" => pyo3::exceptions::PyMemoryError::new_err(format!("{op}: {what}")),
        "cancelled" => crate::raised(),
        _ => crate::InternalError::new_err(line.to_owned()),
    })
}

/// One instance of the kernel per place in the table of operators: the ABI has no room for a closure.
static BOXED: &[Boxed] = {
    macro_rules! sixteens { ($($k:literal)*) => { &[$(
        boxed::<{ 16 * $k }>, boxed::<{ 16 * $k + 1 }>, boxed::<{ 16 * $k + 2 }>, boxed::<{ 16 * $k + 3 }>,
        boxed::<{ 16 * $k + 4 }>, boxed::<{ 16 * $k + 5 }>, boxed::<{ 16 * $k + 6 }>, boxed::<{ 16 * $k + 7 }>,
        boxed::<{ 16 * $k + 8 }>, boxed::<{ 16 * $k + 9 }>, boxed::<{ 16 * $k + 10 }>, boxed::<{ 16 * $k + 11 }>,
        boxed::<{ 16 * $k + 12 }>, boxed::<{ 16 * $k + 13 }>, boxed::<{ 16 * $k + 14 }>, boxed::<{ 16 * $k + 15 }>,
    )*] } }
    sixteens!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
};

/// Registers every operator in `namespace`, for torch's CPU library at `path`.
pub fn register(path: &str, namespace: &str) -> Result<Vec<String>, String> {
    let c = |s: &str| CString::new(s).map_err(|e| e.to_string());
    if TORCH.get().is_none() {
        // SAFETY: the caller found the path next to the imported torch.
        let _ = TORCH.set(unsafe { Torch::load(&c(path)?)? });
    }
    let torch = TORCH.get().ok_or("torch is not loaded")?;
    let mut library = std::ptr::null_mut();
    let namespace = c(namespace)?;
    // SAFETY: C strings; the library object is kept for the life of the process.
    if unsafe {
        (torch.api.aoti_torch_library_init_impl)(
            namespace.as_ptr(),
            c"CPU".as_ptr(),
            c"torch.rs".as_ptr(),
            0,
            &raw mut library,
        )
    } != 0
    {
        return Err("torch refused the library".into());
    }
    if torch.ops.len() > BOXED.len() {
        return Err(format!("{} operators, {} kernels for torch", torch.ops.len(), BOXED.len()));
    }
    let mut done = Vec::new();
    for (op, kernel) in torch.ops.iter().zip(BOXED) {
        let symbol = op.symbol();
        let name = c(&symbol)?;
        // SAFETY: the schema was defined by the Python side with as many arguments as `call` reads.
        if unsafe { (torch.api.aoti_torch_library_impl)(library, name.as_ptr(), *kernel) } != 0 {
            return Err(format!("torch refused {symbol}"));
        }
        done.push(symbol);
    }
    Ok(done)
}
