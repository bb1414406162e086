//! Squared distances to a point. The one rule: lengths and angles are taken apart, as `place` has it.

use super::place::*;
use base::dd::Num;
use base::roots::*;
use base::simd::*;
use drivers::rows::{Acc, RowOp, Solved};

/// d² = 4D S(cD)², S(u) = arsinh √u/√u
pub struct Spread(pub bool);
impl RowOp<2, 1, 3, 0, 0, 1> for Spread {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [x, m]: &[f64x8<S>; 2], [xx, mm, q]: &mut [A; 3]) {
        xx.dot(*x, *x);
        mm.dot(*m, *m);
        q.square_sum(*x, -*m);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, mm, q]: [N; 3], [c]: [f64x8<S>; 1]) -> Solved<S, 0, 1> {
        let c = bent(c);
        let [x, m] = places(self.0, c, [xx, mm]);
        let d = apart(self.0, c, &x, &m, q).d;
        let shape = arsinh(s, c * d);
        Solved { weights: [], numbers: [d * shape * shape * 4.0], gap: f64x8::splat(s, 1.0) }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, _: &[f64x8<S>; 2], _: &[f64x8<S>; 0]) -> [f64x8<S>; 0] {
        []
    }
}

/// By D: 4S/√(1 + cD); by c, D at rest: 8D²SS'
pub struct SpreadBwd(pub bool);
impl RowOp<2, 2, 3, 3, 2, 1> for SpreadBwd {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, x: &[f64x8<S>; 2], sums: &mut [A; 3]) {
        Spread(self.0).dots(x, sums);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, [xx, mm, q]: [N; 3], [g, c]: [f64x8<S>; 2]) -> Solved<S, 3, 1> {
        let c = bent(c);
        let [x, m] = places(self.0, c, [xx, mm]);
        let a = apart(self.0, c, &x, &m, q);
        let u = c * a.d;
        let shape = arsinh(s, u);
        let slope = g * shape * 4.0 / (u + 1.0).sqrt();
        let own = g * shape * arsinh_root_d(u, shape) * (a.d * a.d) * 8.0;
        let half = slope * 0.5;
        Solved {
            weights: [half * a.both, half * a.k[0], half * a.k[1]],
            numbers: [slope.mul_add(a.by_c, own)],
            gap: f64x8::splat(s, 1.0),
        }
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [x, m]: &[f64x8<S>; 2], [w, k, l]: &[f64x8<S>; 3]) -> [f64x8<S>; 2] {
        let v = (*x - *m) * *w;
        [x.mul_add(*k, v), m.mul_add(*l, -v)]
    }
}

/// Those of [`SpreadBwd`], added to rows that are there.
pub struct SpreadOnto(pub bool);
impl RowOp<3, 2, 3, 3, 2, 1> for SpreadOnto {
    const CURVED: bool = true;
    #[inline(always)]
    fn dots<S: Simd, A: Acc<S>>(&self, [_, x, m]: &[f64x8<S>; 3], sums: &mut [A; 3]) {
        Spread(self.0).dots(&[*x, *m], sums);
    }
    #[inline(always)]
    fn solve<S: Simd, N: Num<S>>(&self, s: S, p: [N; 3], c: [f64x8<S>; 2]) -> Solved<S, 3, 1> {
        SpreadBwd(self.0).solve(s, p, c)
    }
    #[inline(always)]
    fn combine<S: Simd>(&self, [a, x, m]: &[f64x8<S>; 3], w: &[f64x8<S>; 3]) -> [f64x8<S>; 2] {
        let [dx, dm] = SpreadBwd(self.0).combine(&[*x, *m], w);
        [*a + dx, dm]
    }
}
