//! What the rows of two nodes have in common. The one rule: a row is a set, whose columns ascend, and one that comes twice counts
//! once; products take the sum of what stands in one place.

use super::{Places, below, by_index};
use base::store::Store;
use base::{Error, Result, Scalar, Tensor, by_float};
use drivers::blocks;
use drivers::index::Index;

/// Pairs that one task takes.
const EACH: usize = 256;
/// A row so many times longer than another is searched, not walked.
const FAR: usize = 16;

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

/// Pairs of nodes and the rows that they have.
struct Pairs {
    rows: Places,
    u: Vec<usize>,
    v: Vec<usize>,
}

impl Pairs {
    fn new<I: Index>(u: &Tensor, v: &Tensor, indices: &Tensor, indptr: &Tensor) -> Result<Pairs> {
        let rows = Places::new::<I>(indices, indptr, i64::MAX as usize)?;
        let n = rows.rows();
        for i in 0..n {
            if rows.row(i).windows(2).any(|w| w[0] > w[1]) {
                return Err(Error::Value(format!("the column indices of row {i} do not ascend")));
            }
        }
        let (u, v) = (below::<I>("u", u.slice()?, n)?, below::<I>("v", v.slice()?, n)?);
        if u.len() != v.len() {
            return Err(Error::Value(format!("u has {} nodes, v {}", u.len(), v.len())));
        }
        Ok(Pairs { rows, u, v })
    }

    /// Calls `f` with the members of pair `i`.
    fn each(&self, i: usize, kind: Kind, f: impl FnMut(usize)) {
        let (a, b) = (self.rows.row(self.u[i]), self.rows.row(self.v[i]));
        match kind {
            Kind::Both if a.len() <= b.len() => common(a, b, f),
            Kind::Both => common(b, a, f),
            Kind::First => without(a, b, f),
            Kind::Second => without(b, a, f),
        }
    }

    fn work(&self) -> usize {
        self.u.len().saturating_mul(1 + self.rows.columns.len() / self.rows.rows().max(1))
    }
}

/// The members of both, of which a is the shorter.
fn common(a: &[usize], b: &[usize], mut f: impl FnMut(usize)) {
    let mut rest = b;
    for (at, &x) in a.iter().enumerate() {
        if at > 0 && a[at - 1] == x {
            continue;
        }
        rest = &rest[ahead(rest, x, b.len() / FAR > a.len())..];
        match rest.first() {
            None => return,
            Some(&y) if y == x => f(x),
            Some(_) => {}
        }
    }
}

/// The members of a that b has not.
fn without(a: &[usize], b: &[usize], mut f: impl FnMut(usize)) {
    let mut rest = b;
    for (at, &x) in a.iter().enumerate() {
        if at > 0 && a[at - 1] == x {
            continue;
        }
        rest = &rest[ahead(rest, x, b.len() / FAR > a.len())..];
        if rest.first() != Some(&x) {
            f(x);
        }
    }
}

/// How many of a list lie below x.
#[inline(always)]
fn ahead(list: &[usize], x: usize, far: bool) -> usize {
    if !far {
        return list.iter().take_while(|&&y| y < x).count();
    }
    let mut step = 1;
    while step < list.len() && list[step] < x {
        step *= 2;
    }
    let from = step / 2;
    from + list[from..list.len().min(step + 1)].partition_point(|&y| y < x)
}

pub fn count(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<I: Index>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let (p, kind) = (Pairs::new::<I>(&t[0], &t[1], &t[2], &t[3])?, Kind::new(s[0])?);
        t[4].expect("offsets", p.u.len() + 1)?;
        let counts = blocks::map(p.u.len(), EACH, p.work(), |part| {
            let count = |i| {
                let mut n = 0;
                p.each(i, kind, |_| n += 1);
                n
            };
            Ok(part.map(count).collect::<Vec<i64>>())
        })?;
        let mut sum = 0;
        let offsets = t[4].slice_mut::<i64>()?;
        offsets[0] = 0;
        for (o, n) in offsets[1..].iter_mut().zip(counts.into_iter().flatten()) {
            sum += n;
            *o = sum;
        }
        Ok(())
    }
    by_index!(t[2], I => run::<I>(t, s))
}

pub fn fill(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<I: Index>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let (p, kind) = (Pairs::new::<I>(&t[0], &t[1], &t[2], &t[3])?, Kind::new(s[0])?);
        let found = blocks::map(p.u.len(), EACH, p.work(), |part| {
            let mut ids = Vec::new();
            for i in part {
                p.each(i, kind, |id| ids.push(id as i64));
            }
            Ok(ids)
        })?;
        let (ids, total) = (t[4].slice_mut::<i64>()?, found.iter().map(Vec::len).sum::<usize>());
        if ids.len() != total {
            return Err(Error::Value(format!("total must be {total}, got {}", ids.len())));
        }
        for (to, id) in ids.iter_mut().zip(found.into_iter().flatten()) {
            *to = id;
        }
        Ok(())
    }
    by_index!(t[2], I => run::<I>(t, s))
}

pub fn dots(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    fn run<T: Store, I: Index>(t: &[Tensor]) -> Result<()> {
        let (p, data) = (Pairs::new::<I>(&t[3], &t[4], &t[1], &t[2])?, t[0].slice::<T>()?);
        t[0].expect("data", p.rows.columns.len())?;
        t[5].expect("dot", p.u.len())?;
        let work = p.rows.columns.len() / p.rows.rows().max(1);
        blocks::fill(t[5].slice_mut::<T>()?, 1, work.max(1), |first, out| {
            for (i, out) in out.iter_mut().enumerate() {
                let row = |node: usize| (p.rows.row(node), &data[p.rows.ptr[node]..p.rows.ptr[node + 1]]);
                *out = T::from_f64(dot(row(p.u[first + i]), row(p.v[first + i])));
            }
            Ok(())
        })
    }
    by_index!(t[1], I => by_float!(t[0], T => run::<T, I>(t)))
}

/// Σ of the products in columns that both have.
fn dot<T: Store>((a, x): (&[usize], &[T]), (b, y): (&[usize], &[T])) -> f64 {
    let (mut i, mut j, mut sum) = (0, 0, 0.0f64);
    while i < a.len() && j < b.len() {
        let column = a[i].max(b[j]);
        if a[i] < column {
            i += 1;
        } else if b[j] < column {
            j += 1;
        } else {
            let take = |at: &mut usize, list: &[usize], values: &[T]| {
                let mut sum = 0.0;
                while list.get(*at) == Some(&column) {
                    sum += values[*at].to_f64();
                    *at += 1;
                }
                sum
            };
            sum = take(&mut i, a, x).mul_add(take(&mut j, b, y), sum);
        }
    }
    sum
}
