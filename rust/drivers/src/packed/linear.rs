//! A linear layer of packed weights in the types of its data, y = f(x Ŵᵀ + b). The one rule: a sum is scaled, given its bias,
//! bent and rounded, when it is complete.

use super::after::After;
#[cfg(target_arch = "x86_64")]
use super::amx;
use super::kernel::Weights;
use super::lanes::LANES;
use super::lines::Lines;
use super::product::{self, Path, Tiles};
use super::take::{Block, Take};
use crate::flat::{Compute, Real};
use base::pool::{self, Shared};
use base::simd::{Kernel, Simd, SimdFloat, dispatch, f32x16};
use base::store::{STEP, Store};
use base::{Result, try_vec};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Rows that are made ready in the same memory.
const TOGETHER: usize = 16;

/// What rows are multiplied as.
#[derive(Clone, Copy)]
pub enum Activations<'a, T> {
    /// As they are.
    Float,
    /// As codes of int8, which the function makes of a row; it returns their scale.
    Codes(&'a (dyn Fn(&[T], &mut [u8]) -> T + Sync)),
}

/// Codes of results, which may be nothing but finite numbers: whether all were.
pub type Code<'a, T> = dyn Fn(&[T], &mut [u8]) -> bool + Sync + 'a;

/// What results are kept as.
pub enum Results<'a, A: Compute> {
    /// As they are.
    Floats(&'a mut [A]),
    /// As codes that the function makes of some beside each other.
    Codes(&'a mut [u8], &'a Code<'a, A::Real>),
}

/// The same for many threads: each place is handed over once.
#[derive(Clone, Copy)]
enum Places<'a, A: Compute> {
    Floats(Shared<A>),
    Codes(Shared<u8>, &'a Code<'a, A::Real>, &'a AtomicBool),
}

/// `y[rows, outs] = f(x[rows, inputs] Ŵᵀ + b)`; whether all results that became codes were finite.
pub fn linear<A: Compute>(
    w: &Weights,
    activations: Activations<A::Real>,
    x: &[A],
    bias: Option<&[A]>,
    after: After,
    y: Results<A>,
) -> Result<bool> {
    let (inputs, outs) = (w.layout.inputs, w.layout.outs);
    let finite = AtomicBool::new(true);
    let (n, y) = match y {
        Results::Floats(y) => (y.len(), Places::Floats(Shared(y.as_mut_ptr()))),
        Results::Codes(y, code) => (y.len(), Places::Codes(Shared(y.as_mut_ptr()), code, &finite)),
    };
    if n == 0 {
        return Ok(true);
    }
    let rows = n / outs;
    assert!(n == rows * outs && x.len() == rows * inputs && bias.is_none_or(|b| b.len() == outs));
    if size_of::<A::Real>() == size_of::<f64>() {
        wide(w, activations, x, bias, after, rows, y)?;
        return Ok(finite.into_inner());
    }
    let given = bias.unwrap_or_default();
    let mut own = try_vec(if A::SAME { 0 } else { given.len() }, 0f32)?;
    own.iter_mut().zip(given).for_each(|(b, g)| *b = g.to_f32());
    // SAFETY: the same type by the promise of `SAME`, which is not f64 here.
    let bias =
        if A::SAME { unsafe { std::slice::from_raw_parts(given.as_ptr().cast(), given.len()) } } else { &own[..] };
    let give = |block: Block, scales: Option<&[f32]>| dispatch(Finish { block, scales, bias, after, y, outs });
    let row = |r: usize| &x[r * inputs..][..inputs];
    match activations {
        Activations::Float => {
            #[cfg(target_arch = "x86_64")]
            if Path::current(true) == Path::Avx512
                && amx::allowed()
                && amx::floats::fits(w, rows)
                && let Some((x, back)) = parted(w, rows, x)?
            {
                amx::sums_of_floats(w, x.rows(w, rows), &|block| give(block, Some(&back)))?;
                return Ok(finite.into_inner());
            }
            let tiles = Tiles::new(Path::current(false), rows);
            let laid = tiles.lay(w.layout.width(), |r, out: &mut [f32]| {
                filled(w, row(r), out, |from, to| dispatch(Read(from, to)));
                Ok(())
            })?;
            product::floats(w, &tiles, &laid, &|block| give(block, None))?;
        }
        Activations::Codes(code) => {
            let (codes, scales) = coded(w, rows, x, code)?;
            let mut factors = try_vec(rows, 0f32)?;
            factors.iter_mut().zip(&scales).for_each(|(f, s)| *f = s.to_f32());
            integers(w, rows, &codes, false, &|block| give(block, Some(&factors)))?;
        }
    }
    Ok(finite.into_inner())
}

/// `y = A Bᵀ` of int8 codes `a[rows, inputs]`, exactly.
pub fn matmul(w: &Weights, a: &[i8], y: &mut [i32]) -> Result<()> {
    let (inputs, outs) = (w.layout.inputs, w.layout.outs);
    if y.is_empty() {
        return Ok(());
    }
    let rows = y.len() / outs;
    assert!(y.len() == rows * outs && a.len() == rows * inputs);
    let mut codes = Coded::new(w, rows)?;
    for r in 0..rows {
        let out = &mut codes.codes[r * codes.stride..][..w.layout.width()];
        filled(w, &a[r * inputs..][..inputs], out, |from, to| {
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = from as u8);
        });
    }
    let y = Shared(y.as_mut_ptr());
    integers(w, rows, &codes, true, &|block| {
        for (row, sums) in block.rows() {
            // SAFETY: each place of y is handed over once.
            let y = unsafe { y.part(row * outs + block.outs.start, sums.len()) };
            y.iter_mut().zip(sums).for_each(|(y, v)| *y = v.to_bits() as i32);
        }
    })
}

/// A row with every group filled up by zeros.
fn filled<A: Copy, B: Copy + Default>(w: &Weights, row: &[A], out: &mut [B], cast: impl Fn(&[A], &mut [B])) {
    let (group, filled) = (w.layout.group, w.layout.filled());
    if group == filled {
        return cast(row, out);
    }
    for (x, out) in row.chunks(group).zip(out.chunks_mut(filled)) {
        cast(x, &mut out[..group]);
        out[group..].fill(B::default());
    }
}

/// Codes of all rows, groups filled up, and the scale of each row.
fn coded<A: Compute>(
    w: &Weights,
    rows: usize,
    x: &[A],
    code: &(dyn Fn(&[A::Real], &mut [u8]) -> A::Real + Sync),
) -> Result<(Coded, Vec<A::Real>)> {
    let (inputs, width) = (w.layout.inputs, w.layout.width());
    let (mut codes, mut scales) = (Coded::new(w, rows)?, try_vec(rows, A::Real::ZERO)?);
    let (to, at) = (Shared(codes.codes.as_mut_ptr()), Shared(scales.as_mut_ptr()));
    pool::map(rows.div_ceil(TOGETHER), x.len(), |some| {
        let mut wide = try_vec(if A::SAME { 0 } else { inputs }, A::Real::ZERO)?;
        let mut own = try_vec(if inputs == width { 0 } else { inputs }, 0u8)?;
        for r in some * TOGETHER..rows.min((some + 1) * TOGETHER) {
            let x = &x[r * inputs..][..inputs];
            let x = if A::SAME {
                // SAFETY: the same type by the promise of `SAME`.
                unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), inputs) }
            } else {
                A::widen(x, &mut wide);
                &wide
            };
            // SAFETY: each row has its own place in both.
            let (scale, to) = unsafe { (&mut *at.at(r), to.part(r * codes.stride, width)) };
            if inputs == width {
                *scale = code(x, to);
            } else {
                *scale = code(x, &mut own);
                filled(w, &own, to, |from, to| to.copy_from_slice(from));
            }
        }
        Ok(())
    })?
    .into_iter()
    .collect::<Result<()>>()?;
    Ok((codes, scales))
}

/// Rows of floats as parts of 8 bits, groups filled up.
#[cfg(target_arch = "x86_64")]
struct Parted {
    numbers: Lines<u16>,
    parts: usize,
}

#[cfg(target_arch = "x86_64")]
impl Parted {
    fn rows<'a>(&'a self, w: &'a Weights, rows: usize) -> amx::floats::Rows<'a> {
        amx::floats::Rows { rows, parts: self.parts, numbers: &self.numbers, w }
    }
}

/// Rows as parts, and what each was divided by; None where some row has to be summed in another way.
#[cfg(target_arch = "x86_64")]
fn parted<A: Compute>(w: &Weights, rows: usize, x: &[A]) -> Result<Option<(Parted, Vec<f32>)>> {
    let (inputs, width) = (w.layout.inputs, w.layout.width());
    let parts = amx::floats::parts(A::DTYPE, inputs);
    let high = amx::floats::high(width, parts);
    let (mut numbers, mut back) = (Lines::zeros(rows.div_ceil(amx::HIGH) * high)?, try_vec(rows, 0f32)?);
    let (to, at) = (Shared(numbers.as_mut_ptr()), Shared(back.as_mut_ptr()));
    let all = pool::map(rows.div_ceil(amx::HIGH), x.len(), |tile| {
        let mut wide = try_vec(width, 0f32)?;
        // SAFETY: each tile of rows has its own place.
        let numbers = unsafe { to.part(tile * high, high) };
        for r in tile * amx::HIGH..rows.min((tile + 1) * amx::HIGH) {
            filled(w, &x[r * inputs..][..inputs], &mut wide, |from, to| dispatch(Read(from, to)));
            // SAFETY: the path was asked for.
            match unsafe { amx::floats::split(&wide, parts, r % amx::HIGH, numbers) } {
                // SAFETY: and so has each row.
                Some(b) => unsafe { *at.at(r) = b },
                None => return Ok(false),
            }
        }
        Ok(true)
    })?
    .into_iter()
    .collect::<Result<Vec<bool>>>()?;
    Ok(all.into_iter().all(|done| done).then_some((Parted { numbers, parts }, back)))
}

/// Rows of codes, groups filled up: `stride` bytes from each other.
struct Coded {
    codes: Lines<u8>,
    stride: usize,
}

impl Coded {
    /// An odd number of cache lines apart: rows a power of two apart would fall into the same few sets of the cache.
    fn new(w: &Weights, rows: usize) -> Result<Coded> {
        let stride = (w.layout.width().div_ceil(64) | 1) * 64;
        Ok(Coded { codes: Lines::zeros(rows * stride)?, stride })
    }

    fn row(&self, w: &Weights, r: usize) -> &[u8] {
        &self.codes[r * self.stride..][..w.layout.width()]
    }
}

/// Products of rows of codes.
fn integers(w: &Weights, rows: usize, x: &Coded, whole: bool, take: &Take) -> Result<()> {
    let totals = |r: usize, out: &mut [i32]| {
        for (t, c) in out.iter_mut().zip(x.row(w, r).chunks_exact(w.layout.filled().max(1))) {
            *t = c.iter().map(|&c| i32::from(c as i8)).sum();
        }
        Ok(())
    };
    let path = Path::current(true);
    #[cfg(target_arch = "x86_64")]
    if path == Path::Avx512 && amx::allowed() && amx::integers::fits(w, rows) {
        let mut sums = try_vec(rows * w.layout.groups(), 0)?;
        for (r, out) in sums.chunks_exact_mut(w.layout.groups()).enumerate() {
            totals(r, out)?;
        }
        let x = amx::integers::Rows { rows, codes: &x.codes, stride: x.stride, totals: &sums };
        return amx::sums_of_integers(w, x, whole, take);
    }
    let tiles = Tiles::new(path, rows);
    let words = tiles.lay(w.layout.width() / 4, |r, out: &mut [i32]| {
        for (w, b) in out.iter_mut().zip(x.row(w, r).as_chunks().0) {
            *w = i32::from_le_bytes(*b);
        }
        Ok(())
    })?;
    product::integers(w, &tiles, &words, &tiles.lay(w.layout.groups(), totals)?, whole, take)
}

/// Numbers as f32.
struct Read<'a, A>(&'a [A], &'a mut [f32]);
impl<A: Store> Kernel for Read<'_, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, y) in self.0.chunks(STEP).zip(self.1.chunks_mut(STEP)) {
            f32::store_tail_f32(s, A::load_tail_f32(s, x), y);
        }
    }
}

/// Sums that are complete: scaled, with a bias, bent, rounded.
struct Finish<'a, A: Compute> {
    block: Block<'a>,
    /// One of every row.
    scales: Option<&'a [f32]>,
    bias: &'a [f32],
    after: After,
    y: Places<'a, A>,
    outs: usize,
}
impl<A: Compute> Kernel for Finish<'_, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let bias = if self.bias.is_empty() { self.bias } else { &self.bias[self.block.outs.clone()] };
        if let (After::Nothing, Places::Floats(y), 0) = (self.after, self.y, self.block.outs.len() % STEP) {
            return self.scaled(s, bias, y);
        }
        for (row, sums) in self.block.rows() {
            let (scale, at) = (self.scale(row), self.at(row));
            let (sixteens, rest) = sums.as_chunks::<STEP>();
            for (i, v) in sixteens.iter().enumerate() {
                let v = f32::load16_f32(s, v);
                let v = if bias.is_empty() {
                    v * scale
                } else {
                    v.mul_add(scale, f32::load16_f32(s, &bias[i * STEP..][..STEP]))
                };
                self.write::<S, true>(s, v, at + i * STEP, STEP);
            }
            if !rest.is_empty() {
                let (first, n, v) = (sums.len() - rest.len(), rest.len(), f32::load_tail_f32(s, rest));
                let v =
                    if bias.is_empty() { v * scale } else { v.mul_add(scale, f32::load_tail_f32(s, &bias[first..])) };
                self.write::<S, false>(s, v, at + first, n);
            }
        }
    }
}

impl<A: Compute> Finish<'_, A> {
    fn scale(&self, row: usize) -> f32 {
        self.scales.map_or(1.0, |scales| scales[row])
    }

    fn at(&self, row: usize) -> usize {
        row * self.outs + self.block.outs.start
    }

    /// Sums that are only scaled and given their bias: in the loop over most of what there is nothing else is asked.
    #[inline(always)]
    fn scaled<S: Simd>(&self, s: S, bias: &[f32], y: Shared<A>) {
        let bias = bias.as_chunks::<STEP>().0;
        for (row, sums) in self.block.rows() {
            let scale = self.scale(row);
            // SAFETY: each place of y is handed over once.
            let y = unsafe { y.part(self.at(row), sums.len()) };
            let (sums, y) = (sums.as_chunks::<STEP>().0, y.as_chunks_mut::<STEP>().0);
            if bias.is_empty() {
                for (v, y) in sums.iter().zip(y) {
                    A::store16_f32(s, f32::load16_f32(s, v) * scale, y);
                }
            } else {
                for ((v, b), y) in sums.iter().zip(bias).zip(y) {
                    A::store16_f32(s, f32::load16_f32(s, v).mul_add(scale, f32::load16_f32(s, b)), y);
                }
            }
        }
    }

    /// Sixteen results from one on, or `n` where there are no more.
    #[inline(always)]
    fn write<S: Simd, const WHOLE: bool>(&self, s: S, v: f32x16<S>, at: usize, n: usize) {
        let v = self.after.single(s, v);
        match self.y {
            Places::Floats(y) => {
                // SAFETY: each place of y is handed over once.
                let y = unsafe { y.part(at, n) };
                if WHOLE { A::store16_f32(s, v, y) } else { A::store_tail_f32(s, v, y) }
            }
            Places::Codes(y, code, finite) => {
                let mut own = [0f32; STEP];
                f32::store16_f32(s, v, &mut own);
                // SAFETY: as above.
                if !code(&own.map(A::Real::from_f32)[..n], unsafe { y.part(at, n) }) {
                    finite.store(false, Relaxed);
                }
            }
        }
    }
}

/// The same in f64: right, and not fast.
fn wide<A: Compute>(
    w: &Weights,
    activations: Activations<A::Real>,
    x: &[A],
    bias: Option<&[A]>,
    after: After,
    rows: usize,
    y: Places<A>,
) -> Result<()> {
    let (l, outs) = (&w.layout, w.layout.outs);
    let (mut own, mut scales) = (try_vec(x.len(), A::Real::ZERO)?, try_vec(rows, A::Real::ONE)?);
    let mut codes = try_vec(l.inputs, 0u8)?;
    for r in 0..rows {
        let at = r * l.inputs..(r + 1) * l.inputs;
        let own = &mut own[at.clone()];
        A::widen(&x[at], own);
        if let Activations::Codes(code) = activations {
            scales[r] = code(own, &mut codes);
            own.iter_mut().zip(&codes).for_each(|(o, &c)| *o = A::Real::int(i32::from(c as i8)));
        }
    }
    let work = rows.saturating_mul(outs).saturating_mul(l.inputs);
    pool::map(l.panels(), work, |panel| {
        let lanes = LANES.min(outs - panel * LANES);
        let mut numbers = try_vec(l.group * LANES, 0f32)?;
        let mut sums = try_vec(rows, [A::Real::ZERO; LANES])?;
        for group in 0..l.groups() {
            let scale = l.numbers(w.panel(panel), group, w.numbers, &mut numbers);
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = &own[row * l.inputs + group * l.group..][..l.group];
                dispatch(Add { x, w: &numbers, scale: &scale, sums });
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let mut done = [0f64; LANES];
            for lane in 0..lanes {
                let sum = sums[lane] * scales[row];
                let out = panel * LANES + lane;
                done[lane] = bias.map_or(sum, |b| sum + A::Real::of(b[out].to_f64())).to_f64();
            }
            after.panel(&mut done);
            let (done, at) = (done.map(A::Real::of), row * outs + panel * LANES);
            match y {
                // SAFETY: each place of y belongs to one panel.
                Places::Floats(y) => A::narrow(&done[..lanes], unsafe { y.part(at, lanes) }),
                Places::Codes(y, code, finite) => {
                    // SAFETY: as above.
                    if !code(&done[..lanes], unsafe { y.part(at, lanes) }) {
                        finite.store(false, Relaxed);
                    }
                }
            }
        }
        Ok(())
    })?
    .into_iter()
    .collect()
}

/// Adds to the sums of sixteen outputs what a group of one row gives.
struct Add<'a, T> {
    x: &'a [T],
    w: &'a [f32],
    scale: &'a [f32; LANES],
    sums: &'a mut [T; LANES],
}
impl<T: Real> Kernel for Add<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let mut group = [T::ZERO; LANES];
        for (&x, w) in self.x.iter().zip(self.w.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                group[lane] = group[lane] + x * T::from_f32(w[lane]);
            }
        }
        for lane in 0..LANES {
            self.sums[lane] = self.sums[lane] + group[lane] * T::from_f32(self.scale[lane]);
        }
    }
}
