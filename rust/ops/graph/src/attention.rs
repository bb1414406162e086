//! Attention along the edges of a graph. The one rule: an output belongs to one row or to one column, whose edges are taken in their
//! order, so that nothing is added twice or by two threads.
//!
//! For node i and its neighbours j, head by head: s_ij = ⟨q_i, k_j⟩/√d, w_ij = exp(clamp(s_ij)), z_i = Σ_j w_ij + ε and
//! y_i = Σ_j w_ij v_j/z_i (Dwivedi and Bresson, "A generalization of transformer networks to graphs", 2021). With G the gradient of y:
//! a_ij = ⟨G_i, v_j⟩, t_i = Σ_j w_ij a_ij/z_i, and a pair sends D_ij = w_ij (a_ij − t_i)/z_i where s is within its bounds: dq_i = Σ_j
//! D_ij k_j/√d, dk_j = Σ_i D_ij q_i/√d, dv_j = Σ_i w_ij G_i/z_i. Rows are walked for y and dq, columns for dk and dv.

use super::{Places, by_index};
use base::simd::*;
use base::store::{STEP, Store};
use base::{Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::blocks;
use drivers::index::Index;

/// The bits of `needs`.
const DQ: i64 = 1;
const DK: i64 = 2;
const DV: i64 = 4;

/// Σ a b in f64 lanes.
struct Product<'a, T>(&'a [T], &'a [T]);
impl<T: Store> Kernel for Product<'_, T> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let mut sum = [f64x8::splat(s, 0.0); 2];
        for (a, b) in self.0.chunks(STEP).zip(self.1.chunks(STEP)) {
            let whole = a.len() == STEP;
            let (a, b) =
                if whole { (T::load16(s, a), T::load16(s, b)) } else { (T::load_tail(s, a), T::load_tail(s, b)) };
            sum = [a[0].mul_add(b[0], sum[0]), a[1].mul_add(b[1], sum[1])];
        }
        hsum(sum[0] + sum[1])
    }
}

/// sums += w x
struct Add<'a, T>(&'a mut [f64], f64, &'a [T]);
impl<T: Store> Kernel for Add<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let w = f64x8::splat(s, self.1);
        for (sum, x) in self.0.chunks_mut(STEP).zip(self.2.chunks(STEP)) {
            if x.len() == STEP {
                let (old, x) = (f64::load16(s, sum), T::load16(s, x));
                f64::store16(s, [x[0].mul_add(w, old[0]), x[1].mul_add(w, old[1])], sum);
            } else {
                let (old, x) = (f64::load_tail(s, sum), T::load_tail(s, x));
                f64::store_tail(s, [x[0].mul_add(w, old[0]), x[1].mul_add(w, old[1])], sum);
            }
        }
    }
}

/// Queries of the rows, keys and values of the columns: heads of d and of e numbers.
struct Heads<'a, T> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    n: usize,
    m: usize,
    heads: usize,
    d: usize,
    e: usize,
    clamp: f64,
    eps: f64,
}

impl<'a, T: Store> Heads<'a, T> {
    fn new(t: &[Tensor<'a>], s: &[Scalar]) -> Result<Self> {
        let (&[n, heads, d], &[m, h, f], &[l, i, e]) = (t[0].shape(), t[1].shape(), t[2].shape()) else {
            return Err(Error::Value("q, k and v must have three axes: nodes, heads, numbers".into()));
        };
        if [h, i, f, l] != [heads, heads, d, m] {
            let shapes = [t[0].shape(), t[1].shape(), t[2].shape()];
            return Err(Error::Value(format!("q, k and v of shapes {shapes:?} do not go together")));
        }
        let (clamp, eps) = (s[0].float(), s[1].float());
        if !(clamp > 0.0 && eps >= 0.0 && eps.is_finite()) {
            return Err(Error::Value(format!("clamp must be positive and eps not negative, got {clamp} and {eps}")));
        }
        Ok(Heads { q: t[0].slice()?, k: t[1].slice()?, v: t[2].slice()?, n, m, heads, d, e, clamp, eps })
    }
    fn places<I: Index>(&self, indices: &Tensor, indptr: &Tensor) -> Result<Places> {
        let p = Places::new::<I>(indices, indptr, self.m)?;
        if p.rows() == self.n {
            return Ok(p);
        }
        Err(Error::Value(format!("the graph has {} rows, q {}", p.rows(), self.n)))
    }
    /// The part of a head of `width` numbers.
    fn head<'b>(&self, x: &'b [T], node: usize, h: usize, width: usize) -> &'b [T] {
        &x[(node * self.heads + h) * width..][..width]
    }
    fn scale(&self) -> f64 {
        1.0 / (self.d.max(1) as f64).sqrt()
    }
    /// w, and whether s lies within its bounds.
    fn weight(&self, i: usize, j: usize, h: usize) -> (f64, bool) {
        let s = dispatch(Product(self.head(self.q, i, h, self.d), self.head(self.k, j, h, self.d))) * self.scale();
        (s.clamp(-self.clamp, self.clamp).exp(), s.abs() <= self.clamp)
    }
}

pub fn forward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<T: Store, I: Index>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let x = Heads::<T>::new(t, s)?;
        let (p, width) = (x.places::<I>(&t[3], &t[4])?, x.heads * x.e);
        t[7].expect("y", x.n * width)?;
        let cost = (p.columns.len() / x.n.max(1) + 1) * 2;
        blocks::fill(t[7].slice_mut::<T>()?, width, cost, |first, out| {
            let mut sums = try_vec(x.e, 0.0)?;
            for (i, y) in out.chunks_exact_mut(width).enumerate() {
                for (h, y) in y.chunks_exact_mut(x.e).enumerate() {
                    let mut z = x.eps;
                    sums.fill(0.0);
                    for &j in p.row(first + i) {
                        let (w, _) = x.weight(first + i, j, h);
                        z += w;
                        dispatch(Add(&mut sums, w, x.head(x.v, j, h, x.e)));
                    }
                    write(y, &sums, share(z));
                }
            }
            Ok(())
        })
    }
    by_index!(t[3], I => by_float!(t[0], T => run::<T, I>(t, s)))
}

/// 1/z; nothing is shared where there is nothing.
fn share(z: f64) -> f64 {
    if z == 0.0 { 0.0 } else { 1.0 / z }
}

fn write<T: Store>(y: &mut [T], sums: &[f64], factor: f64) {
    for (y, sum) in y.iter_mut().zip(sums) {
        *y = T::from_f64(sum * factor);
    }
}

/// Of each row and head: 1/z and t.
type Shares = Vec<[f64; 2]>;

pub fn backward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    fn run<T: Store, I: Index>(t: &[Tensor], s: &[Scalar]) -> Result<()> {
        let (x, needs) = (Heads::<T>::new(&t[1..4], s)?, s[2].int());
        let p = x.places::<I>(&t[4], &t[5])?;
        let g = t[0].slice::<T>()?;
        t[0].expect("g", x.n * x.heads * x.e)?;
        for (bit, at, size) in [(DQ, 8, x.n * x.d), (DK, 9, x.m * x.d), (DV, 10, x.m * x.e)] {
            if needs & bit != 0 {
                t[at].expect("a gradient", size * x.heads)?;
            }
        }
        let mut nothing = Vec::new();
        let shares = shares(&x, &p, g, if needs & DQ == 0 { &mut nothing } else { t[8].slice_mut::<T>()? })?;
        if needs & (DK | DV) != 0 {
            let turned = turned::<I>(&p, x.m, &t[6], &t[7], x.n)?;
            columns(&x, &turned, g, &shares, needs, &t[9..11])?;
        }
        Ok(())
    }
    by_index!(t[4], I => by_float!(t[0], T => run::<T, I>(t, s)))
}

/// The walk over the rows: what they share, and dq if there is room for it.
fn shares<T: Store>(x: &Heads<T>, p: &Places, g: &[T], dq: &mut [T]) -> Result<Shares> {
    let cost = (p.columns.len() / x.n.max(1) + 1) * (x.d + x.e);
    let each = (blocks::BLOCK / (x.heads * (x.d + x.e)).max(1)).max(1);
    let of_row = |i: usize, h: usize, sums: &mut [f64], edges: &mut Vec<[f64; 2]>, inside: &mut Vec<bool>| {
        edges.clear();
        inside.clear();
        let (mut z, mut t) = (x.eps, 0.0);
        for &j in p.row(i) {
            let (w, within) = x.weight(i, j, h);
            let a = dispatch(Product(x.head(g, i, h, x.e), x.head(x.v, j, h, x.e)));
            z += w;
            t += w * a;
            edges.push([w, a]);
            inside.push(within);
        }
        let (z, t) = (share(z), t * share(z));
        sums.fill(0.0);
        for ((&j, [w, a]), &within) in p.row(i).iter().zip(&*edges).zip(&*inside) {
            if within {
                dispatch(Add(sums, w * (a - t) * z, x.head(x.k, j, h, x.d)));
            }
        }
        [z, t]
    };
    let found = blocks::map(x.n, each, x.n.saturating_mul(cost), |rows| {
        let mut sums = try_vec(x.d, 0.0)?;
        let (mut edges, mut inside, mut shares, mut out) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for i in rows {
            for h in 0..x.heads {
                shares.push(of_row(i, h, &mut sums, &mut edges, &mut inside));
                out.extend(sums.iter().map(|v| T::from_f64(v * x.scale())));
            }
        }
        Ok((shares, out))
    })?;
    let mut all = Shares::new();
    let mut at = 0;
    for (shares, part) in found {
        all.extend(shares);
        if !dq.is_empty() {
            dq[at..at + part.len()].copy_from_slice(&part);
        }
        at += part.len();
    }
    Ok(all)
}

/// The rows that each column meets: as given, or made here.
fn turned<I: Index>(p: &Places, cols: usize, indices: &Tensor, indptr: &Tensor, n: usize) -> Result<Places> {
    if !indptr.is_empty() {
        let t = Places::new::<I>(indices, indptr, n)?;
        if t.rows() == cols && t.columns.len() == p.columns.len() {
            return Ok(t);
        }
        return Err(Error::Value("t_indices and t_indptr are not the transpose of the graph".into()));
    }
    let mut ptr = try_vec(cols + 1, 0usize)?;
    for &j in &p.columns {
        ptr[j + 1] += 1;
    }
    for j in 0..cols {
        ptr[j + 1] += ptr[j];
    }
    let (mut next, mut rows) = (try_vec(cols + 1, 0usize)?, try_vec(p.columns.len(), 0usize)?);
    next.copy_from_slice(&ptr);
    for i in 0..p.rows() {
        for &j in p.row(i) {
            rows[next[j]] = i;
            next[j] += 1;
        }
    }
    Ok(Places { ptr, columns: rows })
}

/// The walk over the columns: dk and dv.
fn columns<T: Store>(x: &Heads<T>, p: &Places, g: &[T], of: &Shares, needs: i64, out: &[Tensor]) -> Result<()> {
    let cost = (p.columns.len() / x.m.max(1) + 1) * (x.d + x.e);
    let each = (blocks::BLOCK / (x.heads * (x.d + x.e)).max(1)).max(1);
    let found = blocks::map(x.m, each, x.m.saturating_mul(cost), |cols| {
        let (mut to_k, mut to_v) = (try_vec(x.d, 0.0)?, try_vec(x.e, 0.0)?);
        let (mut dk, mut dv) = (Vec::new(), Vec::new());
        for j in cols {
            for h in 0..x.heads {
                to_k.fill(0.0);
                to_v.fill(0.0);
                for &i in p.row(j) {
                    let ((w, within), [z, t]) = (x.weight(i, j, h), of[i * x.heads + h]);
                    let g = x.head(g, i, h, x.e);
                    dispatch(Add(&mut to_v, w * z, g));
                    if within {
                        let a = dispatch(Product(g, x.head(x.v, j, h, x.e)));
                        dispatch(Add(&mut to_k, w * (a - t) * z, x.head(x.q, i, h, x.d)));
                    }
                }
                dk.extend(to_k.iter().map(|v| T::from_f64(v * x.scale())));
                dv.extend(to_v.iter().map(|&v| T::from_f64(v)));
            }
        }
        Ok([dk, dv])
    })?;
    for (which, bit) in [DK, DV].into_iter().enumerate() {
        if needs & bit != 0 {
            let all = found.iter().flat_map(|parts| &parts[which]);
            for (to, &v) in out[which].slice_mut::<T>()?.iter_mut().zip(all) {
                *to = v;
            }
        }
    }
    Ok(())
}
