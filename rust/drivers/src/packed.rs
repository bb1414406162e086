//! Products with packed weights: y = Σ x (q − z) s with the codes of the weights decoded as they are met. The one rule: the
//! weights are laid out once, in the order in which they are read (see `layout`), and what is computed is exact in the codes:
//! activations are f32, summed in f32, or integers, summed in integers.

mod after;
#[cfg(target_arch = "x86_64")]
mod amx;
mod gradient;
mod kernel;
mod lanes;
mod layout;
mod linear;
mod lines;
mod numbers;
mod octets;
mod product;
mod take;
#[cfg(test)]
mod tests;

pub use after::After;
pub use gradient::gradient;
pub use kernel::Weights;
pub use lanes::LANES;
pub use layout::Layout;
pub use linear::{Activations, Results, linear, matmul};
pub use numbers::{Numbers, Small};
pub use octets::octets;
