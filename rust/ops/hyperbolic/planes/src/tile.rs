//! One block of rows, eight at a time. The one rule: a tile is computed in a scratch of whole vectors that stays in the first
//! cache, and its column sums are added to the block's tile by tile.

use super::Call;
use super::columns::Columns;
use super::lanes::{NEAR, Real};
use super::rows::{Form, head, row, row_back};
use base::Tensor;
use base::lane::{load, store};
use base::simd::*;
use drivers::rows::{Aside, numbers, pull, put};
use std::ops::Range;

/// Rows whose numbers are made together.
pub const TILE: usize = 8;
/// Vectors added up in lanes of the data's type before the sum is widened.
const RUN: usize = 16;

/// One block: scratch of the tile, and the block's own sums.
pub struct Block<'a, L, const BACK: bool, const FC: bool> {
    pub call: &'a Call<'a>,
    pub columns: &'a Columns<L>,
    pub pad: usize,
    pub aside: Option<Aside<L>>,
    pub edge: f64,
    pub range: Range<usize>,
    /// t, g, then what an element needs twice: each TILE × pad
    pub space: [Vec<L>; 6],
    /// U, V, Σ G_y x of the tile
    pub lanes: [Vec<L>; 3],
    /// and of the block, then Σ dc
    pub sums: &'a mut [f64],
}

#[inline(always)]
fn splat<S: Simd, L: Real>(s: S, v: f64) -> L::V<S> {
    L::V::<S>::splat(s, L::of(v))
}

/// Rows `start..start + n` of `x` into the scratch.
#[inline(always)]
fn fetch<L: Real>(x: &Tensor, aside: Option<Aside<L>>, start: usize, n: usize, d: usize, pad: usize, space: &mut [L]) {
    for j in 0..n {
        let (at, row) = ((start + j) * d, &mut space[j * pad..j * pad + d]);
        if let Some(read) = aside.and_then(
            #[inline(always)]
            |a| a.read,
        ) {
            read(x, at, row);
        } else {
            // SAFETY: row start + j of an array of L, checked by `Call::new`.
            row.copy_from_slice(unsafe { std::slice::from_raw_parts(x.as_ptr().cast::<L>().add(at), d) });
        }
    }
}

/// And back.
#[inline(always)]
fn leave<L: Real>(y: &Tensor, aside: Option<Aside<L>>, start: usize, n: usize, d: usize, pad: usize, space: &[L]) {
    for j in 0..n {
        let (at, row) = ((start + j) * d, &space[j * pad..j * pad + d]);
        if let Some(aside) = aside {
            (aside.write)(row, y, at);
        } else {
            // SAFETY: as in `fetch`; these rows of the output belong to the caller's block.
            unsafe { std::slice::from_raw_parts_mut(y.as_ptr().cast::<L>().add(at), d) }.copy_from_slice(row);
        }
    }
}

impl<L: Real, const BACK: bool, const FC: bool> Block<'_, L, BACK, FC> {
    #[inline(always)]
    fn tile<S: Simd>(&mut self, s: S, start: usize, n: usize) {
        let (call, columns, pad, d) = (self.call, self.columns, self.pad, self.call.columns);
        let Form { ball, margin, .. } = call.form;
        let root = call.c.sqrt();
        let mut x = [1.0; TILE];
        numbers(&call.s, start, &mut x[..n]);
        let x = f64x8::from_slice(s, &x);
        let [a, b, e] = row(s, call.form, x, call.c, L::CAP);
        let [t, g, one, two, inverse, angle] = &mut self.space;
        fetch(&call.t, self.aside, start, n, d, pad, t);
        if let (true, Some(from)) = (BACK, &call.g) {
            fetch(from, self.aside, start, n, d, pad, g);
        }
        let twice = splat::<S, L>(s, 2.0 * root);
        let (mut squares, mut products, mut powers) = ([0.0; TILE], [0.0; TILE], [0.0; TILE]);
        for j in 0..n {
            let (a, b, e) = (splat::<S, L>(s, a[j]), splat::<S, L>(s, b[j]), splat::<S, L>(s, e[j]));
            let mut top = splat::<S, L>(s, 0.0);
            for i in (0..pad).step_by(L::LANES) {
                let at = j * pad + i;
                let p = (load::<S, L>(s, &t[at..]) * a)
                    .mul_add(load::<S, L>(s, &columns.a[i..]), -(load::<S, L>(s, &columns.b[i..]) * b));
                let [whole, rest, inv] = L::turns(s, p * twice, e, load::<S, L>(s, &columns.n2[i..]), call.single);
                if FC {
                    store::<S, L>(whole, &mut one[at..]);
                    store::<S, L>(rest, &mut two[at..]);
                    top = top.max(whole.abs());
                }
                if BACK {
                    store::<S, L>(inv, &mut inverse[at..]);
                }
                if BACK || !FC {
                    store::<S, L>(L::angle(whole, rest), &mut angle[at..]);
                }
            }
            if !FC {
                continue;
            }
            powers[j] = L::power(L::top(top));
            let k = splat::<S, L>(s, powers[j]);
            let (mut square, mut product) = (f64x8::splat(s, 0.0), f64x8::splat(s, 0.0));
            for i in (0..pad).step_by(L::LANES) {
                let at = j * pad + i;
                let (n, rest) = (load::<S, L>(s, &one[at..]), load::<S, L>(s, &two[at..]));
                let [sinh, cosh] = L::sinh_cosh(s, n, rest, k, call.single);
                store::<S, L>(sinh, &mut one[at..]);
                square = L::dot(square, sinh, sinh);
                if BACK {
                    store::<S, L>(cosh, &mut two[at..]);
                    product = L::dot(product, sinh, load::<S, L>(s, &g[at..]));
                }
            }
            squares[j] = hsum(square);
            products[j] = hsum(product);
        }
        let square = f64x8::from_slice(s, &squares);
        let [h, turn, gap] =
            if FC { head(s, call.form, square, f64x8::from_slice(s, &powers)) } else { [f64x8::splat(s, 1.0); 3] };
        if !BACK {
            let from: &[L] = if FC { one } else { angle };
            let scale = h * (1.0 / root);
            for j in 0..n {
                let k = splat::<S, L>(s, scale[j]);
                for i in (0..pad).step_by(L::LANES) {
                    let at = j * pad + i;
                    store::<S, L>(load::<S, L>(s, &from[at..]) * k, &mut two[at..]);
                }
            }
            leave(&call.out[0], self.aside, start, n, d, pad, two);
            for j in (0..n).filter(|&j| FC && ball && gap[j] < self.edge) {
                // SAFETY: rows start..start + n of the output belong to this block.
                unsafe { pull(&call.out[0], (start + j) * d, d, call.c, margin) };
            }
            return;
        }
        let product = f64x8::from_slice(s, &products);
        let turn = turn * product;
        let (near, back, over) = (L::of(NEAR), splat::<S, L>(s, 1.0 / root), splat::<S, L>(s, 1.0 / call.c));
        let half = splat::<S, L>(s, 0.5);
        let (mut r1, mut r2, mut own) = ([0.0; TILE], [0.0; TILE], [0.0; TILE]);
        let [us, vs, ys] = &mut self.lanes;
        for v in [&mut *us, &mut *vs, &mut *ys] {
            v.fill(L::of(0.0));
        }
        for j in 0..n {
            let (a, b, h, turn) =
                (splat::<S, L>(s, a[j]), splat::<S, L>(s, b[j]), splat::<S, L>(s, h[j]), splat::<S, L>(s, turn[j]));
            let mut wide = [f64x8::splat(s, 0.0); 3];
            for from in (0..pad).step_by(RUN * L::LANES) {
                let mut sums = [splat::<S, L>(s, 0.0); 3];
                for i in (from..pad.min(from + RUN * L::LANES)).step_by(L::LANES) {
                    let at = j * pad + i;
                    let g = load::<S, L>(s, &g[at..]);
                    let (ca, cb) = (load::<S, L>(s, &columns.a[i..]), load::<S, L>(s, &columns.b[i..]));
                    let at_a = load::<S, L>(s, &t[at..]) * a;
                    let y = load::<S, L>(s, &angle[at..]);
                    let (gw, w, gy) = if FC {
                        let w = load::<S, L>(s, &one[at..]);
                        let gw = w.mul_add(turn, g * h);
                        (gw, w, gw * load::<S, L>(s, &two[at..]))
                    } else {
                        (g, g, g)
                    };
                    let ga = gy * load::<S, L>(s, &columns.n4[i..]);
                    let gp = ga * load::<S, L>(s, &inverse[at..]);
                    let gpa = gp * ca;
                    store::<S, L>(gpa.mul_add(a, gy * load::<S, L>(s, &columns.bare[i..])), &mut t[at..]);
                    sums[0] = gpa.mul_add(at_a, sums[0]);
                    sums[1] = gp.mul_add(cb, sums[1]);
                    store::<S, L>(gp.mul_add(at_a, load::<S, L>(s, &us[i..])), &mut us[i..]);
                    store::<S, L>(gp.mul_add(b, load::<S, L>(s, &vs[i..])), &mut vs[i..]);
                    let gyy = gy * y;
                    store::<S, L>(load::<S, L>(s, &ys[i..]) + gyy, &mut ys[i..]);
                    if !call.curved {
                        continue;
                    }
                    // twice dc of arsinh and of sinh, each by its series near 0
                    let q = at_a.mul_add(ca, -(cb * b));
                    let p = q * twice;
                    let (u, q2) = (p * p, q + q);
                    let far = (gp * q).mul_add(twice * half, -gyy);
                    let close = ga * q2 * (q2 * q2) * L::arsinh_d(s, u);
                    let mut dc = u.simd_lt(near).select(close, far * back * over);
                    if FC {
                        let z = y * y;
                        let v = y * back;
                        let far = (gyy - gw * w) * back * over;
                        let close = (gw + gw) * v * (v * v) * L::sinh_d(s, z);
                        dc += z.simd_lt(L::of(1.0)).select(close, far);
                    }
                    sums[2] += dc;
                }
                for k in 0..3 {
                    wide[k] = L::pour(wide[k], sums[k]);
                }
            }
            r1[j] = hsum(wide[0]);
            r2[j] = hsum(wide[1]);
            own[j] = hsum(wide[2]);
        }
        leave(&call.out[0], self.aside, start, n, d, pad, t);
        for (k, lanes) in [us, vs, ys].into_iter().enumerate() {
            for (sum, v) in self.sums[k * pad..(k + 1) * pad].iter_mut().zip(lanes.iter()) {
                *sum += v.to_f64();
            }
        }
        let sums = [f64x8::from_slice(s, &r1), f64x8::from_slice(s, &r2)];
        let [ds, dc] = row_back(s, call.form, x, call.c, [a, b], sums);
        // SAFETY: numbers start..start + n of the output belong to this block.
        unsafe { put(&call.out[1], start, &ds.as_slice()[..n]) };
        for j in 0..n {
            let by_head = if FC { turn[j] / root * (squares[j] / call.c) * 0.5 } else { 0.0 };
            self.sums[3 * pad] += dc[j] + 0.5 * own[j] + by_head;
        }
    }
}

impl<L: Real, const BACK: bool, const FC: bool> Kernel for Block<'_, L, BACK, FC> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let range = self.range.clone();
        for start in range.clone().step_by(TILE) {
            self.tile(s, start, TILE.min(range.end - start));
        }
    }
}
