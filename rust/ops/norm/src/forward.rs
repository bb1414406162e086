//! What a standardisation is told. The one rule: who walks its segments, piece by piece or run by run, is told the same.

use crate::affine::{Affine, K};
use crate::rule::Rule;
use drivers::segments::places::{Out, Places};

pub struct Forward<'a, T> {
    pub places: &'a Places<K>,
    pub rule: Rule,
    pub x: &'a [T],
    pub y: Out<'a, T>,
    pub gamma: Affine,
    pub beta: Affine,
}
