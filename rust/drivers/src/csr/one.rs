//! Sparse times one vector of f32, with AVX2: sixteen rows as the lanes of two vectors. The one rule: a lane is one chain, that of
//! [`super::few`].
//!
//! What an entry costs are its loads. Four columns are read in one and told apart by shifts, and the numbers at them are put
//! beside each other as they are loaded; values are read by rows and turned. So an entry takes hardly more than a load and a
//! half, of which a core makes two or three a cycle, and no instruction that gathers.

use super::few::{Chunk, ended};
use super::lanes::{ACROSS, Place, STEPS, Value};
use base::fetch;
use std::arch::x86_64::*;

/// Lanes of a vector, and entries of each row that are turned together.
const LANES: usize = 8;
/// How far ahead columns are fetched, in elements.
const AHEAD: usize = 4096;

/// As `few::chunk`, of one vector.
///
/// # Safety
/// As there; the machine has the instructions.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn chunk<V: Value<f32>, P: Place>(c: &Chunk<f32, V, P>, sums: &mut [f32; ACROSS]) -> bool {
    let (common, mut places) = (c.lengths[ACROSS - 1], c.places);
    // SAFETY: sixteen numbers; the caller's promise.
    unsafe {
        let at = sums.as_mut_ptr();
        let mut held = [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(LANES))];
        for done in (0..common).step_by(LANES) {
            let steps = LANES.min(common - done);
            let (these, rest) = places.split_at(steps * ACROSS);
            let inside = if steps == LANES {
                part(c, done, LANES, these, &mut held)
            } else {
                part(c, done, steps, these, &mut held)
            };
            if !inside {
                return false;
            }
            places = rest;
        }
        _mm256_storeu_ps(at, held[0]);
        _mm256_storeu_ps(at.add(LANES), held[1]);
    }
    ended(c, places, sums.as_chunks_mut::<1>().0)
}

/// Adds `steps` entries of each row, from number `done` on; false if a column was outside.
///
/// # Safety
/// As above; every row has as many.
#[inline(always)]
unsafe fn part<V: Value<f32>, P: Place>(
    c: &Chunk<f32, V, P>,
    done: usize,
    steps: usize,
    these: &[P],
    held: &mut [__m256; 2],
) -> bool {
    for i in (0..these.len()).step_by(64 / size_of::<P>()) {
        fetch(these.as_ptr().wrapping_add(AHEAD + i));
    }
    // read once, and in bounds from here on
    let (mut columns, mut most) = ([P::default(); LANES * ACROSS], P::default());
    for (column, &place) in columns.iter_mut().zip(these) {
        most = most.larger(place);
        *column = place;
    }
    if most.column() as usize >= c.cols {
        return false;
    }
    let mut turned = [[0_f32; ACROSS]; LANES];
    // SAFETY: the caller's promise; a masked load reads nothing else; columns were just seen to be inside.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(steps as i32), lanes);
        for first in [0, LANES] {
            let mut w = [_mm256_setzero_ps(); LANES];
            for (l, w) in (first..).zip(&mut w) {
                let mut room = [0.0; STEPS];
                let from = V::ready(c.data.as_ptr().add(c.starts[l] + done), steps, &mut room);
                *w = if steps == LANES { _mm256_loadu_ps(from) } else { _mm256_maskload_ps(from, mask) };
                if (done * size_of::<V>()).is_multiple_of(64) {
                    fetch(c.data.as_ptr().wrapping_add(c.next[l] + done));
                }
            }
            turn(&mut w);
            for (w, to) in w.into_iter().zip(&mut turned) {
                _mm256_storeu_ps(to.as_mut_ptr().add(first), w);
            }
        }
        for (w, k) in turned.iter().zip(columns.chunks_exact(ACROSS)).take(steps) {
            for (h, sum) in held.iter_mut().enumerate() {
                let (w, k) = (w.as_ptr().add(h * LANES), k.as_ptr().add(h * LANES));
                let (low, high) = (four(c.x.as_ptr(), P::four(k)), four(c.x.as_ptr(), P::four(k.add(4))));
                *sum = _mm256_fmadd_ps(_mm256_loadu_ps(w), _mm256_set_m128(high, low), *sum);
            }
        }
    }
    true
}

/// The numbers in four places.
///
/// # Safety
/// They are of x.
#[inline(always)]
unsafe fn four(x: *const f32, k: [usize; 4]) -> __m128 {
    // SAFETY: the caller's promise; SSE4.1 is below AVX2.
    unsafe {
        let v = _mm_load_ss(x.add(k[0]));
        let v = _mm_insert_ps::<0x10>(v, _mm_load_ss(x.add(k[1])));
        let v = _mm_insert_ps::<0x20>(v, _mm_load_ss(x.add(k[2])));
        _mm_insert_ps::<0x30>(v, _mm_load_ss(x.add(k[3])))
    }
}

/// Eight rows of eight become columns.
///
/// # Safety
/// The machine has AVX.
#[inline(always)]
unsafe fn turn(v: &mut [__m256; LANES]) {
    // a perfect shuffle of the whole square, once for each bit of the row index, halves last
    // SAFETY: the caller's promise.
    unsafe {
        let mut pairs = *v;
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
        }
        for i in [0, 4] {
            let (low, high) = (i, i + 2);
            v[i] = _mm256_shuffle_ps::<0x44>(pairs[low], pairs[high]);
            v[i + 1] = _mm256_shuffle_ps::<0xEE>(pairs[low], pairs[high]);
            v[i + 2] = _mm256_shuffle_ps::<0x44>(pairs[low + 1], pairs[high + 1]);
            v[i + 3] = _mm256_shuffle_ps::<0xEE>(pairs[low + 1], pairs[high + 1]);
        }
        for i in 0..4 {
            let (low, high) = (v[i], v[i + 4]);
            v[i] = _mm256_permute2f128_ps::<0x20>(low, high);
            v[i + 4] = _mm256_permute2f128_ps::<0x31>(low, high);
        }
    }
}
