//! Hand-written `std::arch` kernels, each beside its generic twin; only where a benchmark shows the generic one far
//! from the limit.
mod ahead;
pub mod spmm;
pub mod stream;
pub mod tail;
pub mod vector;

pub use ahead::fetch;
