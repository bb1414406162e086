//! Walks over pairs of rows. The one rule: a column is looked up, never stepped to: one row of a pair is marked in a map of bits,
//! once for all pairs that name it, or searched where it is so much longer that marking it costs more.

use super::sets::{Column, Sets};
use base::{Result, try_vec};
use drivers::blocks;
use std::ops::Range;

/// Pairs that one task takes.
const EACH: usize = 4096;
/// A step of a search, in steps along a row.
const STEP: usize = 6;

/// What is done with a pair.
pub trait Visit<C>: Default + Send {
    /// Whether it asks where in the other row a column stands.
    const PLACED: bool;
    /// Takes the next pair: `find` says of the columns of the row at `row`, in their order, where the row at `other` has them.
    fn pair(&mut self, sets: &Sets<C>, row: Range<usize>, other: Range<usize>, find: impl FnMut(C) -> Option<usize>);
}

/// The columns of a row: a bit for each, and its place if that is asked for.
struct Marks {
    words: Vec<u64>,
    places: Vec<usize>,
}

impl Marks {
    fn set<C: Column>(&mut self, columns: &[C], first: usize) {
        for (i, c) in columns.iter().enumerate() {
            self.words[c.at() / 64] |= 1 << (c.at() % 64);
            if let Some(place) = self.places.get_mut(c.at()) {
                *place = first + i;
            }
        }
    }
    fn clear<C: Column>(&mut self, columns: &[C]) {
        for c in columns {
            self.words[c.at() / 64] = 0;
        }
    }
    #[inline(always)]
    fn find<V: Visit<C>, C: Column>(&self, c: C) -> Option<usize> {
        let there = self.words[c.at() / 64] >> (c.at() % 64) & 1 != 0;
        there.then(|| if V::PLACED { self.places[c.at()] } else { 0 })
    }
}

/// Pairs of rows, of which the first is walked and the second looked into.
pub struct Pairs<'a, C> {
    sets: &'a Sets<C>,
    rows: Vec<(usize, usize)>,
    /// The pairs in the order of the rows that are looked into.
    pub order: Vec<usize>,
    /// Whether the rows of a pair may change their parts.
    even: bool,
}

impl<'a, C: Column> Pairs<'a, C> {
    /// Pairs whose rows are walked as they are given.
    pub fn new(sets: &'a Sets<C>, rows: Vec<(usize, usize)>) -> Result<Self> {
        Self::sorted(sets, rows, false)
    }

    /// Pairs whose rows have equal parts: the longer one is looked into.
    pub fn even(sets: &'a Sets<C>, mut rows: Vec<(usize, usize)>) -> Result<Self> {
        for (a, b) in &mut rows {
            if sets.place(*a).len() > sets.place(*b).len() {
                (*a, *b) = (*b, *a);
            }
        }
        Self::sorted(sets, rows, true)
    }

    fn sorted(sets: &'a Sets<C>, rows: Vec<(usize, usize)>, even: bool) -> Result<Self> {
        let (mut next, mut order) = (try_vec(sets.len() + 1, 0usize)?, try_vec(rows.len(), 0usize)?);
        for &(_, b) in &rows {
            next[b + 1] += 1;
        }
        for i in 1..next.len() {
            next[i] += next[i - 1];
        }
        for (i, &(_, b)) in rows.iter().enumerate() {
            order[next[b]] = i;
            next[b] += 1;
        }
        Ok(Pairs { sets, rows, order, even })
    }

    /// The visits, each of a part of the pairs in their order.
    pub fn visit<V: Visit<C>>(&self) -> Result<Vec<V>> {
        let work = self.rows.len().saturating_mul(1 + self.sets.columns.len() / self.sets.len().max(1));
        // columns far apart are too many to have a bit each
        let (words, most) = (self.sets.extent / 64 + 1, 1024 + self.sets.columns.len());
        let marked = if V::PLACED { self.sets.extent } else { words } <= most;
        blocks::map(self.order.len(), EACH, work, |part| {
            let mut v = V::default();
            let places = if V::PLACED { self.sets.extent } else { 0 };
            let mut marks =
                if marked { Some(Marks { words: try_vec(words, 0)?, places: try_vec(places, 0)? }) } else { None };
            for group in self.order[part].chunk_by(|&i, &j| self.rows[i].1 == self.rows[j].1) {
                self.group(group, marks.as_mut(), &mut v);
            }
            Ok(v)
        })
    }

    /// Pairs that look into one row.
    fn group<V: Visit<C>>(&self, group: &[usize], marks: Option<&mut Marks>, v: &mut V) {
        let columns = &self.sets.columns;
        let other = self.sets.place(self.rows[group[0]].1);
        let place = |i: &usize| self.sets.place(self.rows[*i].0);
        let far = STEP * (other.len() + 1).ilog2() as usize;
        let Some(marks) = marks else {
            for row in group.iter().map(place) {
                if row.len() * far < row.len() + other.len() {
                    v.pair(self.sets, row, other.clone(), |c| search(columns, &other, c));
                } else {
                    v.pair(self.sets, row, other.clone(), merge(columns, other.clone()));
                }
            }
            return;
        };
        // a row that is marked is walked twice, once to clear it
        let reversed = |row: usize| if self.even { 2 * row + other.len() } else { usize::MAX };
        let alone = |row: usize| reversed(row).min(row * far);
        let (walked, apart) = group.iter().map(place).fold((2 * other.len(), 0usize), |(walked, apart), row| {
            (walked + row.len(), apart.saturating_add(alone(row.len())))
        });
        if walked <= apart {
            marks.set(&columns[other.clone()], other.start);
            for row in group.iter().map(place) {
                v.pair(self.sets, row, other.clone(), |c| marks.find::<V, C>(c));
            }
            marks.clear(&columns[other]);
            return;
        }
        for row in group.iter().map(place) {
            if row.len() * far <= reversed(row.len()) {
                v.pair(self.sets, row, other.clone(), |c| search(columns, &other, c));
            } else {
                marks.set(&columns[row.clone()], row.start);
                v.pair(self.sets, other.clone(), row.clone(), |c| marks.find::<V, C>(c));
                marks.clear(&columns[row]);
            }
        }
    }
}

#[inline(always)]
fn search<C: Column>(columns: &[C], other: &Range<usize>, c: C) -> Option<usize> {
    columns[other.clone()].binary_search(&c).ok().map(|at| other.start + at)
}

/// Steps along the other row: the columns that are asked for ascend.
#[inline(always)]
fn merge<C: Column>(columns: &[C], other: Range<usize>) -> impl FnMut(C) -> Option<usize> {
    let mut at = other.start;
    move |c| {
        while at < other.end && columns[at] < c {
            at += 1;
        }
        (at < other.end && columns[at] == c).then_some(at)
    }
}
