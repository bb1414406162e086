//! What every part of the core agrees on: a borrowed array, its dtype, an error, an operator. No Python here.
//!
//! Arrays are C-contiguous when they arrive; whoever calls has made them so.

pub mod ahead;
pub mod bits;
pub mod dd;
pub mod lane;
pub mod math;
mod memory;
pub mod mix;
pub mod near;
pub mod pool;
pub mod random;
pub mod roots;
pub mod simd;
pub mod store;
pub mod stream;
pub mod tail;
pub mod tiles;
pub mod vector;
pub mod wide;

pub use ahead::{fetch, fetch_second};
pub use memory::{huge, room, try_vec};

use std::marker::PhantomData;
use store::Store;

/// Element types that cross the border.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Dtype {
    pub const ALL: [Dtype; 13] = [
        Dtype::F64,
        Dtype::F32,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::I64,
        Dtype::I32,
        Dtype::I16,
        Dtype::I8,
        Dtype::U64,
        Dtype::U32,
        Dtype::U16,
        Dtype::U8,
        Dtype::Bool,
    ];

    pub const fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// The name NumPy and torch use.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "float64",
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
            Dtype::I64 => "int64",
            Dtype::I32 => "int32",
            Dtype::I16 => "int16",
            Dtype::I8 => "int8",
            Dtype::U64 => "uint64",
            Dtype::U32 => "uint32",
            Dtype::U16 => "uint16",
            Dtype::U8 => "uint8",
            Dtype::Bool => "bool",
        }
    }

    pub const fn is_float(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16)
    }
}

/// A Rust type with a [`Dtype`]: what [`Tensor::slice`] may be read as.
///
/// # Safety
/// The type has the size of its dtype, no padding, and is valid for the bytes the border lets through.
pub unsafe trait Element: Copy + Send + Sync + 'static {
    const DTYPE: Dtype;
}
macro_rules! elements { ($($t:ty => $d:ident),*) => { $(
    // SAFETY: a plain number (or a transparent wrapper of one) of exactly the dtype's size.
    unsafe impl Element for $t { const DTYPE: Dtype = Dtype::$d; }
)* } }
elements!(f64 => F64, f32 => F32, store::F16 => F16, store::Bf16 => Bf16, i64 => I64, i32 => I32, i16 => I16,
          i8 => I8, u64 => U64, u32 => U32, u16 => U16, u8 => U8);

/// The most dimensions an array may have (NumPy allows 64; the kernels fold all but a few).
pub const MAX_DIMS: usize = 16;

/// A borrowed C-contiguous array.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    data: *mut u8,
    dims: [usize; MAX_DIMS],
    ndim: usize,
    dtype: Dtype,
    writable: bool,
    life: PhantomData<&'a ()>,
}

// SAFETY: a Tensor is a description; the drivers that split its memory among threads argue for themselves.
unsafe impl Send for Tensor<'_> {}
// SAFETY: as above.
unsafe impl Sync for Tensor<'_> {}

impl<'a> Tensor<'a> {
    /// # Safety
    /// `data` points to `product(shape)` contiguous elements of `dtype`, alive for `'a`, aligned to the element size,
    /// written by nobody else while a kernel runs, and writable if `writable`.
    pub unsafe fn new(data: *mut u8, shape: &[usize], dtype: Dtype, writable: bool) -> Result<Self> {
        if shape.len() > MAX_DIMS {
            return Err(Error::Value(format!("at most {MAX_DIMS} dimensions, got {}", shape.len())));
        }
        let mut dims = [0; MAX_DIMS];
        dims[..shape.len()].copy_from_slice(shape);
        Ok(Tensor { data, dims, ndim: shape.len(), dtype, writable, life: PhantomData })
    }

    /// A vector of numbers as an array that may be written.
    pub fn of<T: Element>(numbers: &'a mut [T]) -> Self {
        let mut dims = [0; MAX_DIMS];
        dims[0] = numbers.len();
        Tensor { data: numbers.as_mut_ptr().cast(), dims, ndim: 1, dtype: T::DTYPE, writable: true, life: PhantomData }
    }

    pub fn shape(&self) -> &[usize] {
        &self.dims[..self.ndim]
    }
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn writable(&self) -> bool {
        self.writable
    }
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }
    pub fn as_ptr(&self) -> *mut u8 {
        self.data
    }
    /// Size of the last axis (1 for 0-d) and the number of rows before it. Not inlined: kernels would unroll the product.
    #[inline(never)]
    pub fn rows(&self) -> (usize, usize) {
        match self.shape().split_last() {
            None => (1, 1),
            Some((&d, lead)) => (lead.iter().product(), d),
        }
    }

    /// An error unless there are so many elements; `name` is what the array is called.
    pub fn expect(&self, name: &str, len: usize) -> Result<()> {
        if self.len() == len {
            return Ok(());
        }
        Err(Error::Value(format!("{name} must have {len} elements, got shape {:?}", self.shape())))
    }

    /// The same of the shape.
    pub fn expect_shape(&self, name: &str, shape: &[usize]) -> Result<()> {
        if self.shape() == shape {
            return Ok(());
        }
        Err(Error::Value(format!("{name} must have shape {shape:?}, got {:?}", self.shape())))
    }

    /// The one number of an array of a float type.
    pub fn number(&self) -> Result<f64> {
        if self.len() != 1 {
            return Err(Error::Value(format!("one number is needed, got shape {:?}", self.shape())));
        }
        crate::by_float!(self, T => Ok(self.slice::<T>()?[0].to_f64()))
    }

    /// Writes the one number of an array of a float type.
    pub fn set_number(&self, v: f64) -> Result<()> {
        if self.len() != 1 {
            return Err(Error::Value(format!("one number is needed, got shape {:?}", self.shape())));
        }
        crate::by_float!(self, T => {
            self.slice_mut::<T>()?[0] = T::from_f64(v);
            Ok(())
        })
    }

    /// The elements, if they are of type `T`.
    pub fn slice<T: Element>(&self) -> Result<&'a [T]> {
        if self.dtype != T::DTYPE {
            return Err(Error::Type(format!("expected {}, got {}", T::DTYPE.name(), self.dtype.name())));
        }
        if self.is_empty() {
            return Ok(&[]);
        }
        // SAFETY: `new` promises len() aligned elements of this dtype alive for 'a.
        Ok(unsafe { std::slice::from_raw_parts(self.data.cast(), self.len()) })
    }

    /// The elements for writing, if they are of type `T` and the array is writable.
    #[allow(clippy::mut_from_ref)]
    pub fn slice_mut<T: Element>(&self) -> Result<&'a mut [T]> {
        if !self.writable {
            return Err(Error::Value("the output is read-only".into()));
        }
        if self.dtype != T::DTYPE {
            return Err(Error::Type(format!("expected {}, got {}", T::DTYPE.name(), self.dtype.name())));
        }
        if self.is_empty() {
            return Ok(&mut []);
        }
        // SAFETY: as in `slice`; the border hands out each output once and checks that it overlaps no other array.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.data.cast(), self.len()) })
    }
}

/// What can go wrong; the border turns each into its Python exception and puts the operator's name before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    Type(String),
    Value(String),
    Memory(usize),
    Cancelled,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Type(m) | Error::Value(m) => f.write_str(m),
            Error::Memory(n) => write!(f, "cannot allocate {n} bytes"),
            Error::Cancelled => f.write_str("cancelled"),
        }
    }
}
impl std::error::Error for Error {}
pub type Result<T> = std::result::Result<T, Error>;

/// A constant of a call: never differentiated, never an array.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scalar {
    Float(f64),
    Int(i64),
    Bool(bool),
}

impl Scalar {
    pub fn float(self) -> f64 {
        match self {
            Scalar::Float(v) => v,
            Scalar::Int(v) => v as f64,
            Scalar::Bool(v) => f64::from(u8::from(v)),
        }
    }
    pub fn int(self) -> i64 {
        match self {
            Scalar::Float(v) => v as i64,
            Scalar::Int(v) => v,
            Scalar::Bool(v) => i64::from(v),
        }
    }
    pub fn bool(self) -> bool {
        self.int() != 0
    }
}

/// What a scalar parameter is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Float,
    Int,
    Bool,
    /// Of a backward: a bit for each result that is wanted; whoever differentiates fills it in.
    Needs,
}

/// An operator: one row of the table that the border, the tests and the documentation read. See [`ops!`].
pub struct Op {
    pub name: &'static str,
    /// Of the signature, what goes in and what comes out.
    pub inputs: &'static str,
    pub outputs: &'static str,
    /// Whether an output may be exactly the memory of an input (the kernel reads each row before it writes it).
    pub alias: bool,
    /// Inputs, then outputs; then the scalars.
    pub run: fn(&[Tensor], &[Scalar]) -> Result<()>,
}

/// A table of operators: `name(inputs; scalars) -> (outputs) = kernel;`, in the language that `rust/ops/src/signature.rs` tells. Said `in place` before the
/// kernel, an output may be exactly the memory of an input.
#[macro_export]
macro_rules! ops {
    ($($name:ident($($inputs:tt)*) -> ($($outputs:tt)*) $(in $place:ident)? = $run:expr;)*) => {
        &[$($crate::Op {
            name: stringify!($name),
            inputs: stringify!($($inputs)*),
            outputs: stringify!($($outputs)*),
            alias: <[&str]>::len(&[$(stringify!($place))?]) == 1,
            run: $run,
        }),*]
    };
}
