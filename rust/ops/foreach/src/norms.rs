//! Norms of lists. The one rule: no square overflows or vanishes on the way: where a sum leaves the middle of f64 its entries are
//! summed again, by a power of two beside their largest.

use crate::count;
use base::simd::{Kernel, Simd, dispatch};
use base::{Error, Result, Scalar, Tensor, try_vec};
use drivers::flat::Real;
use drivers::lists::{self, Pass, Piece, Plan, Reader, Room, Sum};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    One,
    Two,
    Most,
}

/// Which rows belong together: row r of entry i is number `ids[i] · batch + r` of the result.
struct Groups<'a> {
    ids: &'a [i64],
    batch: usize,
}

impl<'a> Groups<'a> {
    /// As said, of entries that all have the batch as their first axis where there are samples.
    fn new(xs: &[Tensor], ids: &Tensor<'a>, groups: usize, batch: &Scalar, samples: &Scalar) -> Result<Self> {
        let batch = usize::try_from(batch.int()).map_err(|_| Error::Value("batch must not be negative".into()))?;
        let samples = samples.bool();
        if !samples && batch != 1 {
            return Err(Error::Value(format!("batch must be 1 without samples, got {batch}")));
        }
        let ids = ids.slice::<i64>()?;
        if ids.len() != xs.len() {
            return Err(Error::Value(format!("{} entries of xs, {} groups", xs.len(), ids.len())));
        }
        for (i, (x, &id)) in xs.iter().zip(ids).enumerate() {
            if !x.dtype().is_float() {
                return Err(Error::Type(format!("xs[{i}] must be of a float type, got {}", x.dtype().name())));
            }
            if samples && x.shape().first() != Some(&batch) {
                let shape = x.shape();
                return Err(Error::Value(format!("xs[{i}] must have {batch} samples, got shape {shape:?}")));
            }
            if usize::try_from(id).map_or(true, |id| id >= groups) {
                return Err(Error::Value(format!("xs[{i}] is in group {id} of {groups}")));
            }
        }
        Ok(Groups { ids, batch })
    }
    fn of(&self, p: Piece) -> usize {
        self.row(p.row)
    }
    fn row(&self, row: usize) -> usize {
        self.ids[row / self.batch] as usize * self.batch + row % self.batch
    }
    fn plan(&self, xs: &[Tensor], wanted: impl Fn(usize) -> bool) -> Result<Plan> {
        let lens: Vec<_> = xs.iter().map(Tensor::len).collect();
        Plan::of(&lens, self.batch, wanted)
    }
}

/// The largest magnitude, NaN above infinity.
struct Measure<'a>(&'a [f64]);
impl Kernel for Measure<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        f64::amax::<false>(self.0)
    }
}

struct Powers<'a> {
    order: Order,
    groups: &'a Groups<'a>,
    /// Of each number of the result, the power of two by which its entries are divided.
    scale: &'a [i32],
}

impl Pass for Powers<'_> {
    type Gather = (Sum, f64);
    fn chunk(&self, (sum, top): &mut (Sum, f64), at: Piece, lists: &Reader, Room(room, _): &mut Room, _: &mut [f64]) {
        let x = &mut room[..at.len];
        lists.read(0, x);
        if let Some(&e) = self.scale.get(self.groups.of(at)) {
            let (a, b) = (f64::power(-e / 2), f64::power(-e - -e / 2));
            for v in x.iter_mut() {
                *v = *v * a * b;
            }
        }
        match self.order {
            Order::One => *sum = sum.and(lists::absolute(x)),
            Order::Two => *sum = sum.and(lists::dot(x, x)),
            Order::Most => *top = most(*top, dispatch(Measure(x))),
        }
    }
}

/// The larger of two that are not negative, NaN above infinity.
fn most(a: f64, b: f64) -> f64 {
    f64::from_bits(a.to_bits().max(b.to_bits()))
}

/// What squares may add up to without loss.
const MIDDLE: std::ops::Range<f64> = f64::from_bits((1023 - 900) << 52)..f64::from_bits((1023 + 900) << 52);

/// e of v = m 2^e, 1 ≤ m < 2, of a positive number.
fn exponent(v: f64) -> i32 {
    if v < f64::MIN_POSITIVE { (v * f64::power(54)).exponent() - 54 } else { v.exponent() }
}

/// n_γ = (Σ_{i∈γ} Σ |x_i|^ord)^{1/ord}, of samples apart
pub fn forward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    let (xs, rest) = t.split_at(count(s, 4)?);
    let [ids, norm] = [&rest[0], &rest[1]];
    let order = match s[3].float() {
        1.0 => Order::One,
        2.0 => Order::Two,
        f64::INFINITY => Order::Most,
        other => return Err(Error::Value(format!("ord must be 1, 2 or inf, got {other}"))),
    };
    let groups = usize::try_from(s[0].int()).map_err(|_| Error::Value("groups must not be negative".into()))?;
    let of = Groups::new(xs, ids, groups, &s[1], &s[2])?;
    norm.expect_shape("norm", &[groups, of.batch])?;
    let out = groups * of.batch;
    // of the groups that are wanted, the sum or the largest
    let walk = |order, scale: &[i32], wanted: &[bool]| {
        let mut all = try_vec(out, (Sum::default(), 0.0))?;
        let plan = of.plan(xs, |row| wanted.is_empty() || wanted[of.row(row)])?;
        for (piece, (sum, top)) in lists::walk(&Powers { order, groups: &of, scale }, &plan, &[xs], &[])? {
            let one: &mut (Sum, f64) = &mut all[of.of(piece)];
            *one = (one.0.and(sum), most(one.1, top));
        }
        Ok::<_, Error>(all)
    };
    let mut all = walk(order, &[], &[])?;
    let lost = |sum: &Sum| order == Order::Two && !sum.hi.is_nan() && !MIDDLE.contains(&sum.hi);
    let far: Vec<bool> = all.iter().map(|(sum, _)| lost(sum)).collect();
    let mut scale = Vec::new();
    if far.contains(&true) {
        let tops = walk(Order::Most, &[], &far)?;
        let fine: Vec<bool> = tops.iter().map(|&(_, top)| top > 0.0 && top.is_finite()).collect();
        scale = tops.iter().zip(&fine).map(|(a, &fine)| if fine { exponent(a.1) } else { 0 }).collect();
        let again = walk(order, &scale, &fine)?;
        for (i, one) in all.iter_mut().enumerate().filter(|(i, _)| far[*i]) {
            one.0 = if fine[i] { again[i].0 } else { Sum { hi: tops[i].1, lo: 0.0 } };
        }
    }
    let out = norm.slice_mut::<f64>()?;
    for (i, (n, (sum, top))) in out.iter_mut().zip(all).enumerate() {
        *n = match order {
            Order::Most => top,
            Order::One => sum.get(),
            Order::Two => {
                let (root, e) = (sum.get().sqrt(), scale.get(i).copied().unwrap_or(0));
                root * f64::power(e / 2) * f64::power(e - e / 2)
            }
        };
    }
    Ok(())
}

/// The norm's slope: dx = g x/n, nothing where n = 0.
struct Slope<'a> {
    groups: &'a Groups<'a>,
    g: &'a [f64],
    norm: &'a [f64],
}

struct Along<'a>(&'a mut [f64], f64, f64);
impl Kernel for Along<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Along(y, n, g) = self;
        for v in y.iter_mut() {
            *v = *v / n * g;
        }
    }
}

impl Pass for Slope<'_> {
    type Gather = ();
    fn chunk(&self, (): &mut (), at: Piece, lists: &Reader, _: &mut Room, y: &mut [f64]) {
        let own = self.groups.of(at);
        if self.norm[own] == 0.0 {
            y.fill(0.0);
        } else {
            lists.read(0, y);
            dispatch(Along(y, self.norm[own], self.g[own]));
        }
    }
}

pub fn backward(t: &[Tensor], s: &[Scalar]) -> Result<()> {
    if s[2].float() != 2.0 {
        return Err(Error::Value("only ord=2 has a gradient".into()));
    }
    let n = count(s, 3)?;
    let (g, xs, rest) = (&t[0], &t[1..=n], &t[1 + n..]);
    let (ids, norm, dxs) = (&rest[0], &rest[1], &rest[2..]);
    let groups = norm.shape().first().copied().unwrap_or(0);
    let of = Groups::new(xs, ids, groups, &s[0], &s[1])?;
    norm.expect_shape("norm", &[groups, of.batch])?;
    g.expect_shape("g", &[groups, of.batch])?;
    let pass = Slope { groups: &of, g: g.slice()?, norm: norm.slice()? };
    lists::walk(&pass, &of.plan(xs, |_| true)?, &[xs], dxs).map(drop)
}
