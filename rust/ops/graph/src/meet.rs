//! What the rows of two nodes have in common. The one rule: a row is a set, whose columns ascend, and one that comes twice counts
//! once; products take the sum of what stands in one place.

use super::below;
use super::sets::{Column, Sets, by_column};
use super::walk::{Pairs, Visit};
use base::store::Store;
use base::{Error, Result, Scalar, Tensor, by_float};
use drivers::by_index;
use drivers::index::Index;
use std::ops::Range;

/// Which members are asked for.
#[derive(Clone, Copy)]
enum Kind {
    Both,
    /// Of the first row alone, and of the second.
    First,
    Second,
}

impl Kind {
    fn new(s: Scalar) -> Result<Kind> {
        match s.int() {
            0 => Ok(Kind::Both),
            1 => Ok(Kind::First),
            2 => Ok(Kind::Second),
            other => Err(Error::Value(format!("kind must be 0, 1 or 2, got {other}"))),
        }
    }
}

/// The nodes of pairs, each below n.
fn nodes<I: Index>(u: &Tensor, v: &Tensor, n: usize) -> Result<Vec<(usize, usize)>> {
    let (u, v) = (below::<I>("u", u.slice()?, n)?, below::<I>("v", v.slice()?, n)?);
    if u.len() != v.len() {
        return Err(Error::Value(format!("u has {} nodes, v {}", u.len(), v.len())));
    }
    Ok(u.into_iter().zip(v).collect())
}

/// How many columns both have.
#[derive(Default)]
struct Counts(Vec<usize>);

impl<C: Column> Visit<C> for Counts {
    const PLACED: bool = false;
    #[inline(always)]
    fn pair(&mut self, s: &Sets<C>, row: Range<usize>, _: Range<usize>, mut find: impl FnMut(C) -> Option<usize>) {
        self.0.push(s.columns[row].iter().map(|&c| usize::from(find(c).is_some())).sum());
    }
}

pub fn count(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<I: Index>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let kind = Kind::new(s[0])?;
        by_column!(t[2].slice::<I>()?, t[3].slice::<I>()?, None::<&[f64]>, sets => {
            let rows = nodes::<I>(&t[0], &t[1], sets.len())?;
            t[4].expect("offsets", rows.len() + 1)?;
            let pairs = Pairs::even(&sets, rows.clone())?;
            let found = pairs.visit::<Counts>()?;
            let offsets = t[4].slice_mut::<i64>()?;
            offsets[0] = 0;
            for (&i, both) in pairs.order.iter().zip(found.into_iter().flat_map(|part| part.0)) {
                let size = |node| sets.place(node).len() - both;
                offsets[i + 1] = match kind {
                    Kind::Both => both,
                    Kind::First => size(rows[i].0),
                    Kind::Second => size(rows[i].1),
                } as i64;
            }
            for i in 1..offsets.len() {
                offsets[i] += offsets[i - 1];
            }
            Ok(())
        })
    }
    by_index!(t[2], I => run::<I>(t, s))
}

/// The columns of a row that the other has (or has not), and how many they were after each pair.
#[derive(Default)]
struct Members<const THERE: bool> {
    ids: Vec<i64>,
    ends: Vec<usize>,
}

impl<C: Column, const THERE: bool> Visit<C> for Members<THERE> {
    const PLACED: bool = false;
    #[inline(always)]
    fn pair(&mut self, s: &Sets<C>, row: Range<usize>, _: Range<usize>, mut find: impl FnMut(C) -> Option<usize>) {
        // each is written, and the next over it if it is not kept: whether it is cannot be foretold
        let mut end = self.ids.len();
        self.ids.resize(end + row.len(), 0);
        for &c in &s.columns[row] {
            self.ids[end] = c.at() as i64;
            end += usize::from(find(c).is_some() == THERE);
        }
        self.ids.truncate(end);
        self.ends.push(end);
    }
}

fn members<C: Column, const THERE: bool>(pairs: &Pairs<C>, out: &mut [i64]) -> Result<()> {
    let parts = pairs.visit::<Members<THERE>>()?;
    let total = parts.iter().map(|part| part.ids.len()).sum::<usize>();
    if out.len() != total {
        return Err(Error::Value(format!("total must be {total}, got {}", out.len())));
    }
    let found = || {
        parts.iter().flat_map(|part| {
            let begins = std::iter::once(&0).chain(&part.ends);
            begins.zip(&part.ends).map(|(&begin, &end)| &part.ids[begin..end])
        })
    };
    let mut at = base::try_vec(pairs.order.len() + 1, 0usize)?;
    for (&i, ids) in pairs.order.iter().zip(found()) {
        at[i + 1] = ids.len();
    }
    for i in 1..at.len() {
        at[i] += at[i - 1];
    }
    for (&i, ids) in pairs.order.iter().zip(found()) {
        out[at[i]..at[i + 1]].copy_from_slice(ids);
    }
    Ok(())
}

pub fn fill(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<I: Index>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let (kind, ids) = (Kind::new(s[0])?, t[4].slice_mut::<i64>()?);
        by_column!(t[2].slice::<I>()?, t[3].slice::<I>()?, None::<&[f64]>, sets => {
            let mut rows = nodes::<I>(&t[0], &t[1], sets.len())?;
            match kind {
                Kind::Both => members::<_, true>(&Pairs::even(&sets, rows)?, ids),
                Kind::First => members::<_, false>(&Pairs::new(&sets, rows)?, ids),
                Kind::Second => {
                    for (u, v) in &mut rows {
                        std::mem::swap(u, v);
                    }
                    members::<_, false>(&Pairs::new(&sets, rows)?, ids)
                }
            }
        })
    }
    by_index!(t[2], I => run::<I>(t, s))
}

/// Σ of the products in columns that both have.
#[derive(Default)]
struct Dots(Vec<f64>);

impl<C: Column> Visit<C> for Dots {
    const PLACED: bool = true;
    #[inline(always)]
    fn pair(&mut self, s: &Sets<C>, row: Range<usize>, _: Range<usize>, mut find: impl FnMut(C) -> Option<usize>) {
        let mut sum = 0.0f64;
        for (&c, &x) in s.columns[row.clone()].iter().zip(&s.values[row]) {
            if let Some(at) = find(c) {
                sum = x.mul_add(s.values[at], sum);
            }
        }
        self.0.push(sum);
    }
}

pub fn dots(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    fn run<T: Store, I: Index>(t: &[Tensor]) -> Result<()> {
        let (indices, data) = (t[1].slice::<I>()?, t[0].slice::<T>()?);
        t[0].expect("data", indices.len())?;
        by_column!(indices, t[2].slice::<I>()?, Some(data), sets => {
            let rows = nodes::<I>(&t[3], &t[4], sets.len())?;
            t[5].expect("dot", rows.len())?;
            let (out, pairs) = (t[5].slice_mut::<T>()?, Pairs::even(&sets, rows)?);
            let found = pairs.visit::<Dots>()?;
            for (&i, sum) in pairs.order.iter().zip(found.into_iter().flat_map(|part| part.0)) {
                out[i] = T::from_f64(sum);
            }
            Ok(())
        })
    }
    by_index!(t[1], I => by_float!(t[0], T => run::<T, I>(t)))
}
