//! Some rows times a number each, added to a row of sums. The one rule: a sum is one chain of fused multiply-adds in the order of
//! the rows, whatever is read side by side.

use base::fetch_second;
use base::vector::Vector;

/// Rows that are read side by side: the more, the more lines are on their way from memory; eight and the sums would be too many for
/// the eight places that some caches have for lines a page apart.
pub(super) const ABREAST: usize = 6;
/// Those of what is left.
const FEWER: usize = 2;

/// Rows and their numbers, and where rows begin that are read after them: addresses, which are never read here.
pub struct Row<'a, T> {
    pub(super) these: &'a [(T, &'a [T])],
    pub(super) next: [*const T; ABREAST],
}

/// As [`body`], in the level of its name.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) unsafe fn avx512<V: Vector>(r: &Row<V::T>, sums: &mut [V::T]) {
    // SAFETY: the instruction set is this function's.
    unsafe { body::<V>(r, sums) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn avx2<V: Vector>(r: &Row<V::T>, sums: &mut [V::T]) {
    // SAFETY: as above.
    unsafe { body::<V>(r, sums) }
}

/// Adds all rows.
///
/// # Safety
/// The machine has the instruction set of V.
#[inline(always)]
pub(super) unsafe fn body<V: Vector>(r: &Row<V::T>, sums: &mut [V::T]) {
    assert!(r.these.iter().all(|(_, x)| x.len() == sums.len()));
    // SAFETY: all have as many elements; the caller's promise.
    unsafe {
        if let Ok(these) = <&[_; ABREAST]>::try_from(r.these) {
            some::<V, ABREAST>(these, r.next, sums);
        } else {
            let (pairs, last) = r.these.as_chunks::<FEWER>();
            for (pair, next) in pairs.iter().zip(r.next.as_chunks::<FEWER>().0) {
                some::<V, FEWER>(pair, *next, sums);
            }
            if let [last] = last {
                some::<V, 1>(std::array::from_ref(last), [std::ptr::null()], sums);
            }
        }
    }
}

#[inline(always)]
unsafe fn some<V: Vector, const R: usize>(these: &[(V::T, &[V::T]); R], next: [*const V::T; R], sums: &mut [V::T]) {
    let (n, y) = (sums.len(), sums.as_mut_ptr());
    // SAFETY: vectors within n elements, the last one masked; the caller's promise.
    unsafe {
        let mut w = [V::splat(V::T::default()); R];
        for (w, (v, _)) in w.iter_mut().zip(these) {
            *w = V::splat(*v);
        }
        let whole = n - n % V::LANES;
        for j in (0..whole).step_by(V::LANES) {
            let mut sum = V::load(y.add(j));
            for i in 0..R {
                sum = w[i].fused(V::load(these[i].1.as_ptr().add(j)), sum);
                if R > 1 {
                    fetch_second(next[i].wrapping_add(j)); // the first cache holds the sums
                }
            }
            sum.store(y.add(j));
        }
        if whole < n {
            let mask = V::mask(n - whole);
            let mut sum = V::load_masked(y.add(whole), mask);
            for i in 0..R {
                sum = w[i].fused(V::load_masked(these[i].1.as_ptr().add(whole), mask), sum);
            }
            sum.store_masked(y.add(whole), mask);
        }
    }
}
