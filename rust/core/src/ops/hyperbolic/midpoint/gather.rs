//! Sums over the members of groups. The one rule: members are added in their order, in parts whose bounds follow from the
//! lists alone.

use crate::pool::{self, Shared};
use crate::rows::{Margin, eps, inside};
use crate::simd::*;
use crate::store::{STEP, Store};
use crate::{Dtype, Error, Result, Tensor, try_vec};
use std::ops::Range;

/// Lanes of a vector.
const LANES: usize = 8;
/// Members that are added in one go, and elements to a task.
const PART: usize = 1024;
const BLOCK: usize = 16 * 1024;

/// Groups of rows of x: group i has the entries `indptr[i]..indptr[i + 1]`, and these the rows `indices` (or their own).
pub struct Groups<'a, T> {
    pub x: &'a [T],
    pub rows: usize,
    pub d: usize,
    pub c: f64,
    pub weights: Option<&'a [T]>,
    pub indices: Option<Vec<usize>>,
    pub indptr: Vec<usize>,
    /// The length of every group, where there are no lists.
    pub members: usize,
    pub tangent: bool,
}

/// The coordinates (τ, f x) of every row, f and τ as hi + lo, |x|², and how f changes with c.
pub struct Lifted {
    pub f: Vec<f64>,
    pub f_lo: Vec<f64>,
    pub tau: Vec<f64>,
    pub tau_lo: Vec<f64>,
    pub squares: Vec<f64>,
    pub bend: Vec<f64>,
}

impl<T: Store> Groups<'_, T> {
    pub fn len(&self) -> usize {
        self.indptr.len() - 1
    }
    #[inline(always)]
    pub fn row(&self, entry: usize) -> usize {
        self.indices.as_ref().map_or(entry, |i| i[entry])
    }
    #[inline(always)]
    pub fn weight(&self, entry: usize) -> f64 {
        self.weights.map_or(1.0, |w| w[entry].to_f64())
    }
}

pub fn runs(groups: usize, members: usize) -> Result<Vec<usize>> {
    let mut out = try_vec(groups + 1, 0)?;
    for (i, v) in out.iter_mut().enumerate() {
        *v = i * members;
    }
    Ok(out)
}

/// A list of int32 or int64; what is negative becomes too large.
pub fn integers(t: &Tensor) -> Result<Vec<usize>> {
    let mut out = try_vec(t.len(), 0)?;
    match t.dtype() {
        Dtype::I64 => out.iter_mut().zip(t.slice::<i64>()?).for_each(|(o, &v)| *o = v as usize),
        Dtype::I32 => out.iter_mut().zip(t.slice::<i32>()?).for_each(|(o, &v)| *o = v as usize),
        other if !t.is_empty() => {
            return Err(Error::Type(format!("indices must be int32 or int64, got {}", other.name())));
        }
        _ => {}
    }
    Ok(out)
}

pub fn check(indices: &[usize], indptr: &[usize], rows: usize) -> Result<()> {
    let falling = indptr.windows(2).any(|w| w[0] > w[1]);
    if falling || indptr.first() != Some(&0) || indptr.last() != Some(&indices.len()) {
        return Err(Error::Value(format!("indptr must rise from 0 to the {} entries", indices.len())));
    }
    match indices.iter().position(|&i| i >= rows) {
        Some(at) => Err(Error::Value(format!("entry {at} names row {} of {rows}", indices[at] as i64))),
        None => Ok(()),
    }
}

/// N as hi and lo, each padded to whole steps, and T as hi + lo.
pub struct Sums {
    pub n: Vec<f64>,
    pub t: [f64; 2],
}

impl Sums {
    fn new(d: usize) -> Result<Self> {
        Ok(Sums { n: try_vec(2 * d.next_multiple_of(STEP), 0.0)?, t: [0.0; 2] })
    }
    fn clear(&mut self) {
        self.n.fill(0.0);
        self.t = [0.0; 2];
    }
    fn merge(&mut self, later: &Sums) {
        let half = self.n.len() / 2;
        let (hi, lo) = self.n.split_at_mut(half);
        for i in 0..half {
            let (v, e) = exact_sum(hi[i], later.n[i]);
            (hi[i], lo[i]) = (v, lo[i] + (e + later.n[half + i]));
        }
        self.t = wide_sum(self.t, later.t);
    }
}

/// a + b and its error
#[inline(always)]
pub fn exact_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let v = s - a;
    (s, (a - (s - v)) + (b - v))
}

#[inline(always)]
pub fn wide_sum(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    let (v, e) = exact_sum(a[0], b[0]);
    let e = e + (a[1] + b[1]);
    let s = v + e;
    [s, e - (s - v)]
}

#[inline(always)]
pub fn wide_product(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    let p = a[0] * b[0];
    let e = a[0].mul_add(b[0], -p) + a[0].mul_add(b[1], a[1] * b[0]);
    let s = p + e;
    [s, e - (s - p)]
}

struct Add<'a, T> {
    groups: &'a Groups<'a, T>,
    lifted: &'a Lifted,
    entries: Range<usize>,
    sums: &'a mut Sums,
}

impl<T: Store> Kernel for Add<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Add { groups, lifted, entries, sums } = self;
        if size_of::<T>() < 8 || groups.tangent {
            return plain(s, groups, lifted, entries, sums);
        }
        let (d, pad) = (groups.d, sums.n.len() / 2);
        let (hi, lo) = sums.n.split_at_mut(pad);
        for entry in entries {
            let row = groups.row(entry);
            let w = groups.weight(entry);
            let x = &groups.x[row * d..][..d];
            let factor = wide_product([lifted.f[row], lifted.f_lo[row]], [w, 0.0]);
            sums.t = wide_sum(sums.t, wide_product([lifted.tau[row], lifted.tau_lo[row]], [w, 0.0]));
            let (u, ul) = (f64x8::splat(s, factor[0]), f64x8::splat(s, factor[1]));
            for ((x, hi), lo) in x.chunks(STEP).zip(hi.chunks_exact_mut(STEP)).zip(lo.chunks_exact_mut(STEP)) {
                let v = if x.len() == STEP { T::load16(s, x) } else { T::load_tail(s, x) };
                let (mut h, mut l) = (f64::load16(s, hi), f64::load16(s, lo));
                for k in 0..2 {
                    let (p, e) = two_prod(s, u, v[k]);
                    let (sum, r) = two_sum(h[k], p);
                    h[k] = sum;
                    l[k] += ul.mul_add(v[k], e + r);
                }
                f64::store16(s, h, hi);
                f64::store16(s, l, lo);
            }
        }
    }
}

/// In plain f64, a part of the columns at a time, whose sums stay in registers.
#[inline(always)]
fn plain<S: Simd, T: Store>(s: S, groups: &Groups<T>, lifted: &Lifted, entries: Range<usize>, sums: &mut Sums) {
    for entry in entries.clone() {
        sums.t[0] += groups.weight(entry) * lifted.tau[groups.row(entry)];
    }
    let mut at = 0;
    while at < groups.d {
        at = if groups.d - at >= 4 * STEP && S::f64s::N == 8 {
            columns::<S, T, 4>(s, groups, lifted, entries.clone(), sums, at)
        } else {
            columns::<S, T, 1>(s, groups, lifted, entries.clone(), sums, at)
        };
    }
}

#[inline(always)]
fn columns<S: Simd, T: Store, const N: usize>(
    s: S,
    groups: &Groups<T>,
    lifted: &Lifted,
    entries: Range<usize>,
    sums: &mut Sums,
    at: usize,
) -> usize {
    let d = groups.d;
    let end = d.min(at + N * STEP);
    let mut acc = [[f64x8::splat(s, 0.0); 2]; N];
    for i in 0..N {
        acc[i] = f64::load16(s, &sums.n[at + i * STEP..]);
    }
    for entry in entries {
        let row = groups.row(entry);
        let x = &groups.x[row * d + at..row * d + end];
        let u = f64x8::splat(s, groups.weight(entry) * lifted.f[row]);
        if x.len() == N * STEP {
            for i in 0..N {
                let v = T::load16(s, &x[i * STEP..]);
                acc[i] = [v[0].mul_add(u, acc[i][0]), v[1].mul_add(u, acc[i][1])];
            }
        } else {
            let v = T::load_tail(s, x);
            acc[0] = [v[0].mul_add(u, acc[0][0]), v[1].mul_add(u, acc[0][1])];
        }
    }
    for i in 0..N {
        f64::store16(s, acc[i], &mut sums.n[at + i * STEP..]);
    }
    end
}

/// Calls `done` with the sums of every group, each from one thread.
pub fn each<T: Store>(groups: &Groups<T>, lifted: &Lifted, done: &(dyn Fn(usize, &mut Sums) + Sync)) -> Result<()> {
    let (ptr, n) = (&groups.indptr, groups.len());
    // small groups by runs of about a block, large ones in parts that are merged in order
    let mut starts = Vec::new();
    let mut first = 0;
    while first < n {
        let mut end = first + 1;
        while end < n && (ptr[end + 1] - ptr[first] + end - first) * groups.d.max(1) <= BLOCK {
            end += 1;
        }
        starts.try_reserve(1).map_err(|_| Error::Memory(n * size_of::<usize>()))?;
        starts.push(first);
        first = end;
    }
    let add = |entries: Range<usize>, sums: &mut Sums| dispatch(Add { groups, lifted, entries, sums });
    let work = groups.indptr[n].saturating_mul(groups.d);
    let large = |i: usize| ptr[i + 1] - ptr[i] > 4 * PART;
    pool::map(starts.len(), work, |b| {
        let mut sums = Sums::new(groups.d)?;
        for i in starts[b]..starts.get(b + 1).copied().unwrap_or(n) {
            if !large(i) {
                sums.clear();
                add(ptr[i]..ptr[i + 1], &mut sums);
                done(i, &mut sums);
            }
        }
        Ok(())
    })?
    .into_iter()
    .collect::<Result<()>>()?;
    for i in (0..n).filter(|&i| large(i)) {
        let parts = (ptr[i + 1] - ptr[i]).div_ceil(PART);
        let sums = pool::map(parts, work, |b| {
            let mut sums = Sums::new(groups.d)?;
            add(ptr[i] + b * PART..ptr[i + 1].min(ptr[i] + (b + 1) * PART), &mut sums);
            Ok(sums)
        })?;
        let mut total = Sums::new(groups.d)?;
        for part in sums {
            total.merge(&part?);
        }
        done(i, &mut total);
    }
    Ok(())
}

/// P and R, both with the sign of T, and N/P in place of N. R is 0 where the sum is no point of the ball, P where there is
/// nothing.
pub fn solve<T>(sums: &mut Sums, c: f64) -> ([f64; 2], f64) {
    dispatch(Solve { sums, c, double: size_of::<T>() == 8 })
}

struct Solve<'a> {
    sums: &'a mut Sums,
    c: f64,
    /// Whether anything is in the low parts.
    double: bool,
}
impl Kernel for Solve<'_> {
    type Output = ([f64; 2], f64);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let Solve { sums, c, double } = self;
        let half = sums.n.len() / 2;
        let (hi, lo) = sums.n.split_at_mut(half);
        let zero = f64x8::splat(s, 0.0);
        let (mut square, mut rest) = (zero, zero);
        for (h, l) in hi.chunks_exact(LANES).zip(lo.chunks_exact(LANES)) {
            let (h, l) = (f64x8::from_slice(s, h), f64x8::from_slice(s, l));
            let (p, e) = two_prod(s, h, h);
            let (sum, r) = two_sum(square, p);
            square = sum;
            rest += (h + h).mul_add(l, e + r);
        }
        let mut total = [hsum(square + rest), 0.0];
        if double {
            total = [0.0; 2];
            for (&h, &l) in square.as_slice().iter().zip(rest.as_slice()) {
                total = wide_sum(total, [h, l]);
            }
        }
        let (t, sign) = (sums.t, if sums.t[0] < 0.0 { -1.0 } else { 1.0 });
        let part = wide_product(total, [c, 0.0]);
        let left = wide_sum(wide_product(t, t), [-part[0], -part[1]]);
        let (p, r) = if left[0] > 0.0 {
            let root = left[0].sqrt();
            let rest = (root.mul_add(-root, left[0]) + left[1]) / (root + root);
            (wide_sum(t, [sign * root, sign * rest]), sign * (root + rest))
        } else {
            // on the edge of the ball, or past it
            ([sign * part[0].sqrt().max(t[0].abs()), 0.0], 0.0)
        };
        if !double {
            let per = if p[0] == 0.0 { 0.0 } else { 1.0 / p[0] };
            for h in hi.chunks_exact_mut(LANES) {
                (f64x8::from_slice(s, h) * per).store_slice(h);
            }
            return (p, r);
        }
        let (ph, pl) = (f64x8::splat(s, p[0]), f64x8::splat(s, p[1]));
        for (h, l) in hi.chunks_exact_mut(LANES).zip(lo.chunks_exact_mut(LANES)) {
            let (n, nl) = (f64x8::from_slice(s, h), f64x8::from_slice(s, l));
            let q = if p[0] == 0.0 { zero } else { n / ph };
            let (v, e) = two_prod(s, q, ph);
            let rest = if p[0] == 0.0 { zero } else { (((n - v) - e) + (nl - q * pl)) / ph };
            let (q, rest) = two_sum(q, rest);
            q.store_slice(h);
            rest.store_slice(l);
        }
        (p, r)
    }
}

pub fn midpoints<T: Store>(groups: &Groups<T>, lifted: &Lifted, out: &mut [T], margin: Margin) -> Result<()> {
    let keep = 1.0 - margin.value(T::DTYPE);
    let edge = 1.0 - keep * keep + 8.0 * eps(T::DTYPE);
    let (out, d) = (Shared(out.as_mut_ptr()), groups.d);
    each(groups, lifted, &|i, sums| {
        let (p, r) = solve::<T>(sums, groups.c);
        // SAFETY: each group is done once, and the output has a row of d for each.
        let out = unsafe { out.part(i * d, d) };
        for (o, v) in out.iter_mut().zip(&sums.n) {
            *o = T::from_f64(*v);
        }
        if p[0] != 0.0 && (r + r) / p[0] < edge {
            inside(out, groups.c, margin);
        }
    })
}
