//! Squared distances to a point. The one rule: lengths and angles are taken apart, as `place` has it.

use super::place::*;
use base::dd::Num;
use base::roots::*;
use base::simd::*;
use drivers::ball;

/// d² = 4D S(cD)², S(u) = arsinh √u/√u
pub struct Spread(pub bool);
ball! { Spread(x, m; c) -> (; d)
    dots(xx, mm, q) { xx.dot(x, x); mm.dot(m, m); q.square_sum(x, -m); }
    solve(self, s) {
        let c = bent(c);
        let [x, m] = places(self.0, c, [xx, mm]);
        let d = apart(self.0, c, &x, &m, q).d;
        let shape = arsinh(s, c * d);
        ([], [d * shape * shape * 4.0])
    }
}

/// By D: 4S/√(1 + cD); by c, D at rest: 8D²SS'
#[inline(always)]
fn slopes<S: Simd, N: Num<S>>(
    ball: bool,
    [xx, mm, q]: [N; 3],
    [g, c]: [f64x8<S>; 2],
) -> ([f64x8<S>; 3], [f64x8<S>; 1]) {
    let c = bent(c);
    let [x, m] = places(ball, c, [xx, mm]);
    let a = apart(ball, c, &x, &m, q);
    let u = c * a.d;
    let shape = arsinh(u.witness(), u);
    let slope = g * shape * 4.0 / (u + 1.0).sqrt();
    let own = g * shape * arsinh_root_d(u, shape) * (a.d * a.d) * 8.0;
    let half = slope * 0.5;
    ([half * a.both, half * a.k[0], half * a.k[1]], [slope.mul_add(a.by_c, own)])
}

#[inline(always)]
fn gradients<S: Simd>([x, m]: [f64x8<S>; 2], [w, k, l]: [f64x8<S>; 3]) -> [f64x8<S>; 2] {
    let v = (x - m) * w;
    [x.mul_add(k, v), m.mul_add(l, -v)]
}

pub struct SpreadBwd(pub bool);
ball! { SpreadBwd(x, m; g, c) -> (dx, dm; dc)
    dots(xx, mm, q) { xx.dot(x, x); mm.dot(m, m); q.square_sum(x, -m); }
    solve(self) { slopes(self.0, [xx, mm, q], [g, c]) }
    combine(w, k, l) { gradients([x, m], [w, k, l]) }
}

/// Those of [`SpreadBwd`], added to rows that are there.
pub struct SpreadOnto(pub bool);
ball! { SpreadOnto(a, x, m; g, c) -> (dx, dm; dc)
    dots(xx, mm, q) { xx.dot(x, x); mm.dot(m, m); q.square_sum(x, -m); }
    solve(self) { slopes(self.0, [xx, mm, q], [g, c]) }
    combine(w, k, l) {
        let [dx, dm] = gradients([x, m], [w, k, l]);
        [a + dx, dm]
    }
}
