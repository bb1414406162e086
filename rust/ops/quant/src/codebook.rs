//! The codes of rows: the nearest entries of a codebook, and the sums over the rows of each. The one rule: no array of all pairs, and
//! of equally near entries the first.

use base::near::near;
use base::store::Store;
use base::{Dtype, Error, Result, Scalar, Tensor, by_float, try_vec};
use drivers::blocks::{self, BLOCK};
use drivers::pairs::{All, Cosine, Dot, Number, Sides, SquaredDistance, TopK};

/// Rows looked up together, so that their searches hide each other's waits.
const SIDE: usize = 16;

fn finite<T: Store>(name: &str, x: &[T]) -> Result<()> {
    let odd = |part: std::ops::Range<usize>| Ok(x[part].iter().any(|v| !v.to_f64().is_finite()));
    let parts = blocks::map(x.len(), BLOCK, x.len(), odd)?;
    if parts.contains(&true) {
        return Err(Error::Value(format!("{name} holds non-finite values")));
    }
    Ok(())
}

/// codebook_assign(x, c) -> labels; top, metric (squared distance 0, inner product 1, cosine 2)
pub fn assign<T: Number>(t: &[Tensor], k: &[Scalar]) -> Result<()> {
    let (x, c, (n, d), (m, _)) = (t[0].slice::<T>()?, t[1].slice::<T>()?, t[0].rows(), t[1].rows());
    let top = usize::try_from(k[0].int()).ok().filter(|&k| 0 < k && k <= m);
    let Some(top) = top else {
        return Err(Error::Value(format!("k must lie within 1 and the {m} rows of c, got {}", k[0].int())));
    };
    t[2].expect("labels", n * top)?;
    finite("x", x)?;
    finite("c", c)?;
    let labels = t[2].slice_mut::<i64>()?;
    let metric = k[1].int();
    if (d, top, metric) == (1, 1, 0) {
        return Buckets::new(c)?.assign(x, labels);
    }
    // directions do not change with powers of two, and the squares of rows of one do not leave f64
    let mut level = [None, None];
    if metric == 2 && T::DTYPE == Dtype::F64 {
        level = [near(t[0].slice()?, d)?, near(t[1].slice()?, d)?];
    }
    let [a, b] = &mut level;
    let x = if let Some(a) = a { a.tensor(&t[0])?.slice()? } else { x };
    let c = if let Some(b) = b { b.tensor(&t[1])?.slice()? } else { c };
    let mut values = try_vec(n * top, 0f64)?;
    let (sides, best) = (Sides::new(x, c, n, m, d)?, TopK::new(n, top, metric != 0, labels, &mut values)?);
    match metric {
        0 => sides.run(&SquaredDistance, &All, &best),
        1 => sides.run(&Dot, &All, &best),
        2 => sides.run(&Cosine, &All, &best),
        other => Err(Error::Value(format!("metric {other} is not 0, 1 or 2"))),
    }
}

/// A codebook of numbers, in order: each different one with the first place that holds it, and infinities up to a power of two.
struct Buckets {
    codes: Vec<f64>,
    places: Vec<i64>,
    last: usize,
}

impl Buckets {
    fn new<T: Store>(c: &[T]) -> Result<Self> {
        let mut order = try_vec(c.len(), (0.0, 0))?;
        for (i, (o, &c)) in order.iter_mut().zip(c).enumerate() {
            *o = (c.to_f64() + 0.0, i as i64);
        }
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        order.dedup_by_key(|o| o.0);
        let mut codes = try_vec(order.len().next_power_of_two(), f64::INFINITY)?;
        let mut places = try_vec(codes.len(), 0)?;
        for ((&(c, i), code), place) in order.iter().zip(&mut codes).zip(&mut places) {
            (*code, *place) = (c, i);
        }
        Ok(Buckets { codes, places, last: order.len() - 1 })
    }

    /// How many codes lie below each, all but the greatest power of two's last step counted.
    fn below(&self, x: &[f64; SIDE]) -> [usize; SIDE] {
        let mut at = [0; SIDE];
        let mut step = self.codes.len();
        while step > 1 {
            step /= 2;
            for (at, x) in at.iter_mut().zip(x) {
                *at += step * usize::from(self.codes[*at + step - 1] < *x);
            }
        }
        at
    }

    fn assign<T: Store>(&self, x: &[T], labels: &mut [i64]) -> Result<()> {
        blocks::fill(labels, 1, 8, |at, labels| {
            for (x, labels) in x[at..at + labels.len()].chunks(SIDE).zip(labels.chunks_mut(SIDE)) {
                let mut v = [0.0; SIDE];
                for (v, x) in v.iter_mut().zip(x) {
                    *v = x.to_f64();
                }
                let at = self.below(&v);
                for ((label, &v), &at) in labels.iter_mut().zip(&v).zip(&at) {
                    // the first code from x on, or the last of all, and the one before it
                    let (next, before) = (at.min(self.last), at.min(self.last).saturating_sub(1));
                    let (far, near) = ((self.codes[next] - v).abs(), (v - self.codes[before]).abs());
                    let (a, b) = (self.places[next], self.places[before]);
                    *label = if near < far || (near == far && b < a) { b } else { a };
                }
            }
            Ok(())
        })
    }
}

/// codebook_sums(x, labels) -> total, size; k: the sums of the rows of each label, and how many they are
pub fn sums(t: &[Tensor], _: &[Scalar]) -> Result<()> {
    let (labels, (n, d)) = (t[1].slice::<i64>()?, t[0].rows());
    let (total, size) = (t[2].slice_mut::<f64>()?, t[3].slice_mut::<f64>()?);
    let k = size.len();
    if let Some(label) = labels.iter().find(|&&l| usize::try_from(l).map_or(true, |l| l >= k)) {
        return Err(Error::Value(format!("labels must lie within 0 and {}, got {label}", k as i64 - 1)));
    }
    by_float!(&t[0], T => {
        let x = t[0].slice::<T>()?;
        // at most eight tables, whatever the threads
        let each = n.div_ceil(8).max(BLOCK);
        let parts = blocks::map(n, each, n.saturating_mul(d), |rows| {
            let (mut sum, mut count) = (try_vec(k * d, 0.0)?, try_vec(k, 0.0)?);
            for i in rows {
                let label = labels[i] as usize;
                count[label] += 1.0;
                for (sum, x) in sum[label * d..(label + 1) * d].iter_mut().zip(&x[i * d..(i + 1) * d]) {
                    *sum += x.to_f64();
                }
            }
            Ok((sum, count))
        })?;
        total.fill(0.0);
        size.fill(0.0);
        for (sum, count) in parts {
            total.iter_mut().zip(sum).for_each(|(t, s)| *t += s);
            size.iter_mut().zip(count).for_each(|(t, s)| *t += s);
        }
        Ok(())
    })
}
