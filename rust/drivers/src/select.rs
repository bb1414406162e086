//! Selection by rank over many arrays. The one rule: an element is its key, an unsigned number whose order is the order
//! of the values, and everything is decided by counting keys, so no sum, no sort and no thread can change a result.
//!
//! A threshold is found digit by digit from the top (radix selection): [`count::count`] adds the digits of one array
//! to a histogram, the caller walks the histogram to the wanted rank, which fixes the digit, and counts the next one
//! among the keys that begin so. 16 bits a round decide a 16-bit type in one read, f32 in two, f64 in four. Histograms
//! of several arrays, files or machines add up. [`mask::mask`] then writes which elements lie above, and how many of
//! those equal to the threshold are in.

pub mod count;
pub mod groups;
pub mod keys;
pub mod mask;
pub mod order;
pub mod split;
pub mod topk;

pub use count::{Round, count, tally};
pub use groups::nm_mask;
pub use keys::{Format, Nan, Order, finite};
pub use mask::{Cut, apply, bools, bools_mut, mask};
pub use split::{Found, split};
pub use topk::{gather_rows, scatter_rows, topk_rows};

/// Elements turned into keys at a time: source, keys and result stay in the first-level cache.
pub const TILE: usize = 256;

/// Elements of one block of the pool where a block has no histogram to carry.
pub const BLOCK: usize = 65536;

#[cfg(test)]
mod tests;
