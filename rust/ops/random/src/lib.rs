//! The generator as an operator. The one rule: its words are those of `base::random`, which every family draws from.

use base::{Error, Op, Result, Scalar, Tensor, ops, random};

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    philox4x32(counter[*], key[*]) -> (words[counter]) = philox;
};

fn philox(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    let [counter, key, words] = [&t[0], &t[1], &t[2]];
    if counter.shape().last() != Some(&4) {
        return Err(Error::Value(format!("the last axis of counter must be 4, got shape {:?}", counter.shape())));
    }
    if key.shape() != [2] {
        return Err(Error::Value(format!("key must have shape [2], got {:?}", key.shape())));
    }
    if words.shape() != counter.shape() {
        return Err(Error::Value(format!("the output must have shape {:?}, got {:?}", counter.shape(), words.shape())));
    }
    let (counter, key, words) = (counter.slice::<u32>()?, key.slice::<u32>()?, words.slice_mut::<u32>()?);
    random::many(counter, [key[0], key[1]], words)
}
