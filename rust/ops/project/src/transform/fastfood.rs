//! Fastfood: H G Π H B and its transpose. The one rule: a long row is drawn piece by piece where its transform begins.

use super::draw::Draw;
use super::once::Once;
use super::pieces::{Places, put, take};
use super::{CHUNK, Kind, Room, Transform};
use base::lane::{Lane, Stored, same};
use base::simd::*;
use base::store::Store;
use base::{Result, try_vec};
use drivers::{blocks, butterfly};

/// Ends of columns that are added up together.
const ENDS: usize = 16;

impl Transform {
    /// H G Π H B x / √ΣG².
    pub(super) fn expand<T: Stored>(
        &self,
        once: &Once,
        kind: Kind,
        x: &[T],
        y: &mut [T],
        room: &mut Room<T::Lane>,
    ) -> Result<()> {
        let (a, v) = (&mut room.whole, &mut room.other);
        put(x, self.matrix.col as usize, v)?;
        let (first, scale) = (self.matrix.row as usize, self.quiet(v)? * self.matrix.scale);
        self.signs(once, 0, v)?;
        butterfly::row(v, 1.0)?;
        if !once.places.is_empty() {
            let within = v.len() - 1;
            for (a, &at) in a.iter_mut().zip(&once.places) {
                *a = v[at as usize & within];
            }
            dispatch(Weigh { a, g: &once.g });
            butterfly::row(a, 1.0)?;
            return take(&a[first..], scale / once.norm, y);
        }
        let draw = Draw::new(self.matrix.column(kind), v, self.places(), self.len())?;
        if let Some(y) = same(&mut *y) {
            return butterfly::made(self.m, first, y, &draw, || scale / draw.norm());
        }
        let mut wide = try_vec(y.len(), T::Lane::of(0.0))?;
        butterfly::made(self.m, first, &mut wide, &draw, || 1.0)?;
        take(&wide, scale / draw.norm(), y)
    }

    /// B H Πᵀ G H x / √ΣG²: what Π sends to one place modulo the short length is added up from the first on.
    pub(super) fn contract<T: Stored>(
        &self,
        once: &Once,
        kind: Kind,
        x: &[T],
        y: &mut [T],
        room: &mut Room<T::Lane>,
    ) -> Result<()> {
        let (a, z) = (&mut room.whole, &mut room.other);
        put(x, self.matrix.row as usize, a)?;
        let scale = self.quiet(a)? * self.matrix.scale;
        butterfly::row(a, 1.0)?;
        let draw = Draw::<T::Lane>::new(self.matrix.column(kind), &[], self.places(), self.len())?;
        blocks::fill(a, 1, 4, |first, part| {
            let mut g = [0.0; CHUNK];
            for (n, a) in part.chunks_mut(CHUNK).enumerate() {
                let g = &mut g[..a.len()];
                draw.numbers(first + n * CHUNK, g);
                for (a, g) in a.iter_mut().zip(g) {
                    *a = T::Lane::of(a.to_f64() * f64::from(*g));
                }
            }
            Ok(())
        })?;
        let (a, places, short) = (&*a, self.places(), z.len());
        let each = ENDS.min(short);
        let sums = blocks::map(short, each, self.len(), |ends| {
            let (mut sums, mut at) = ([0.0; ENDS], [0; ENDS]);
            for from in (0..self.len()).step_by(short) {
                dispatch(Places { of: &places, back: true, first: from + ends.start, out: &mut at[..each] });
                for (sum, &at) in sums.iter_mut().zip(&at[..each]) {
                    *sum += a[at as usize].to_f64();
                }
            }
            Ok(sums)
        })?;
        for (z, sums) in z.chunks_mut(each).zip(&sums) {
            for (z, &sum) in z.iter_mut().zip(sums) {
                *z = T::Lane::of(sum);
            }
        }
        butterfly::row(z, 1.0)?;
        self.signs(once, 0, z)?;
        take(&z[self.matrix.col as usize..], scale / draw.norm(), y)
    }
}

/// Numbers times those of G.
struct Weigh<'a, L> {
    a: &'a mut [L],
    g: &'a [f32],
}
impl<L: Lane> Kernel for Weigh<'_, L> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (a, &g) in self.a.iter_mut().zip(self.g) {
            *a *= L::of(g.into());
        }
    }
}
