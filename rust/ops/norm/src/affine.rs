//! What a norm multiplies by and adds: numbers that broadcast to the array, or one for each segment. The one rule: the gradient of
//! one is the sum over all that it served, in the order of the array.

use base::simd::*;
use base::{Result, try_vec};
use drivers::segments::places::{self, Ids, OWN, Places};
use drivers::segments::walk::Piece;

pub const K: usize = OWN + 2;

/// γ or β: the array beside of its number, or by segments.
pub struct Affine {
    data: Vec<f64>,
    beside: usize,
    segments: bool,
    absent: Vec<f64>,
}

impl Affine {
    pub fn new(places: &Places<K>, t: &base::Tensor, beside: usize, segments: bool, absent: f64) -> Result<Self> {
        let data = if t.shape() == [0] { Vec::new() } else { places::numbers(t)? };
        let room = if data.is_empty() || segments { places.walk.longest() } else { 1 };
        Ok(Affine { data, beside: OWN + beside, segments, absent: try_vec(room, absent)? })
    }

    /// Whether it is one number for the neighbours of a segment.
    #[inline(always)]
    pub fn single(&self, places: &Places<K>) -> bool {
        self.data.is_empty() || self.segments || places.walk.step[self.beside] == 0
    }

    /// Where the numbers of neighbours lie, each in a place of its own.
    #[inline(always)]
    pub fn each(&self, places: &Places<K>, p: &Piece<K>) -> Option<std::ops::Range<usize>> {
        let own = !self.segments && !self.data.is_empty() && places.walk.step[self.beside] != 0;
        own.then(|| p.of[self.beside]..p.of[self.beside] + p.len)
    }

    /// The numbers of a row, where every row is one piece and has the same.
    pub fn row(&self, places: &Places<K>) -> Option<&[f64]> {
        let all = if self.data.is_empty() { &self.absent } else { &self.data };
        let own = self.data.is_empty() || !self.single(places);
        (own && all.len() == places.walk.len).then_some(all)
    }

    /// The number of a segment, where it is [`Affine::single`].
    #[inline(always)]
    pub fn of(&self, p: &Piece<K>, id: usize) -> f64 {
        match (self.data.is_empty(), self.segments) {
            (true, _) => self.absent[0],
            (_, true) => self.data[id],
            _ => self.data[p.of[self.beside]],
        }
    }

    /// The numbers of neighbours.
    #[inline(always)]
    pub fn all<'a>(&'a self, places: &Places<K>, p: &Piece<K>, ids: &Ids, room: &'a mut [f64]) -> &'a [f64] {
        if let Some(at) = self.each(places, p) {
            return &self.data[at];
        }
        let room = &mut room[..p.len];
        match ids {
            _ if self.data.is_empty() => return &self.absent[..p.len],
            _ if !self.segments => room.fill(self.data[p.of[self.beside]]),
            Ids::None => return &self.absent[..p.len],
            Ids::One(id) => room.fill(self.data[*id]),
            Ids::Run(from) => return &self.data[*from..from + p.len],
            Ids::Each(_) => {
                for (i, v) in room.iter_mut().enumerate() {
                    *v = ids.at(i).map_or(self.absent[0], |id| self.data[id]);
                }
            }
        }
        room
    }

    /// Adds what neighbours send to the gradient `d`.
    #[inline(always)]
    pub fn send(&self, places: &Places<K>, p: &Piece<K>, ids: &Ids, d: &mut [f64], by: &[f64]) {
        if d.is_empty() {
            return;
        }
        let run = |d: &mut [f64]| d.iter_mut().zip(by).for_each(|(d, v)| *d += v);
        match (self.segments, ids) {
            (false, _) if places.walk.step[self.beside] == 0 => d[p.of[self.beside]] += by.iter().sum::<f64>(),
            (false, _) => run(&mut d[p.of[self.beside]..]),
            (true, Ids::None) => {}
            (true, Ids::One(id)) => d[*id] += by.iter().sum::<f64>(),
            (true, Ids::Run(from)) => run(&mut d[*from..]),
            (true, Ids::Each(_)) => {
                for (i, v) in by.iter().enumerate() {
                    if let Some(id) = ids.at(i) {
                        d[id] += v;
                    }
                }
            }
        }
    }

    /// The same of a sum over neighbours that have one number.
    #[inline(always)]
    pub fn send_one(&self, p: &Piece<K>, id: usize, d: &mut [f64], sum: f64) {
        if !d.is_empty() {
            d[if self.segments { id } else { p.of[self.beside] }] += sum;
        }
    }
}

/// What `f` gives of both vectors of a step; `map` of an array is a call of its own, without the instructions of the level.
#[inline(always)]
pub fn both<V>(f: impl Fn(usize) -> V) -> [V; 2] {
    [f(0), f(1)]
}

/// Sixteen numbers from `at` on, zeros past the end.
#[inline(always)]
pub fn load<S: Simd, T: base::store::Store>(s: S, x: &[T], at: usize, n: usize) -> [f64x8<S>; 2] {
    if n == base::store::STEP { T::load16(s, &x[at..]) } else { T::load_tail(s, &x[at..at + n]) }
}

#[inline(always)]
pub fn store<S: Simd, T: base::store::Store>(s: S, v: [f64x8<S>; 2], y: &mut [T], at: usize, n: usize) {
    if n == base::store::STEP { T::store16(s, v, &mut y[at..]) } else { T::store_tail(s, v, &mut y[at..at + n]) }
}
