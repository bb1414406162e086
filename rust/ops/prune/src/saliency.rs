//! What groups of weights and their gradients sum to: Σ x², Σ g² and Σ x g of each. The one rule: both are read once, in f64, and
//! the order of a sum follows from the shapes.
//!
//! All five saliencies of HESSO (Chen et al. 2024) are functions of these three: ‖x‖, ‖x‖/n, 1 + ⟨x, g⟩/‖x‖‖g‖, |⟨x, g⟩|,
//! ½⟨x, g⟩².

use base::simd::{Kernel, Simd, dispatch};
use base::store::Store;
use base::{Error, Result, Tensor, by_float, try_vec};
use drivers::blocks::{self, BLOCK};

/// Sums side by side.
const LANES: usize = 8;
/// Elements of a group that lie together, from which on it is summed by itself; shorter pieces are summed beside each other.
const TOGETHER: usize = 32;

/// Adds a piece of a group to its three sums, `LANES` side by side in each.
struct Along<'a, T> {
    x: &'a [T],
    g: &'a [T],
    sums: &'a mut [[f64; LANES]; 3],
}

impl<T: Store> Kernel for Along<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (x, g) = (self.x.chunks(LANES), self.g.chunks(LANES));
        let [mut xx, mut gg, mut xg] = *self.sums;
        for (x, g) in x.zip(g) {
            let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
            for (i, (x, g)) in x.iter().zip(g).enumerate() {
                (a[i], b[i]) = (x.to_f64(), g.to_f64());
            }
            for i in 0..LANES {
                xx[i] += a[i] * a[i];
                gg[i] += b[i] * b[i];
                xg[i] += a[i] * b[i];
            }
        }
        *self.sums = [xx, gg, xg];
    }
}

/// Adds a piece of each of several groups, element by element, to sums that lie as the elements do.
struct Beside<'a, T> {
    x: &'a [T],
    g: &'a [T],
    sums: [&'a mut [f64]; 3],
}

impl<T: Store> Kernel for Beside<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let [xx, gg, xg] = self.sums;
        for ((((x, g), xx), gg), xg) in self.x.iter().zip(self.g).zip(xx).zip(gg).zip(xg) {
            let (x, g) = (x.to_f64(), g.to_f64());
            *xx += x * x;
            *gg += g * g;
            *xg += x * g;
        }
    }
}

fn folded(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// group_sums(x[a, n, b], g[a, n, b]) -> sums[n, 3]
pub fn group_sums(t: &[Tensor]) -> Result<()> {
    fn run<T: Store>(t: &[Tensor]) -> Result<()> {
        let &[outer, groups, inner] = t[0].shape() else {
            return Err(Error::Value(format!("x must be [outer, groups, inner], got shape {:?}", t[0].shape())));
        };
        t[1].expect_shape("g", t[0].shape())?;
        t[2].expect("sums", groups * 3)?;
        let (x, g) = (t[0].slice::<T>()?, t[1].slice::<T>()?);
        let each = if inner < TOGETHER { BLOCK / inner.max(1) / 16 } else { BLOCK / (outer * inner).max(1) };
        let found = blocks::map(groups, each, x.len(), |some| {
            let mut made = try_vec(some.len() * 3, 0.0)?;
            let piece = |o: usize, from: usize, to: usize| (o * groups + from) * inner..(o * groups + to) * inner;
            if inner < TOGETHER {
                let mut sums = try_vec(3 * some.len() * inner, 0.0)?;
                for o in 0..outer {
                    let at = piece(o, some.start, some.end);
                    let (xx, rest) = sums.split_at_mut(some.len() * inner);
                    let (gg, xg) = rest.split_at_mut(some.len() * inner);
                    dispatch(Beside { x: &x[at.clone()], g: &g[at], sums: [xx, gg, xg] });
                }
                for (k, sums) in sums.chunks_exact((some.len() * inner).max(1)).enumerate() {
                    for (i, sums) in sums.chunks_exact(inner).enumerate() {
                        made[3 * i + k] = sums.iter().sum();
                    }
                }
            } else {
                for (i, made) in some.clone().zip(made.chunks_exact_mut(3)) {
                    let mut sums = [[0.0; LANES]; 3];
                    for o in 0..outer {
                        let at = piece(o, i, i + 1);
                        dispatch(Along { x: &x[at.clone()], g: &g[at], sums: &mut sums });
                    }
                    made.copy_from_slice(&sums.map(folded));
                }
            }
            Ok(made)
        })?;
        let out = t[2].slice_mut::<f64>()?;
        for (out, made) in out.iter_mut().zip(found.into_iter().flatten()) {
            *out = made;
        }
        Ok(())
    }
    by_float!(t[0], T => run::<T>(t))
}
