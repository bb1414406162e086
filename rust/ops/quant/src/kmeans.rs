//! Groups of numbers of the least sum of squares: the optimum, by dynamic programming over the numbers in order. The one rule: equal
//! numbers are one, and of equally good cuts the first is taken.
//!
//! D_l(j) = min_i D_{l−1}(i) + cost(i, j), cost(i, j) = Q − S²/W of the weights, the sums and the sums of squares of i … j − 1, from
//! running sums about the median, in pairs of f64. The best i does not fall as j grows, so a layer takes O(t log t) (Wu, 1991;
//! Grønlund et al., "Fast exact k-means, k-medians and Bregman divergence clustering in 1D", 2017).

use base::simd::{Kernel, Simd, dispatch};
use base::store::Store;
use base::{Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::blocks;
use std::sync::Mutex;

/// hi + lo.
#[derive(Clone, Copy, Default)]
struct Pair(f64, f64);

impl Pair {
    #[inline(always)]
    fn plus(self, v: f64) -> Pair {
        let (s, e) = two_sum(self.0, v);
        let (hi, lo) = two_sum(s, e + self.1);
        Pair(hi, lo)
    }
    #[inline(always)]
    fn minus(self, other: Pair) -> Pair {
        let (s, e) = two_sum(self.0, -other.0);
        let (hi, lo) = two_sum(s, e + (self.1 - other.1));
        Pair(hi, lo)
    }
    /// With the product of two numbers more.
    fn plus_product(self, a: f64, b: f64) -> Pair {
        let p = a * b;
        self.plus(p).plus(a.mul_add(b, -p))
    }
}

#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let t = s - a;
    (s, (a - (s - t)) + (b - t))
}

/// Running sums of weights, of weights times numbers, and of weights times squares, high and low parts apart.
struct Sums([[Vec<f64>; 2]; 3]);

/// Q − m S with m = S/W, all of them pairs.
#[inline(always)]
fn cost([w, s, q]: [Pair; 3]) -> f64 {
    let m = s.0 / w.0;
    let rest = ((-m).mul_add(w.0, s.0) + s.1 - m * w.1) / w.0;
    let p = m * s.0;
    let low = m.mul_add(s.0, -p) + m * s.1 + rest * s.0;
    let v = (q.0 - p) + (q.1 - low);
    if v > 0.0 { v } else { 0.0 }
}

impl Sums {
    fn new(values: &[f64], weights: &[f64]) -> Result<Self> {
        let none = || try_vec(values.len() + 1, 0.0);
        let mut all = [[none()?, none()?], [none()?, none()?], [none()?, none()?]];
        let mut sums = [Pair::default(); 3];
        for (i, (&v, &w)) in values.iter().zip(weights).enumerate() {
            // w v² as (w v) v, and what the first product lost
            let wv = w * v;
            sums =
                [sums[0].plus(w), sums[1].plus_product(w, v), sums[2].plus_product(wv, v).plus(w.mul_add(v, -wv) * v)];
            for (all, sum) in all.iter_mut().zip(sums) {
                (all[0][i + 1], all[1][i + 1]) = (sum.0, sum.1);
            }
        }
        Ok(Sums(all))
    }
    #[inline(always)]
    fn at(&self, i: usize) -> [Pair; 3] {
        self.0.each_ref().map(|[hi, lo]| Pair(hi[i], lo[i]))
    }
    #[inline(always)]
    fn between(&self, i: usize, j: usize) -> [Pair; 3] {
        let (from, to) = (self.at(i), self.at(j));
        [0, 1, 2].map(|k| to[k].minus(from[k]))
    }
    fn cost(&self, i: usize, j: usize) -> f64 {
        if j - i <= 1 { 0.0 } else { cost(self.between(i, j)) }
    }
}

/// Cuts that are tried side by side.
const SIDE: usize = 256;

/// One layer: the best last cut of every prefix from `span[0]` to `span[1]`, which lies within `span[2]` and `span[3]`.
struct Layer<'a> {
    sums: &'a Sums,
    before: &'a [f64],
    now: &'a mut [f64],
    cuts: &'a mut [u32],
    span: [usize; 4],
}

impl Layer<'_> {
    /// What prefix j costs with each of the cuts from `first` on.
    #[inline(always)]
    fn totals(&self, first: usize, j: usize, out: &mut [f64]) {
        let n = out.len();
        let to = self.sums.at(j);
        let [[w0, w1], [s0, s1], [q0, q1]] = self.sums.0.each_ref().map(|p| p.each_ref().map(|v| &v[first..first + n]));
        let before = &self.before[first..first + n];
        for i in 0..n {
            let parts =
                [to[0].minus(Pair(w0[i], w1[i])), to[1].minus(Pair(s0[i], s1[i])), to[2].minus(Pair(q0[i], q1[i]))];
            out[i] = before[i] + cost(parts);
        }
        if first + n == j {
            out[n - 1] = before[n - 1]; // a group of one number
        }
    }
}

impl Kernel for Layer<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (mut open, mut room) = (vec![self.span], [0.0; SIDE]);
        while let Some([from, to, low, high]) = open.pop() {
            let j = usize::midpoint(from, to);
            let (mut best, mut at, end) = (f64::INFINITY, low, high.min(j - 1) + 1);
            for first in (low..end).step_by(SIDE) {
                let totals = &mut room[..SIDE.min(end - first)];
                self.totals(first, j, totals);
                for (i, &total) in totals.iter().enumerate() {
                    if total < best {
                        (best, at) = (total, first + i);
                    }
                }
            }
            (self.now[j], self.cuts[j]) = (best, at as u32);
            if j > from {
                open.push([from, j - 1, low, at]);
            }
            if j < to {
                open.push([j + 1, to, at, high]);
            }
        }
    }
}

/// kmeans_1d(x, weights) -> labels, centers, inertia; k
pub fn kmeans(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    by_float!(&t[0], T => groups(t[0].slice::<T>()?, &t[1], &t[2], &t[3], &t[4], s[0].int()))
}

fn groups<T: Store>(
    x: &[T],
    weights: &Tensor,
    labels: &Tensor,
    centers: &Tensor,
    inertia: &Tensor,
    k: i64,
) -> Result<()> {
    let n = x.len();
    let Some(k) = usize::try_from(k).ok().filter(|&k| 0 < k && k <= n) else {
        return Err(Error::Value(format!("k must lie within 1 and the {n} numbers of x, got {k}")));
    };
    if n >= u32::MAX as usize {
        return Err(Error::Value(format!("at most 2^32 - 2 numbers, got {n}")));
    }
    if let Some(v) = x.iter().find(|v| !v.to_f64().is_finite()) {
        return Err(Error::Value(format!("x holds non-finite values, such as {}", v.to_f64())));
    }
    let weights: &[T] = if weights.is_empty() { &[] } else { weights.slice()? };
    if let Some(w) = weights.iter().find(|w| !(w.to_f64() > 0.0 && w.to_f64().is_finite())) {
        return Err(Error::Value(format!("weights must be positive and finite, got {}", w.to_f64())));
    }
    if !weights.is_empty() && weights.len() != n {
        return Err(Error::Value(format!("{} weights for {n} numbers", weights.len())));
    }
    let (labels, centers) = (labels.slice_mut::<i64>()?, centers.slice_mut::<f64>()?);
    let mut order = try_vec(n, 0u32)?;
    order.iter_mut().enumerate().for_each(|(i, o)| *o = i as u32);
    let value = |i: u32| x[i as usize].to_f64() + 0.0;
    order.sort_unstable_by(|&a, &b| value(a).total_cmp(&value(b)).then(a.cmp(&b)));
    let middle = value(order[n / 2]);
    // each different number, from the median, and the weight of all that are equal to it
    let (mut values, mut heavy, mut place) = (try_vec(n, 0.0)?, try_vec(n, 0.0)?, try_vec(n, 0u32)?);
    let mut count = 0;
    for (at, &i) in order.iter().enumerate() {
        if at == 0 || value(i) != value(order[at - 1]) {
            values[count] = value(i) - middle;
            count += 1;
        }
        heavy[count - 1] += weights.get(i as usize).map_or(1.0, |w| w.to_f64());
        place[at] = count as u32 - 1;
    }
    let (sums, k) = (Sums::new(&values[..count], &heavy[..count])?, k.min(count));
    let mut cuts = try_vec(k.saturating_mul(count + 1), 0u32)?;
    let mut costs = [try_vec(count + 1, f64::INFINITY)?, try_vec(count + 1, f64::INFINITY)?];
    for j in 0..=count {
        costs[0][j] = sums.cost(0, j);
    }
    for l in 1..k {
        let work = Mutex::new((&mut costs, &mut cuts));
        // a block of the pool, so that an interrupt is heard between layers
        blocks::map(1, 1, 0, |_| {
            let Ok(mut work) = work.lock() else { return Ok(()) };
            let (costs, cuts) = &mut *work;
            let (before, now) = costs.split_at_mut(1);
            now[0].fill(f64::INFINITY);
            let cuts = &mut cuts[l * (count + 1)..(l + 1) * (count + 1)];
            let span = [l + 1, count, l, count - 1];
            dispatch(Layer { sums: &sums, before: &before[0], now: &mut now[0], cuts, span });
            std::mem::swap(&mut before[0], &mut now[0]);
            Ok(())
        })?;
    }
    // the cuts from the last to the first
    let (mut end, mut total) = (count, 0.0);
    let mut group = try_vec(count, 0i64)?;
    for l in (0..k).rev() {
        let start = cuts[l * (count + 1) + end] as usize;
        total += sums.cost(start, end);
        group[start..end].fill(l as i64);
        end = start;
    }
    // means about each group's first number, of the numbers themselves: a difference of sums over all has no digits left for a
    // group that is far narrower than they reach
    centers.fill(f64::NAN);
    for same in
        order.iter().zip(&place).collect::<Vec<_>>().chunk_by(|a, b| group[*a.1 as usize] == group[*b.1 as usize])
    {
        let (l, first) = (group[*same[0].1 as usize], value(*same[0].0));
        let (mut mass, mut far) = (0.0, 0.0);
        for &(&i, _) in same {
            let w = weights.get(i as usize).map_or(1.0, |w| w.to_f64());
            (mass, far) = (mass + w, far + w * (value(i) - first));
            labels[i as usize] = l;
        }
        centers[l as usize] = first + far / mass;
    }
    inertia.set_number(total)
}
