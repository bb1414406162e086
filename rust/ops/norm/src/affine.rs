//! What a norm multiplies by and adds: numbers that broadcast to the array, or one for each segment. The one rule: the gradient of
//! one is the sum over all that it served, in the order of the array.

use base::Result;
use base::simd::*;
use drivers::segments::places::{self, Ids, OWN, Places};
use drivers::segments::walk::{PIECE, Piece};

pub const K: usize = OWN + 2;

/// γ or β: the array beside of its number, or by segments.
pub struct Affine {
    data: Vec<f64>,
    beside: usize,
    segments: bool,
    absent: Vec<f64>,
}

/// The numbers of neighbours.
pub enum Numbers<'a> {
    One(f64),
    Each(&'a [f64]),
}

impl Affine {
    pub fn new(t: &base::Tensor, beside: usize, segments: bool, absent: f64) -> Result<Self> {
        let data = if t.shape() == [0] { Vec::new() } else { places::numbers(t)? };
        Ok(Affine { data, beside: OWN + beside, segments, absent: vec![absent; PIECE] })
    }

    #[inline(always)]
    pub fn get<'a>(&'a self, places: &Places<K>, p: &Piece<K>, ids: &Ids, room: &'a mut [f64]) -> Numbers<'a> {
        if self.data.is_empty() {
            return Numbers::One(self.absent[0]);
        }
        if !self.segments {
            let at = p.of[self.beside];
            let one = places.walk.step[self.beside] == 0;
            return if one { Numbers::One(self.data[at]) } else { Numbers::Each(&self.data[at..at + p.len]) };
        }
        match ids {
            Ids::None => Numbers::One(self.absent[0]),
            Ids::One(id) => Numbers::One(self.data[*id]),
            Ids::Run(from) => Numbers::Each(&self.data[*from..from + p.len]),
            Ids::Each(_) => {
                for (i, v) in room[..p.len].iter_mut().enumerate() {
                    *v = ids.at(i).map_or(self.absent[0], |id| self.data[id]);
                }
                Numbers::Each(&room[..p.len])
            }
        }
    }

    /// The same as one for each element.
    #[inline(always)]
    pub fn all<'a>(&'a self, places: &Places<K>, p: &Piece<K>, ids: &Ids, room: &'a mut [f64]) -> &'a [f64] {
        if self.data.is_empty() {
            return &self.absent[..p.len];
        }
        // one number for neighbours fills the room, which is lent once
        let one = match (self.segments, ids) {
            (false, _) if places.walk.step[self.beside] == 0 => Some(self.data[p.of[self.beside]]),
            (true, Ids::One(id)) => Some(self.data[*id]),
            (true, Ids::None) => Some(self.absent[0]),
            _ => None,
        };
        if let Some(v) = one {
            room[..p.len].fill(v);
            return &room[..p.len];
        }
        match self.get(places, p, ids, room) {
            Numbers::Each(all) => all,
            Numbers::One(_) => &self.absent[..p.len],
        }
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

/// Calls `f` with lanes of sixteen neighbours and their first, and with what is left.
#[inline(always)]
pub fn lanes(n: usize, mut f: impl FnMut(usize, usize)) {
    for at in (0..n).step_by(base::store::STEP) {
        f(at, base::store::STEP.min(n - at));
    }
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
