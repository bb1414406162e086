//! Confidences and whether they were right, as they are read. The one rule: what is refused is found in the same read, and the
//! first of it is named, a probability before a target.

use super::tiles::{Hits, Off, Read, TILE, Term, Top, term};
use base::simd::dispatch;
use base::store::Store;
use base::{Dtype, Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::blocks;
use drivers::select::{bools, bools_mut};
use std::ops::Range;

/// Of whom a confidence is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of one class, whose targets are 0 and 1.
    Binary,
    /// The largest of a row, of the first among equals.
    Top,
    /// Of each class by itself.
    Each,
}

/// Some confidences, what they add to a bin, and whose they are: of one class all, or of the classes in turn.
pub struct Tile {
    pub p: [f64; TILE],
    pub terms: [Term; TILE],
    /// Of each class by itself: which one.
    pub class: [u32; TILE],
    pub len: usize,
    /// The first of them in the probabilities, or the first row.
    pub first: usize,
}

/// What was refused, the first of each: the place among the probabilities, and the row.
#[derive(Clone, Copy, Default)]
pub struct Bad {
    prob: Option<usize>,
    target: Option<usize>,
}

impl Bad {
    /// What was refused later, where nothing was before.
    pub fn or(&mut self, later: Bad) {
        self.prob = self.prob.or(later.prob);
        self.target = self.target.or(later.target);
    }
}

/// Probabilities and targets.
pub struct Source<'a> {
    probs: &'a Tensor<'a>,
    target: &'a Tensor<'a>,
    pub n: usize,
    pub k: usize,
    pub kind: Kind,
}

impl<'a> Source<'a> {
    pub fn new(probs: &'a Tensor<'a>, target: &'a Tensor<'a>, kind: i64) -> Result<Self> {
        let (n, k) = (probs.shape()[0], probs.shape()[1]);
        let kind = match kind {
            0 if k == 1 => Kind::Binary,
            1 if k > 0 => Kind::Top,
            2 if k > 0 => Kind::Each,
            _ => return Err(Error::Value(format!("kind {kind} is none of {k} classes"))),
        };
        target.expect("target", n)?;
        Ok(Source { probs, target, n, k, kind })
    }
    /// Of how many rows tables are.
    pub fn rows(&self) -> usize {
        if self.kind == Kind::Each { self.k } else { 1 }
    }
    fn classes(&self) -> i64 {
        if self.kind == Kind::Binary { 2 } else { self.k as i64 }
    }

    /// Calls `f` with the confidences of some rows, in their order.
    pub fn each(&self, rows: Range<usize>, mut f: impl FnMut(&Tile)) -> Result<Bad> {
        by_float!(self.probs, T => self.walk::<T>(rows, &mut f))
    }

    fn walk<T: Store>(&self, rows: Range<usize>, f: &mut dyn FnMut(&Tile)) -> Result<Bad> {
        let (x, k) = (self.probs.slice::<T>()?, self.k);
        let mut tile = Tile { p: [0.0; TILE], terms: [[0.0; 2]; TILE], class: [0; TILE], len: 0, first: 0 };
        let (mut room, mut bad) = ([0i64; TILE], Bad::default());
        if self.kind == Kind::Each && k <= TILE {
            tile.class.chunks_mut(k).flat_map(|row| row.iter_mut().zip(0..)).for_each(|(class, i)| *class = i);
        }
        let step = if self.kind == Kind::Each { (TILE / k).max(1) } else { TILE };
        for first in rows.clone().step_by(step) {
            let n = step.min(rows.end - first);
            let off = |y: &i64| *y < 0 || *y >= self.classes();
            let y = self.targets(first, &mut room[..n])?;
            if bad.target.is_none() && dispatch(Off { y, classes: self.classes() }) {
                bad.target = y.iter().position(off).map(|i| first + i);
            }
            let whole = &x[first * k..(first + n) * k];
            let fine = match self.kind {
                Kind::Each => {
                    let mut fine = true;
                    // whole rows, or parts of one
                    for (c, part) in whole.chunks(TILE).enumerate() {
                        (tile.len, tile.first) = (part.len(), first * k + c * TILE);
                        let (p, terms) = (&mut tile.p[..part.len()], &mut tile.terms[..part.len()]);
                        fine &= dispatch(Read { x: part, y: None, p, terms });
                        if k > TILE {
                            tile.class[..part.len()]
                                .iter_mut()
                                .zip(c * TILE..)
                                .for_each(|(class, i)| *class = i as u32);
                        }
                        for (row, y) in y.iter().enumerate() {
                            let at = (row as i64 * k as i64 + y - (c * TILE) as i64) as usize;
                            if !off(y) && at < part.len() {
                                tile.terms[at] = term(tile.p[at], true);
                            }
                        }
                        if fine {
                            f(&tile);
                        }
                    }
                    fine
                }
                Kind::Binary | Kind::Top => {
                    (tile.len, tile.first) = (n, first);
                    let (p, terms) = (&mut tile.p[..n], &mut tile.terms[..n]);
                    let fine = if self.kind == Kind::Binary {
                        dispatch(Read { x: whole, y: Some(y), p, terms })
                    } else {
                        let class = &mut tile.class[..n];
                        let fine = dispatch(Top { x: whole, p, class });
                        dispatch(Hits { p, y, class, terms });
                        fine
                    };
                    if fine {
                        f(&tile);
                    }
                    fine
                }
            };
            if !fine {
                bad.prob = whole.iter().position(|v| !(0.0..=1.0).contains(&v.to_f64())).map(|i| first * k + i);
                return Ok(bad);
            }
        }
        Ok(bad)
    }

    /// Some targets, where they lie or in the room that is given.
    fn targets<'y>(&'y self, first: usize, room: &'y mut [i64]) -> Result<&'y [i64]> {
        fn widen<'y, I: Copy + Into<i64>>(from: &[I], first: usize, room: &'y mut [i64]) -> &'y [i64] {
            room.iter_mut().zip(&from[first..]).for_each(|(y, v)| *y = (*v).into());
            room
        }
        let t = self.target;
        Ok(match t.dtype() {
            Dtype::I64 => &t.slice()?[first..first + room.len()],
            Dtype::I32 => widen::<i32>(t.slice()?, first, room),
            Dtype::I16 => widen::<i16>(t.slice()?, first, room),
            Dtype::I8 => widen::<i8>(t.slice()?, first, room),
            Dtype::U8 => widen::<u8>(t.slice()?, first, room),
            Dtype::Bool => widen::<u8>(bools(t)?, first, room),
            other => return Err(Error::Type(format!("target must be of integers or bool, got {}", other.name()))),
        })
    }

    /// What is said of what was refused, the first of blocks in order.
    pub fn refuse(&self, found: impl Iterator<Item = Bad>) -> Result<()> {
        let mut bad = Bad::default();
        found.for_each(|later| bad.or(later));
        if let Some(i) = bad.prob {
            let v = by_float!(self.probs, T => {
                let v = self.probs.slice::<T>()?[i];
                Ok(if size_of::<T>() == 8 { format!("{:?}", v.to_f64()) } else { format!("{:?}", v.to_f32()) })
            })?;
            let v = v.replace("NaN", "nan");
            let at =
                if self.kind == Kind::Binary { format!("({i},)") } else { format!("({}, {})", i / self.k, i % self.k) };
            return Err(Error::Value(format!("probs must lie within 0 and 1, got {v} at {at}")));
        }
        if let Some(i) = bad.target {
            let mut room = [0];
            let y = self.targets(i, &mut room)?;
            let last = self.classes() - 1;
            return Err(Error::Value(format!("target[{i}] is {}; classes lie within 0 and {last}", y[0])));
        }
        Ok(())
    }
}

/// probs, target; confidences `[rows, n]` and whether each was right.
pub fn write(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let source = Source::new(&t[0], &t[1], s[0].int())?;
    let (n, rows) = (source.n, source.rows());
    t[2].expect("confidence", rows * n)?;
    t[3].expect("hit", rows * n)?;
    by_float!(t[0], T => {
        let (p, hit) = (t[2].slice_mut::<T>()?, bools_mut(&t[3])?);
        // some classes at a time, whose numbers lie together
        let each = if rows == 1 { blocks::BLOCK } else { (blocks::BLOCK / rows).max(1) };
        let parts = blocks::map(n, each, n.saturating_mul(source.k), |part| {
            let mut own = try_vec(part.len() * rows, (T::default(), 0u8))?;
            let bad = source.each(part.clone(), |tile| {
                for i in 0..tile.len {
                    let (row, class) = match source.kind {
                        Kind::Each => ((tile.first + i) / source.k, tile.class[i] as usize),
                        _ => (tile.first + i, 0),
                    };
                    own[class * part.len() + row - part.start] = (T::from_f64(tile.p[i]), u8::from(tile.terms[i][1] > 1.0));
                }
            })?;
            Ok((part, bad, own))
        })?;
        source.refuse(parts.iter().map(|p| p.1))?;
        for (part, _, own) in parts {
            for (class, own) in own.chunks(part.len()).enumerate() {
                let at = class * n + part.start..class * n + part.end;
                for ((p, hit), own) in p[at.clone()].iter_mut().zip(&mut hit[at]).zip(own) {
                    (*p, *hit) = *own;
                }
            }
        }
        Ok(())
    })
}
