//! Lists at the doors. The one rule: kernels find the entries of all arrays one after another, and behind the scalars the length
//! of every list; an error names the entry.

use crate::given;
use base::{Error, Result, Scalar, Tensor};
use ops::Operator;
use ops::signature::Shape;
use std::ops::Range;

/// Where among all arrays those of each input and result lie.
pub struct Spans(Vec<Range<usize>>);

impl Spans {
    pub fn of(lengths: impl IntoIterator<Item = usize>) -> Spans {
        let mut at = 0;
        let next = |n| {
            at += n;
            at - n..at
        };
        Spans(lengths.into_iter().map(next).collect())
    }
    /// One array for each input, from which letters are read: a list says nothing of them.
    pub fn heads<'a>(&self, tensors: &[Tensor<'a>]) -> Vec<Tensor<'a>> {
        self.0.iter().map(|s| tensors.get(s.start).copied().unwrap_or_else(|| Tensor::of::<f32>(&mut []))).collect()
    }
    /// The place of array `i`, as an error calls it.
    pub fn name(&self, op: &Operator, i: usize) -> String {
        let sig = &op.signature;
        let k = self.0.iter().position(|s| s.contains(&i)).unwrap_or_default();
        let (name, many) = match sig.inputs.get(k) {
            Some(p) => (p.name.to_owned(), p.many),
            None => (given(op, k - sig.inputs.len()), sig.outputs[k - sig.inputs.len()].many),
        };
        if many { format!("{name}[{}]", i - self.0[k].start) } else { name }
    }
    /// What stands behind the scalars.
    pub fn counts(&self, op: &Operator) -> impl Iterator<Item = Scalar> {
        let sig = &op.signature;
        let many = sig.inputs.iter().map(|p| p.many).chain(sig.outputs.iter().map(|o| o.many));
        self.0.iter().zip(many).filter(|(_, many)| *many).map(|(span, _)| Scalar::Int(span.len() as i64))
    }
    /// Outputs overlap nothing, or, where the operator allows it, are exactly the same entry of a list that goes in.
    pub fn overlap(&self, op: &Operator, tensors: &[Tensor]) -> Result<()> {
        let sig = &op.signature;
        let (inputs, outputs) = self.0.split_at(sig.inputs.len());
        let range = |t: &Tensor| (t.as_ptr() as usize, t.as_ptr() as usize + t.bytes());
        let first = outputs.first().map_or(tensors.len(), |s| s.start);
        let mut written: Vec<usize> = (first..tensors.len()).filter(|&i| !tensors[i].is_empty()).collect();
        written.sort_by_key(|&i| tensors[i].as_ptr() as usize);
        let met = |i: usize, j: usize| Error::Value(format!("{} overlaps {}", self.name(op, i), self.name(op, j)));
        if let Some(w) = written.windows(2).find(|w| range(&tensors[w[0]]).1 > range(&tensors[w[1]]).0) {
            return Err(met(w[0].max(w[1]), w[0].min(w[1])));
        }
        for (p, span) in sig.inputs.iter().zip(inputs) {
            for j in span.clone().filter(|&j| !tensors[j].is_empty()) {
                let (a, b) = range(&tensors[j]);
                // those written do not overlap: the first that ends behind `a` is the first that could meet it
                let from = written.partition_point(|&i| range(&tensors[i]).1 <= a);
                for &i in written[from..].iter().take_while(|&&i| range(&tensors[i]).0 < b) {
                    let out = outputs.iter().position(|s| s.contains(&i)).unwrap_or_default();
                    let (n, own) = (outputs[out].len().max(1), i - outputs[out].start);
                    let same = p.many && (j - span.start) % n == own && range(&tensors[i]) == (a, b);
                    if !(same && op.alias) {
                        return Err(met(i, j));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Of result `k`, a list: the places of the arrays that its entries are like.
pub fn like(op: &Operator, k: usize, inputs: &Spans, scalars: &[Scalar]) -> Range<usize> {
    let (sig, out) = (&op.signature, &op.signature.outputs[k]);
    match out.shape {
        Shape::Like(i) if !out.needed || sig.needs(scalars, k) => inputs.0[i].clone(),
        _ => 0..0,
    }
}
