//! Operators over lists of arrays. The one rule: all lists of a call are walked at once, and entry i meets the others' entry i.

mod combine;
mod norms;

use base::{Error, Op, Result, Tensor, ops};

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    norms(xs*[*], ids[n]; groups: int, batch: int, samples: bool, ord) -> (norm[groups, batch]: float64) = norms::forward;
    norms_bwd(g[*], xs*[*], ids[n], norm[*]; batch: int, samples: bool, ord) -> (dxs*[xs]) = norms::backward;
    lincomb(first*[*], others*[*], c[n, k]) -> (ys*[first]) in place = combine::lincomb;
    lincomb_bwd(gs*[*], first*[*], others*[*], c[n, k]; needs: needs) -> (dfirst*[first]?, dothers*[others]?, dc[c]?)
        = combine::backward;
    ema(targets*[*], xs*[*]; decay) -> (ys*[targets]) in place = combine::ema;
    ema_stochastic(targets*[*], xs*[*]; decay, seed: int, step: int) -> (ys*[targets]) in place
        = combine::ema_stochastic;
};

/// Entry i of a list has the shape of that of the first, and its type, or the first is f32 where that is `wider`.
fn alike(names: [&str; 2], lists: [&[Tensor]; 2], wider: bool) -> Result<()> {
    let ([first, name], [firsts, list]) = (names, lists);
    if firsts.len() != list.len() {
        return Err(Error::Value(format!("{first} has {} entries, {name} {}", firsts.len(), list.len())));
    }
    for (i, (x, t)) in firsts.iter().zip(list).enumerate() {
        if x.shape() != t.shape() {
            let (a, b) = (x.shape(), t.shape());
            return Err(Error::Value(format!("{first}[{i}] has shape {a:?}, {name}[{i}] {b:?}")));
        }
        let (a, b) = (x.dtype(), t.dtype());
        if a != b && !(wider && a == base::Dtype::F32 && b.is_float() && b.size() == 2) {
            return Err(Error::Type(format!("{first}[{i}] is {}, {name}[{i}] is {}", a.name(), b.name())));
        }
    }
    Ok(())
}

/// The lengths of the lists of a call stand behind its scalars.
fn count(s: &[base::Scalar], i: usize) -> Result<usize> {
    let n = s.get(i).and_then(|n| usize::try_from(n.int()).ok());
    n.ok_or_else(|| Error::Value("the length of a list is missing".into()))
}
