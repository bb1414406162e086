//! The drivers: how data is walked. The one rule: dtype, blocks, threads, tails and instruction sets are said here, and what is
//! computed is said by whoever calls.

pub mod blocks;
pub mod butterfly;
pub mod csr;
pub mod feedback;
pub mod flat;
pub mod index;
pub mod knapsack;
pub mod lists;
pub mod packed;
pub mod pairs;
pub mod rows;
pub mod segments;
pub mod select;

#[doc(hidden)]
pub use base;
