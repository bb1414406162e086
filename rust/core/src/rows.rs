//! The driver of row operators: inner products per row, then scalar functions on eight rows at once, then a linear
//! combination; a backward is the same walk. The one rule: an operator says those three things, and dtype, broadcasting,
//! tiles, tails, threads, reductions and the ball's edge are said here once.
//!
//! Every lane is f64. Products of f32 (and smaller) data add up in f64; products of f64 data in compensated form (Dot2),
//! and their scalar functions run on double-doubles, so that 1 - c|x|² keeps its digits at any radius.

use crate::dd::{Dd, Num};
use crate::pool::{self, Shared};
use crate::simd::*;
use crate::store::{Bf16, F16, STEP, Store};
use crate::{Dtype, Error, Result, Tensor, try_vec};
use std::marker::PhantomData;
use std::ops::Range;

/// Rows whose numbers are solved together.
pub const TILE: usize = 32;
/// Elements per block: the unit of threads and of deterministic sums.
const BLOCK: usize = 16 * 1024;

/// A sum of products over a row, lane by lane.
pub trait Acc<S: Simd>: Copy {
    type Num: Num<S>;
    fn zero(s: S) -> Self;
    /// += a·b
    fn dot(&mut self, a: f64x8<S>, b: f64x8<S>);
    /// += a·(x + y)
    fn dot_sum(&mut self, a: f64x8<S>, x: f64x8<S>, y: f64x8<S>);
    /// += (x + y)²
    fn square_sum(&mut self, x: f64x8<S>, y: f64x8<S>);
    /// Total of all lanes of two accumulators, as hi and lo.
    fn total(self, other: Self) -> (f64, f64);
}

/// Plain f64 sums: exact enough for data of at most 24 bits.
#[derive(Clone, Copy)]
pub struct Plain<S: Simd>(f64x8<S>);
impl<S: Simd> Acc<S> for Plain<S> {
    type Num = f64x8<S>;
    #[inline(always)]
    fn zero(s: S) -> Self {
        Plain(f64x8::splat(s, 0.0))
    }
    #[inline(always)]
    fn dot(&mut self, a: f64x8<S>, b: f64x8<S>) {
        self.0 = a.mul_add(b, self.0);
    }
    #[inline(always)]
    fn dot_sum(&mut self, a: f64x8<S>, x: f64x8<S>, y: f64x8<S>) {
        self.dot(a, x + y);
    }
    #[inline(always)]
    fn square_sum(&mut self, x: f64x8<S>, y: f64x8<S>) {
        let v = x + y;
        self.dot(v, v);
    }
    #[inline(always)]
    fn total(self, other: Self) -> (f64, f64) {
        (hsum(self.0 + other.0), 0.0)
    }
}

/// Dot2 of Ogita, Rump and Oishi (2005): as if summed in twice the precision.
#[derive(Clone, Copy)]
pub struct Dot2<S: Simd> {
    hi: f64x8<S>,
    lo: f64x8<S>,
}
impl<S: Simd> Acc<S> for Dot2<S> {
    type Num = Dd<S>;
    #[inline(always)]
    fn zero(s: S) -> Self {
        let zero = f64x8::splat(s, 0.0);
        Dot2 { hi: zero, lo: zero }
    }
    #[inline(always)]
    fn dot(&mut self, a: f64x8<S>, b: f64x8<S>) {
        let (p, e) = two_prod(a.witness(), a, b);
        let (hi, r) = two_sum(self.hi, p);
        self.hi = hi;
        self.lo = self.lo + (e + r);
    }
    #[inline(always)]
    fn dot_sum(&mut self, a: f64x8<S>, x: f64x8<S>, y: f64x8<S>) {
        let (v, e) = two_sum(x, y);
        self.dot(a, v);
        self.lo = a.mul_add(e, self.lo);
    }
    #[inline(always)]
    fn square_sum(&mut self, x: f64x8<S>, y: f64x8<S>) {
        let (v, e) = two_sum(x, y);
        self.dot(v, v);
        self.lo = (v + v).mul_add(e, self.lo);
    }
    #[inline(always)]
    fn total(self, other: Self) -> (f64, f64) {
        let (hi, r) = two_sum(self.hi, other.hi);
        let mut lo = hsum(r + (self.lo + other.lo));
        let mut lanes = [0.0; 8];
        hi.store_slice(&mut lanes);
        for half in [4, 2, 1] {
            for i in 0..half {
                let (a, b) = (lanes[i], lanes[i + half]);
                let t = a + b;
                let v = t - a;
                lo += (a - (t - v)) + (b - v);
                lanes[i] = t;
            }
        }
        (lanes[0], lo)
    }
}

/// What the scalar functions of a row give: weights of the combination, numbers to write, and, for a point of the ball,
/// the size of 1 - c|y|², by which the driver knows which rows may have been rounded onto the edge.
pub struct Solved<S: Simd, const W: usize, const R: usize> {
    pub weights: [f64x8<S>; W],
    pub numbers: [f64x8<S>; R],
    pub gap: f64x8<S>,
}

/// An operator on rows: V vectors and C row numbers in; P inner products; W weights; O vectors and R row numbers out.
pub trait RowOp<const V: usize, const C: usize, const P: usize, const W: usize, const O: usize, const R: usize>:
    Sync
{
    /// The last row number is a curvature (finite, not negative).
    const CURVED: bool = false;
    /// Output 0 is a point of the ball and is kept strictly inside it, by this margin.
    fn margin(&self) -> Option<Margin> {
        None
    }
    fn dots<S: Simd, A: Acc<S>>(&self, x: &[f64x8<S>; V], sums: &mut [A; P]);
    fn solve<S: Simd, N: Num<S>>(&self, s: S, p: [N; P], c: [f64x8<S>; C]) -> Solved<S, W, R>;
    fn combine<S: Simd>(&self, x: &[f64x8<S>; V], w: &[f64x8<S>; W]) -> [f64x8<S>; O];
}

/// How far inside the ball results stay: |y| <= (1 - margin)/√c.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Margin {
    /// As far out as the type has numbers: at most 2 eps inside.
    Tight,
    /// The margin of geoopt and HypLL: 4e-3 in float32, 1e-5 in float64 (and their f32 value for 16-bit types).
    Compat,
    Given(f64),
}

impl Margin {
    /// From the scalar parameter `eps`: 0 is tight, negative is compat.
    pub fn of(eps: f64) -> Result<Margin> {
        match eps {
            0.0 => Ok(Margin::Tight),
            e if e < 0.0 => Ok(Margin::Compat),
            e if e < 1.0 => Ok(Margin::Given(e)),
            e => Err(Error::Value(format!("eps must be below 1, got {e}"))),
        }
    }
    fn value(self, dtype: Dtype) -> f64 {
        match self {
            Margin::Tight => 0.0,
            Margin::Compat if dtype == Dtype::F64 => 1e-5,
            Margin::Compat => 4e-3,
            Margin::Given(e) => e,
        }
    }
}

fn eps(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F64 => 2f64.powi(-52),
        Dtype::F32 => 2f64.powi(-23),
        Dtype::F16 => 2f64.powi(-10),
        _ => 2f64.powi(-7),
    }
}

/// One call, checked: shapes folded to rows, all arrays of one float type.
struct Call<'a, const V: usize, const C: usize, const O: usize, const R: usize> {
    rows: usize,
    d: usize,
    x: [Tensor<'a>; V],
    c: [Tensor<'a>; C],
    y: [Tensor<'a>; O],
    n: [Tensor<'a>; R],
}

fn part<'a, const N: usize>(t: &[Tensor<'a>], at: usize) -> Result<[Tensor<'a>; N]> {
    t.get(at..at + N).and_then(|s| s.try_into().ok()).ok_or_else(|| Error::Type("wrong number of arrays".into()))
}

impl<'a, const V: usize, const C: usize, const O: usize, const R: usize> Call<'a, V, C, O, R> {
    fn new(t: &[Tensor<'a>], curved: bool) -> Result<Self> {
        let call = Call { rows: 0, d: 0, x: part(t, 0)?, c: part(t, V)?, y: part(t, V + C)?, n: part(t, V + C + O)? };
        let dtype = call.x[0].dtype();
        if !dtype.is_float() {
            return Err(Error::Type(format!("a float type is needed, got {}", dtype.name())));
        }
        let d = call.x[0].rows().1;
        let mut rows = call.x[0].rows().0;
        for (i, x) in call.x.iter().enumerate() {
            let (n, own) = x.rows();
            if x.shape().is_empty() {
                return Err(Error::Value("a last axis is needed, got a 0-d array".into()));
            }
            if x.dtype() != dtype {
                return Err(Error::Type(format!("arrays of {} and {} in one call", dtype.name(), x.dtype().name())));
            }
            if own != d {
                return Err(Error::Value(format!("last axes differ: {d} and {own}")));
            }
            if i == 0 || rows == 1 {
                rows = n;
            } else if n != 1 && n != rows {
                return Err(Error::Value(format!("{rows} rows and {n} rows do not go together")));
            }
        }
        for c in &call.c {
            if !c.dtype().is_float() {
                return Err(Error::Type(format!("a float type is needed, got {}", c.dtype().name())));
            }
            if c.len() != 1 && c.len() != rows {
                return Err(Error::Value(format!("one number or one per row ({rows}), got {}", c.len())));
            }
        }
        for y in &call.y {
            let (n, own) = y.rows();
            if y.dtype() != dtype {
                return Err(Error::Type(format!("output of {}, expected {}", y.dtype().name(), dtype.name())));
            }
            if own != d || (n != rows && n != 1) {
                return Err(Error::Value(format!("output of shape {:?} for {rows} rows of {d}", y.shape())));
            }
        }
        for n in &call.n {
            if !n.dtype().is_float() {
                return Err(Error::Type(format!("output of {}, expected a float type", n.dtype().name())));
            }
            if n.len() != rows && n.len() != 1 {
                return Err(Error::Value(format!("output of {} numbers for {rows} rows", n.len())));
            }
        }
        if let Some(o) = call.y.iter().chain(&call.n).find(|o| !o.writable()) {
            return Err(Error::Value(format!("output of shape {:?} is read-only", o.shape())));
        }
        if curved {
            let c = &call.c[C - 1];
            for i in 0..c.len() {
                let v = number(c, i);
                if !(v >= 0.0 && v.is_finite()) {
                    return Err(Error::Value(format!("curvature must be finite and not negative, got {v}")));
                }
            }
        }
        Ok(Call { rows, d, ..call })
    }
}

/// Number `i` of a float array.
fn number(t: &Tensor, i: usize) -> f64 {
    // SAFETY: a float dtype and `i < len`, checked by the callers; `Tensor::new` promises the memory.
    unsafe {
        let p = t.as_ptr();
        match t.dtype() {
            Dtype::F64 => *p.cast::<f64>().add(i),
            Dtype::F32 => f64::from(*p.cast::<f32>().add(i)),
            Dtype::F16 => (*p.cast::<F16>().add(i)).to_f64(),
            _ => (*p.cast::<Bf16>().add(i)).to_f64(),
        }
    }
}

/// Writes number `i` of a float array; the caller owns that element.
unsafe fn put(t: &Tensor, i: usize, v: f64) {
    // SAFETY: as in `number`; the output is writable and element `i` belongs to the caller.
    unsafe {
        let p = t.as_ptr();
        match t.dtype() {
            Dtype::F64 => *p.cast::<f64>().add(i) = v,
            Dtype::F32 => *p.cast::<f32>().add(i) = v as f32,
            Dtype::F16 => *p.cast::<F16>().add(i) = F16::from_f64(v),
            _ => *p.cast::<Bf16>().add(i) = Bf16::from_f64(v),
        }
    }
}

/// Runs `op` on inputs, then outputs, as the table lists them.
///
/// A vector input of one row serves all rows, and an output of one row, where there are more, is the sum over them
/// (the gradient of such an input); the same for row numbers.
pub fn run<OP, const V: usize, const C: usize, const P: usize, const W: usize, const O: usize, const R: usize>(
    op: &OP,
    t: &[Tensor],
) -> Result<()>
where
    OP: RowOp<V, C, P, W, O, R>,
{
    let call = Call::<V, C, O, R>::new(t, OP::CURVED)?;
    match call.x[0].dtype() {
        Dtype::F64 => walk::<OP, f64, f64, V, C, P, W, O, R>(op, &call),
        Dtype::F32 => walk::<OP, f32, f32, V, C, P, W, O, R>(op, &call),
        Dtype::F16 => walk::<OP, F16, f32, V, C, P, W, O, R>(op, &call),
        _ => walk::<OP, Bf16, f32, V, C, P, W, O, R>(op, &call),
    }
}

/// T is the type in memory, K the type the tile kernel is compiled for: 16-bit rows are widened to f32 tile by tile.
fn walk<
    OP,
    T: Store,
    K: Wide,
    const V: usize,
    const C: usize,
    const P: usize,
    const W: usize,
    const O: usize,
    const R: usize,
>(
    op: &OP,
    call: &Call<V, C, O, R>,
) -> Result<()>
where
    OP: RowOp<V, C, P, W, O, R>,
{
    let (rows, d) = (call.rows, call.d);
    let block = (BLOCK / d.max(1)).clamp(1, BLOCK).next_multiple_of(TILE);
    let blocks = rows.div_ceil(block);
    let plan = Plan {
        d,
        pad: d.next_multiple_of(STEP),
        summed_rows: std::array::from_fn(|k| call.y[k].rows().0 != rows),
        summed: std::array::from_fn(|k| call.n[k].len() != rows),
        widen: T::DTYPE != K::DTYPE,
        // below this 1 - c|y|², rounding (or the margin) can matter
        edge: op.margin().map(|m| {
            let keep = 1.0 - m.value(T::DTYPE);
            (m, 1.0 - keep * keep + 8.0 * eps(T::DTYPE))
        }),
    };
    // partial sums of each block, added up in the order of blocks at the end
    let sums = plan.summed_rows.iter().filter(|&&b| b).count() * plan.pad;
    let mut partial_rows = try_vec(blocks.saturating_mul(sums), 0.0f64)?;
    let mut partial = try_vec(blocks * R, 0.0f64)?;
    let (share_rows, share) = (Shared(partial_rows.as_mut_ptr()), Shared(partial.as_mut_ptr()));
    let scratch = if plan.widen { TILE.saturating_mul(d).saturating_mul(V + O) } else { 0 };
    drop(try_vec(scratch, K::default())?); // each thread asks for as much again
    pool::run(blocks, rows.saturating_mul(d), |b| {
        // SAFETY: each block has its own part of the partial sums.
        let (sum_rows, sum) = unsafe { (share_rows.part(b * sums, sums), share.part(b * R, R)) };
        let mut space = vec![K::default(); scratch];
        dispatch(Tiles::<OP, T, K, V, C, P, W, O, R>(Block {
            op,
            call,
            plan: &plan,
            range: b * block..rows.min((b + 1) * block),
            space: &mut space,
            sum_rows,
            sum,
            stored: PhantomData,
        }));
    })?;
    for (at, y) in call.y.iter().zip(plan.summed_rows).filter(|y| y.1).map(|y| y.0).enumerate() {
        for (i, out) in y.slice_mut::<T>()?.iter_mut().enumerate() {
            *out = T::from_f64((0..blocks).map(|b| partial_rows[b * sums + at * plan.pad + i]).sum());
        }
    }
    for (k, n) in call.n.iter().enumerate().filter(|(k, _)| plan.summed[*k]) {
        // SAFETY: a float output of one number.
        unsafe { put(n, 0, (0..blocks).map(|b| partial[b * R + k]).sum()) };
    }
    Ok(())
}

/// The two types tile kernels are compiled for, each with the sums its data needs.
trait Wide: Store {
    type Acc<S: Simd>: Acc<S>;
}
impl Wide for f64 {
    type Acc<S: Simd> = Dot2<S>;
}
impl Wide for f32 {
    type Acc<S: Simd> = Plain<S>;
}

/// What all blocks of a call share.
struct Plan<const O: usize, const R: usize> {
    d: usize,
    /// d rounded up to whole steps: the stride of partial sums
    pad: usize,
    summed_rows: [bool; O],
    summed: [bool; R],
    widen: bool,
    edge: Option<(Margin, f64)>,
}

struct Block<'a, OP, T, K, const V: usize, const C: usize, const O: usize, const R: usize> {
    op: &'a OP,
    call: &'a Call<'a, V, C, O, R>,
    plan: &'a Plan<O, R>,
    range: Range<usize>,
    space: &'a mut [K],
    sum_rows: &'a mut [f64],
    sum: &'a mut [f64],
    stored: PhantomData<T>,
}

/// A block with the numbers of products and weights said, which its fields do not mention.
struct Tiles<
    'a,
    OP,
    T,
    K,
    const V: usize,
    const C: usize,
    const P: usize,
    const W: usize,
    const O: usize,
    const R: usize,
>(Block<'a, OP, T, K, V, C, O, R>);

impl<OP, T: Store, K: Wide, const V: usize, const C: usize, const O: usize, const R: usize>
    Block<'_, OP, T, K, V, C, O, R>
{
    /// Rows `start..start + n` of input `v` as K, with their stride; widened into the scratch space if need be.
    #[inline(always)]
    fn input(&mut self, v: usize, start: usize, n: usize) -> (*const K, usize) {
        let (t, d) = (&self.call.x[v], self.plan.d);
        let one = t.rows().0 == 1;
        let (first, count) = if one { (0, 1) } else { (start, n) };
        // SAFETY: rows `first..first + count` exist (checked by Call::new) and hold elements of type T.
        let stored = unsafe { t.as_ptr().cast::<T>().cast_const().add(first * d) };
        let stride = if one { 0 } else { d };
        if !self.plan.widen {
            return (stored.cast(), stride);
        }
        let space = &mut self.space[v * TILE * d..][..count * d];
        // SAFETY: as above.
        let rows = unsafe { std::slice::from_raw_parts(stored, count * d) };
        for (wide, narrow) in space.iter_mut().zip(rows) {
            *wide = K::from_f32(narrow.to_f32());
        }
        (space.as_ptr(), stride)
    }

    /// Where the rows of output `o` go: its memory, or the scratch space if they are narrowed later.
    #[inline(always)]
    fn output(&mut self, o: usize, start: usize) -> *mut K {
        if self.plan.widen {
            return self.space[(V + o) * TILE * self.plan.d..].as_mut_ptr();
        }
        // SAFETY: row `start` exists unless this output is summed, and then the pointer is not used.
        self.call.y[o].as_ptr().cast::<K>().wrapping_add(start * self.plan.d)
    }

    #[inline(always)]
    fn tile<S: Simd, const P: usize, const W: usize>(&mut self, s: S, start: usize, n: usize)
    where
        OP: RowOp<V, C, P, W, O, R>,
    {
        let d = self.plan.d;
        let mut x = [(std::ptr::null(), 0); V];
        for (v, place) in x.iter_mut().enumerate() {
            *place = self.input(v, start, n);
        }
        let rows = |r: usize| -> [*const K; V] {
            std::array::from_fn(
                #[inline(always)]
                |v| x[v].0.wrapping_add(r * x[v].1),
            )
        };

        let mut hi = [[0.0; TILE]; P];
        let mut lo = [[0.0; TILE]; P];
        for r in 0..n {
            let x = rows(r);
            let mut sums = [[K::Acc::<S>::zero(s); P]; 2];
            let mut i = 0;
            while i + STEP <= d {
                // SAFETY: `input` gave V places with n rows of d elements (or one row with stride 0).
                let [a, b] = unsafe { load::<S, K, V>(s, &x, i, STEP) };
                self.op.dots(&a, &mut sums[0]);
                self.op.dots(&b, &mut sums[1]);
                i += STEP;
            }
            if i < d {
                // SAFETY: as above.
                let [a, b] = unsafe { load::<S, K, V>(s, &x, i, d - i) };
                self.op.dots(&a, &mut sums[0]);
                if d - i > STEP / 2 {
                    self.op.dots(&b, &mut sums[1]);
                }
            }
            for p in 0..P {
                (hi[p][r], lo[p][r]) = sums[0][p].total(sums[1][p]);
            }
        }

        let mut c = [[0.0; TILE]; C];
        for (c, t) in c.iter_mut().zip(&self.call.c) {
            if t.len() == 1 {
                *c = [number(t, 0); TILE];
            } else {
                for (r, c) in c.iter_mut().enumerate().take(n) {
                    *c = number(t, start + r);
                }
            }
        }
        let mut weights = [[0.0; TILE]; W];
        let mut numbers = [[0.0; TILE]; R];
        let mut gap = [0.0; TILE];
        for g in (0..n).step_by(8) {
            let at = |v: &[f64; TILE]| f64x8::from_slice(s, &v[g..g + 8]);
            let p: [<K::Acc<S> as Acc<S>>::Num; P] = std::array::from_fn(
                #[inline(always)]
                |p| Num::pair(at(&hi[p]), at(&lo[p])),
            );
            let c: [f64x8<S>; C] = std::array::from_fn(
                #[inline(always)]
                |k| at(&c[k]),
            );
            let solved = self.op.solve(s, p, c);
            for k in 0..W {
                solved.weights[k].store_slice(&mut weights[k][g..g + 8]);
            }
            for k in 0..R {
                solved.numbers[k].store_slice(&mut numbers[k][g..g + 8]);
            }
            solved.gap.store_slice(&mut gap[g..g + 8]);
        }
        for k in 0..R {
            for (r, &v) in numbers[k][..n].iter().enumerate() {
                if self.plan.summed[k] {
                    self.sum[k] += v;
                } else {
                    // SAFETY: rows start..start + n belong to this block.
                    unsafe { put(&self.call.n[k], start + r, v) };
                }
            }
        }
        if O == 0 {
            return;
        }

        let mut y = [std::ptr::null_mut(); O];
        for (o, place) in y.iter_mut().enumerate() {
            *place = self.output(o, start);
        }
        for r in 0..n {
            let x = rows(r);
            let w: [f64x8<S>; W] = std::array::from_fn(
                #[inline(always)]
                |k| f64x8::splat(s, weights[k][r]),
            );
            let mut i = 0;
            while i < d {
                let step = STEP.min(d - i);
                // SAFETY: as above; no reference to a row outlives its step, since an output may be an input.
                let [a, b] = unsafe { load::<S, K, V>(s, &x, i, step) };
                let (a, b) = (self.op.combine(&a, &w), self.op.combine(&b, &w));
                let mut at = 0;
                for o in 0..O {
                    if self.plan.summed_rows[o] {
                        let sum = &mut self.sum_rows[at * self.plan.pad + i..][..STEP];
                        (f64x8::from_slice(s, &sum[..8]) + a[o]).store_slice(&mut sum[..8]);
                        (f64x8::from_slice(s, &sum[8..]) + b[o]).store_slice(&mut sum[8..]);
                        at += 1;
                    } else {
                        // SAFETY: row r of this output's tile, owned by this block; `alias` inputs of the row were read
                        // up to this step, and a step is read before it is written.
                        let row = unsafe { std::slice::from_raw_parts_mut(y[o].add(r * d + i), step) };
                        if step == STEP {
                            K::store16(s, [a[o], b[o]], row)
                        } else {
                            K::store_tail(s, [a[o], b[o]], row)
                        }
                    }
                }
                i += step;
            }
        }
        for o in (0..O).filter(|&o| !self.plan.summed_rows[o]) {
            // SAFETY: rows start..start + n of output o belong to this block.
            let stored =
                unsafe { std::slice::from_raw_parts_mut(self.call.y[o].as_ptr().cast::<T>().add(start * d), n * d) };
            if self.plan.widen {
                let wide = &self.space[(V + o) * TILE * d..][..n * d];
                for (narrow, wide) in stored.iter_mut().zip(wide) {
                    *narrow = T::from_f32(wide.to_f32());
                }
            }
            if let (0, Some((margin, edge))) = (o, self.plan.edge) {
                for r in (0..n).filter(|&r| gap[r] < edge) {
                    inside(&mut stored[r * d..][..d], c[C - 1][r], margin);
                }
            }
        }
    }
}

impl<
    OP,
    T: Store,
    K: Wide,
    const V: usize,
    const C: usize,
    const P: usize,
    const W: usize,
    const O: usize,
    const R: usize,
> Kernel for Tiles<'_, OP, T, K, V, C, P, W, O, R>
where
    OP: RowOp<V, C, P, W, O, R>,
{
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut block = self.0;
        let range = block.range.clone();
        for start in range.clone().step_by(TILE) {
            block.tile::<S, P, W>(s, start, TILE.min(range.end - start));
        }
    }
}

/// Step `i` of each row: two halves of eight lanes, zeros past the end.
///
/// # Safety
/// Each row has `i + step` elements at least.
#[inline(always)]
unsafe fn load<S: Simd, K: Wide, const V: usize>(s: S, x: &[*const K; V], i: usize, step: usize) -> [[f64x8<S>; V]; 2] {
    let zero = f64x8::splat(s, 0.0);
    let (mut a, mut b) = ([zero; V], [zero; V]);
    for v in 0..V {
        // SAFETY: promised by the caller.
        let part = unsafe { std::slice::from_raw_parts(x[v].add(i), step) };
        [a[v], b[v]] = if step == STEP { K::load16(s, part) } else { K::load_tail(s, part) };
    }
    [a, b]
}

/// Pulls a row that was rounded onto the edge, or past the margin, back inside.
#[cold]
fn inside<T: Store>(row: &mut [T], c: f64, margin: Margin) {
    let m = margin.value(T::DTYPE);
    let squared = |row: &[T]| row.iter().fold((0.0, 0.0), |sum, v| dot2(sum, v.to_f64(), v.to_f64()));
    for k in 1..=8 {
        let (hi, lo) = squared(row);
        // 1 - c|y|² to twice the precision
        let p = c * hi;
        let gap = (1.0 - p) - (c.mul_add(hi, -p) + c * lo);
        let norm = (c * (hi + lo)).sqrt();
        let limit = if m > 0.0 { 1.0 - m } else { 1.0 - 0.5 * f64::from(k) * eps(T::DTYPE) };
        let fine = if m > 0.0 { norm <= limit * (1.0 + eps(T::DTYPE)) } else { gap > 0.0 };
        if fine || !norm.is_finite() {
            return;
        }
        for v in row.iter_mut() {
            *v = T::from_f64(v.to_f64() * (limit / norm));
        }
    }
}

/// One step of Dot2 on scalars.
fn dot2((hi, lo): (f64, f64), a: f64, b: f64) -> (f64, f64) {
    let p = a * b;
    let t = hi + p;
    let v = t - hi;
    (t, lo + ((hi - (t - v)) + (p - v)) + a.mul_add(b, -p))
}
