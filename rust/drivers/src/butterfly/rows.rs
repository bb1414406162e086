//! Rows that stay in the caches, and what is done to rows before and after. The one rule: rows that would overflow on the way are told
//! by their own numbers, so that a row does not see the others.

use super::aside::Aside;
use super::beside::Beside;
use super::finish::Times;
use super::levels;
use super::lines::Lines;
use super::long::{self, Given};
use super::{Plan, paley};
use base::lane::{self, Lane, Stored, same};
use base::simd::*;
use base::{Result, stream};

/// Elements of rows that go together.
const GROUP: usize = 1 << 12;

/// max |x|, infinite where one is; NaNs are passed over.
pub struct Peak<'a, L>(pub &'a [L]);
impl<L: Lane> Kernel for Peak<'_, L> {
    type Output = L;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> L {
        #[inline(always)]
        fn of<L: Lane>(most: &mut [L; 64], x: &[L]) {
            for (m, &x) in most.iter_mut().zip(x) {
                let x = if x < L::of(0.0) { -x } else { x };
                *m = if x > *m { x } else { *m };
            }
        }
        let mut most = [L::of(0.0); 64];
        let (chunks, rest) = self.0.as_chunks::<64>();
        for x in chunks {
            of(&mut most, x);
        }
        of(&mut most, rest);
        most.into_iter().fold(L::of(0.0), |a, b| if b > a { b } else { a })
    }
}

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

impl<T: Stored> Kernel for Rows<'_, T> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<()> {
        let Plan { n, m, scale, .. } = self.plan;
        let mut aside = Aside::new(long::room::<T::Lane>(m))?;
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
                beside = Beside::new(x.as_ptr().wrapping_add(len).cast(), group, gone, std::mem::take(&mut before));
                (x.as_ptr().cast(), near)
            } else if T::SAME {
                if x.as_ptr() != y.as_ptr() {
                    beside = Beside::new(y.as_ptr().wrapping_add(len).cast(), group, &[], &mut []);
                }
                (x.as_ptr().cast(), y.as_mut_ptr().cast())
            } else {
                // SAFETY: there is room for a group.
                lane::read(s, x, unsafe { std::slice::from_raw_parts_mut(near, len) });
                (near.cast_const(), near)
            };
            // SAFETY: as long as the group, and nobody else writes it.
            let to = unsafe { std::slice::from_raw_parts_mut(to, len) };
            let peak = if scale == 1.0 {
                T::Lane::of(0.0)
            } else {
                // SAFETY: where it is `to`, nothing is written while it is read.
                Peak(unsafe { std::slice::from_raw_parts(from, len) }).run(s)
            };
            if self.plan.quiet(peak).0 == T::Lane::of(1.0) {
                // SAFETY: `from` is `to` or apart from it, and whole rows.
                unsafe { self.plan.rows(s, from, to, aside.at(), &mut beside) };
            } else {
                for at in (0..len).step_by(n) {
                    // SAFETY: a row of each.
                    unsafe { self.plan.loud(s, from.add(at), &mut to[at..at + n], aside.at(), &mut beside) };
                }
            }
            beside.finish();
            if !T::SAME {
                lane::write(s, to, y);
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
    #[inline(always)]
    unsafe fn rows<S: Simd, L: Lane>(self, s: S, x: *const L, y: &mut [L], aside: *mut L, beside: &mut Beside<L>) {
        let size = 1 << self.m;
        let inner = Times(L::of(if self.k == 1 { self.scale } else { 1.0 }));
        // SAFETY: as promised; parts of rows that are ours alone.
        unsafe {
            if self.m <= long::piece::<L>() {
                levels::pieces(s, x, y.as_mut_ptr(), y.len(), size, inner, beside);
            } else {
                let to = Lines::whole(y.as_mut_ptr(), 0);
                for at in (0..y.len()).step_by(size) {
                    long::block(s, &Given { x, factor: L::of(1.0) }, at, self.m, to, aside, inner, beside);
                }
            }
            if self.k > 1 {
                for row in y.chunks_exact_mut(self.n) {
                    paley::mix(s, row.as_mut_ptr(), self.k, size, size, L::of(self.scale));
                }
            }
        }
    }

    /// A row by itself, where one of many has numbers so large that sums of them could overflow.
    ///
    /// # Safety
    /// As `rows`.
    #[inline(always)]
    unsafe fn loud<S: Simd, L: Lane>(self, s: S, x: *const L, y: &mut [L], aside: *mut L, beside: &mut Beside<L>) {
        // SAFETY: promised by the caller; `y` is not yet written.
        let (factor, scale) = self.quiet(Peak(unsafe { std::slice::from_raw_parts(x, y.len()) }).run(s));
        for (i, y) in y.iter_mut().enumerate() {
            // SAFETY: as long as `y`, and each is read before it is written.
            *y = unsafe { *x.add(i) } * factor;
        }
        // SAFETY: promised by the caller.
        unsafe { Plan { scale, ..self }.rows(s, y.as_ptr(), y, aside, beside) };
    }
}
