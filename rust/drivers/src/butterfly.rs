//! The fast Walsh–Hadamard transform of many rows. The one rule: levels go from the lowest bit of the index to the
//! highest, whatever the blocking, so that the bits of a result depend on neither blocks, threads nor ISA.
//!
//! y = (H_K ⊗ H₂ ⊗ … ⊗ H₂) x with H₂ = [1 1; 1 −1] and K one of 1, 12, 20, 28 (see `paley`); divided by √n where asked.
//! All these matrices are symmetric, so the transform is its own adjoint and, divided by √n, its own inverse.
//!
//! A row goes through walks: pieces that stay in the first caches, then levels across pieces on narrow strips, then H_K.

use base::lane::{self, Lane, Stored};
use base::pool::{self, Shared};
use base::simd::*;
use base::store::{Bf16, F16};
use base::stream;
use base::{Dtype, Error, Result, Tensor, try_vec};
use beside::Beside;
use std::ops::Range;

mod beside;
mod levels;
pub mod paley;
#[cfg(test)]
mod tests;

/// The longest power of two that is transformed while it stays in the first caches.
const PIECE: usize = 1 << 13;
/// Index bits that one walk over strips takes, and elements across a strip.
const STRIP_BITS: u32 = 8;
const STRIP: usize = 64;
/// Elements that a thread takes at a time.
const UNIT: usize = 4 * PIECE;

/// K and m of n = K·2^m, if there is a transform of that size.
pub fn split(n: usize) -> Option<(usize, u32)> {
    if n == 0 {
        return None;
    }
    let m = n.trailing_zeros();
    match n >> m {
        1 => Some((1, m)),
        odd @ (3 | 5 | 7) if m >= 2 => Some((4 * odd, m - 2)),
        _ => None,
    }
}

/// y = H x over the last axis; `y` may be `x`. With `ortho` divided by √n.
pub fn fwht(x: &Tensor, y: &Tensor, ortho: bool) -> Result<()> {
    let (_, n) = x.rows();
    if x.shape().is_empty() {
        return Err(Error::Value("the transform needs a last axis, got a 0-d array".into()));
    }
    if x.shape() != y.shape() {
        return Err(Error::Value(format!("the output has shape {:?}, the input {:?}", y.shape(), x.shape())));
    }
    let Some((k, m)) = split(n) else {
        return Err(Error::Value(format!(
            "there is no Walsh-Hadamard transform of length {n}: it must be 2^m, 12*2^m, 20*2^m or 28*2^m"
        )));
    };
    let scale = if ortho { 1.0 / (n as f64).sqrt() } else { 1.0 };
    let plan = Plan { n, k, m, scale };
    match x.dtype() {
        Dtype::F32 => plan.run::<f32>(x, y),
        Dtype::F64 => plan.run::<f64>(x, y),
        Dtype::F16 => plan.run::<F16>(x, y),
        Dtype::Bf16 => plan.run::<Bf16>(x, y),
        other => Err(Error::Type(format!("expected a float array, got {}", other.name()))),
    }
}

/// x = scale·H x in place, of one row of a length that there is.
pub fn row<L: Lane>(x: &mut [L], scale: f64) -> Result<()> {
    let n = x.len();
    let Some((k, m)) = split(n) else {
        return Err(Error::Value(format!("there is no Walsh-Hadamard transform of length {n}")));
    };
    let row = Shared(x.as_mut_ptr());
    Plan { n, k, m, scale }.walk(&Shared(row.0), &row, n)
}

/// One walk over a row: some levels of the transform for all its elements, in tasks that touch disjoint parts.
#[derive(Clone, Copy)]
enum Walk {
    /// All levels inside consecutive pieces of this length.
    Pieces(usize),
    /// `bits` levels across rows that lie `stride` apart.
    Strips { bits: u32, stride: usize },
    /// H_K across K rows that lie `stride` apart.
    Mix { k: usize, stride: usize },
}

impl Walk {
    fn tasks(self, n: usize) -> usize {
        match self {
            Walk::Pieces(size) => n / size,
            Walk::Strips { bits, .. } => n / (STRIP << bits),
            Walk::Mix { stride, .. } => stride.div_ceil(STRIP),
        }
    }
}

#[derive(Clone, Copy)]
struct Plan {
    n: usize,
    k: usize,
    m: u32,
    scale: f64,
}

impl Plan {
    /// The walks over a row, in order; with the last one the factor that it applies.
    fn walks(self) -> impl Iterator<Item = (Walk, f64)> {
        let Plan { k, m, scale, .. } = self;
        let inner = m.min(PIECE.trailing_zeros());
        let strips = (inner..m).step_by(STRIP_BITS as usize);
        let last = strips.len() + usize::from(k > 1);
        std::iter::once(Walk::Pieces(1 << inner))
            .chain(strips.map(move |b| Walk::Strips { bits: STRIP_BITS.min(m - b), stride: 1 << b }))
            .chain((k > 1).then_some(Walk::Mix { k, stride: 1 << m }))
            .enumerate()
            .map(move |(i, walk)| (walk, if i == last { scale } else { 1.0 }))
    }

    /// Elements set aside for a strip.
    fn strip(self) -> usize {
        let bits = self.m.saturating_sub(PIECE.trailing_zeros());
        if bits == 0 { 0 } else { STRIP << bits.min(STRIP_BITS) }
    }

    fn run<T: Stored>(self, x: &Tensor, y: &Tensor) -> Result<()> {
        x.slice::<T>()?;
        let out = Shared(y.slice_mut::<T>()?.as_mut_ptr());
        self.walk(&Shared(x.as_ptr().cast::<T>()), &out, x.len())
    }

    /// Of `len` numbers from `src` to `out`, which is the same memory or apart from it.
    fn walk<T: Stored>(self, src: &Shared<T>, out: &Shared<T>, len: usize) -> Result<()> {
        if self.n <= UNIT || !T::SAME {
            let unit = self.n * (UNIT / self.n).max(1);
            let stream = T::SAME && src.0 != out.0 && len * size_of::<T>() >= stream::LARGE;
            return all(pool::map(len.div_ceil(unit), len, |b| {
                let (at, len) = (b * unit, unit.min(len - b * unit));
                // SAFETY: units do not overlap; `src` is `out` or lies apart, by the contract of an operator.
                let (x, y) = unsafe { (src.at(at).cast_const(), out.part(at, len)) };
                let done = dispatch(Rows { plan: self, x, y, stream });
                stream::fence();
                done
            })?);
        }
        // long rows: each walk is cut among the threads
        let rows = len / self.n;
        for (walk, scale) in self.walks() {
            let tasks = walk.tasks(self.n);
            let group = (UNIT * tasks).div_ceil(self.n);
            let groups = tasks.div_ceil(group);
            all(pool::map(rows * groups, len, |b| {
                let first = b % groups * group;
                // SAFETY: the start of a row.
                let (x, y) = unsafe {
                    let at = b / groups * self.n;
                    (src.at(at).cast::<T::Lane>().cast_const(), out.at(at).cast())
                };
                dispatch(Tasks { plan: self, walk, scale, which: first..tasks.min(first + group), x, y })
            })?)?;
        }
        Ok(())
    }
}

fn all(results: Vec<Result<()>>) -> Result<()> {
    results.into_iter().collect()
}

/// All walks over some rows.
struct Rows<'a, T> {
    plan: Plan,
    /// As long as `y`, and either the same memory or apart from it.
    x: *const T,
    y: &'a mut [T],
    /// Written past the caches; then `x` is apart.
    stream: bool,
}

impl<T: Stored> Kernel for Rows<'_, T> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<()> {
        let n = self.plan.n;
        // as many rows at a time as a piece has room for; where results go past the caches, two groups take turns, and one
        // goes out while the other is transformed
        let group = n * (if self.stream { PIECE / 2 } else { PIECE } / n).max(1);
        let aside = if self.stream { 2 * group } else { usize::from(!T::SAME) * group };
        let mut scratch = try_vec(aside, T::Lane::of(0.0))?;
        let (scratch, other) = scratch.split_at_mut(aside.min(group));
        let (mut scratch, mut other) = (scratch, other);
        let mut strip = try_vec(self.plan.strip(), T::Lane::of(0.0))?;
        let mut before: &mut [T] = &mut [];
        for (g, y) in self.y.chunks_mut(group).enumerate() {
            let len = y.len();
            // SAFETY: as many elements as `y` has in all.
            let x = unsafe { self.x.add(g * group) };
            let next = x.wrapping_add(len);
            let mut beside = Beside::nothing();
            let (x, rows) = if !T::SAME {
                // SAFETY: `len` elements are left.
                lane::read(s, unsafe { std::slice::from_raw_parts(x, len) }, &mut scratch[..len]);
                (scratch.as_ptr(), &mut scratch[..len])
            } else if self.stream {
                beside = Beside::new(next.cast(), group, &other[..before.len()], same(before));
                (x.cast(), &mut scratch[..len])
            } else {
                (x.cast(), same(&mut *y))
            };
            for (walk, scale) in self.plan.walks() {
                if let Walk::Pieces(size) = walk {
                    // SAFETY: `x` has as many elements, which are these or apart from them.
                    unsafe { levels::pieces(s, x, rows, size, T::Lane::of(scale), &mut beside) };
                    continue;
                }
                for row in rows.chunks_exact_mut(n) {
                    for t in 0..walk.tasks(n) {
                        // SAFETY: the row is ours alone.
                        unsafe { step(s, walk, scale, t, x, row.as_mut_ptr(), &mut strip) };
                    }
                }
            }
            beside.finish();
            before = &mut [];
            if !T::SAME {
                lane::write(s, &scratch[..len], y);
            } else if self.stream {
                before = y;
                std::mem::swap(&mut scratch, &mut other);
            }
        }
        stream::copy(&other[..before.len()], same(before));
        Ok(())
    }
}

/// The same memory by its other name; nothing where the types differ.
fn same<T: Stored>(x: &mut [T]) -> &mut [T::Lane] {
    if !T::SAME {
        return &mut [];
    }
    // SAFETY: `SAME` says that T and T::Lane are one type.
    unsafe { std::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), x.len()) }
}

/// Some tasks of one walk over one long row.
struct Tasks<L> {
    plan: Plan,
    walk: Walk,
    scale: f64,
    which: Range<usize>,
    /// Where the first walk reads the row.
    x: *const L,
    y: *mut L,
}

impl<L: Lane> Kernel for Tasks<L> {
    type Output = Result<()>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<()> {
        let mut strip = try_vec(self.plan.strip(), L::of(0.0))?;
        for t in self.which {
            // SAFETY: tasks touch disjoint parts of the row, and each is taken once.
            unsafe { step(s, self.walk, self.scale, t, self.x, self.y, &mut strip) };
        }
        Ok(())
    }
}

/// Task `t` of a walk.
///
/// # Safety
/// `x` and `row` point to whole rows, the same or apart, and nobody else touches the task's part of `row`.
#[inline(always)]
unsafe fn step<S: Simd, L: Lane>(s: S, walk: Walk, scale: f64, t: usize, x: *const L, row: *mut L, strip: &mut [L]) {
    let scale = L::of(scale);
    // SAFETY: the offsets stay in the row, whose length is a multiple of what a walk takes.
    unsafe {
        match walk {
            Walk::Pieces(size) => {
                let piece = std::slice::from_raw_parts_mut(row.add(t * size), size);
                levels::pieces(s, x.add(t * size), piece, size, scale, &mut Beside::nothing());
            }
            Walk::Strips { bits, stride } => {
                let across = stride / STRIP;
                let at = (t / across) * (stride << bits) + t % across * STRIP;
                levels::strip(s, row.add(at), bits, stride, strip, scale);
            }
            Walk::Mix { k, stride } => {
                let at = t * STRIP;
                levels::mix(s, row.add(at), k, stride, STRIP.min(stride - at), scale);
            }
        }
    }
}
