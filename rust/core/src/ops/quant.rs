//!

use crate::Op;

pub static OPS: &[Op] = &[];
