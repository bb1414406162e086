//! Rows that stay in the caches, and what is done to rows before and after. The one rule: rows that would overflow on the way are told
//! by their own numbers, so that a row does not see the others.

use super::Plan;
use super::aside::Aside;
use super::beside::Beside;
use super::finish::Finish;
use super::lines::Lines;
use super::long::{self, Given};
use super::work::{Mix, Pieces, mix, peak, pieces};
use base::lane::{self, Lane, Stored, same};
use base::simd::*;
use base::{Result, stream};

/// Elements of rows that go together.
const GROUP: usize = 1 << 12;

pub struct Read<'a, T: Stored> {
    pub x: &'a [T],
    pub a: &'a mut [T::Lane],
}
impl<T: Stored> Kernel for Read<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        lane::read(s, self.x, self.a);
    }
}

pub struct Write<'a, T: Stored> {
    pub a: &'a [T::Lane],
    pub y: &'a mut [T],
}
impl<T: Stored> Kernel for Write<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        lane::write(s, self.a, self.y);
    }
}

/// Some rows, each in the caches.
pub struct Rows<'a, T> {
    pub plan: Plan,
    /// As long as `y`, and either the same memory or apart from it.
    pub x: *const T,
    pub y: &'a mut [T],
    /// Written past the caches; then `x` is apart, and the caller owes a fence.
    pub stream: bool,
}

impl<T: Stored> Rows<'_, T> {
    pub fn run(self) -> Result<()> {
        let Plan { n, m, .. } = self.plan;
        let mut aside = Aside::new(1 << m.min(long::piece::<T::Lane>()))?;
        // rows that are shorter than vectors go many at a time; where results go past the caches, two groups take turns, and one
        // goes out while the other is transformed
        let group = n * (GROUP / n).max(1);
        let mut room = Aside::<T::Lane>::new(if self.stream { 2 * group } else { usize::from(!T::SAME) * group })?;
        let (mut near, mut other) = (room.at(), room.at().wrapping_add(group));
        let mut before: &mut [T::Lane] = &mut [];
        for (g, y) in self.y.chunks_mut(group).enumerate() {
            let len = y.len();
            // SAFETY: as many elements as `y` has in all.
            let x = unsafe { std::slice::from_raw_parts(self.x.add(g * group), len) };
            let mut beside = Beside::nothing();
            let (from, to) = if T::SAME && self.stream {
                // SAFETY: the group before is whole, and its room is not this one's.
                let gone = unsafe { std::slice::from_raw_parts(other.cast_const(), before.len()) };
                beside =
                    Beside::fetching(x.as_ptr().wrapping_add(len), group).copying(gone, std::mem::take(&mut before));
                (x.as_ptr().cast(), near)
            } else if T::SAME {
                if x.as_ptr() != y.as_ptr() {
                    beside = Beside::fetching(y.as_ptr().wrapping_add(len), group);
                }
                (x.as_ptr().cast(), y.as_mut_ptr().cast())
            } else {
                // SAFETY: there is room for a group.
                dispatch(Read { x, a: unsafe { std::slice::from_raw_parts_mut(near, len) } });
                (near.cast_const(), near)
            };
            // SAFETY: as long as the group, and nobody else writes it.
            let to = unsafe { std::slice::from_raw_parts_mut(to, len) };
            // SAFETY: where it is `to`, nothing is written while it is read.
            if self.plan.fits::<T::Lane>(|| peak(unsafe { std::slice::from_raw_parts(from, len) })) {
                // SAFETY: `from` is `to` or apart from it, and whole rows.
                unsafe { self.plan.rows(from, to, aside.at(), &mut beside) };
            } else {
                for at in (0..len).step_by(n) {
                    // SAFETY: a row of each.
                    unsafe { self.plan.loud(from.add(at), &mut to[at..at + n], aside.at(), &mut beside) };
                }
            }
            beside.finish();
            if !T::SAME {
                dispatch(Write { a: to, y });
            } else if self.stream {
                before = same(y).unwrap_or_default();
                std::mem::swap(&mut near, &mut other);
            }
        }
        // SAFETY: as above.
        stream::copy(unsafe { std::slice::from_raw_parts(other, before.len()) }, before);
        Ok(())
    }
}

impl Plan {
    /// # Safety
    /// `x` is `y` or apart from it, as long and whole rows; `aside` has the room that a block needs.
    pub(super) unsafe fn rows<L: Lane>(self, x: *const L, y: &mut [L], aside: *mut L, beside: &mut Beside) {
        let (k, size) = (self.k, 1 << self.m);
        let finish = Finish::times(if k == 1 { self.scale } else { 1.0 });
        let (to, len) = (y.as_mut_ptr(), y.len());
        if self.m <= long::piece::<L>() {
            // a line of the cache that two vectors share is written twice, so a row stays aside between its levels
            let room = (!(to as usize).is_multiple_of(64) && size > GROUP / 8).then_some(aside);
            pieces(Pieces { x, y: to, room, len, size, finish, beside });
        } else {
            let lines = Lines::whole(to, 0);
            for at in (0..len).step_by(size) {
                // SAFETY: promised by the caller.
                unsafe { long::block(&Given { x, factor: L::of(1.0), growth: 0 }, at, self.m, lines, aside, finish) };
            }
        }
        if k > 1 {
            mix(Mix { row: to, groups: len / self.n, k, stride: size, columns: 0..size, scale: self.scale });
        }
    }

    /// A row by itself, where one of many has numbers so large that sums of them could overflow.
    ///
    /// # Safety
    /// As `rows`.
    unsafe fn loud<L: Lane>(self, x: *const L, y: &mut [L], aside: *mut L, beside: &mut Beside) {
        // SAFETY: promised by the caller; `y` is not yet written.
        let (factor, scale) = self.quiet::<L>(peak(unsafe { std::slice::from_raw_parts(x, y.len()) }));
        for (i, y) in y.iter_mut().enumerate() {
            // SAFETY: as long as `y`, and each is read before it is written.
            *y = unsafe { *x.add(i) } * factor;
        }
        // SAFETY: promised by the caller.
        unsafe { Plan { scale, ..self }.rows(y.as_ptr(), y, aside, beside) };
    }
}
