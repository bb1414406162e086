//! How statistics become what is taken away and divided by. The one rule: of segments over a power of two, what is given and
//! added is brought there too.

use base::near::scaled;
use base::{Error, Result, Scalar, Tensor};
use drivers::segments::moments::Moment;
use drivers::segments::places;

/// What is taken away and divided by.
#[derive(Clone, Copy, PartialEq)]
pub enum Mode {
    Var,
    Rms,
    Crms,
    Centre,
}

/// How statistics become μ and r.
pub struct Rule {
    pub mode: Mode,
    pub eps: f64,
    pub correction: f64,
    pub alpha: f64,
    /// μ₀ and v₀, empty where none are given.
    pub fixed: [Vec<f64>; 2],
    /// By which powers of two data were divided, of segments that were far; empty where none was.
    pub by: Vec<i32>,
}

impl Rule {
    pub fn new(s: &[Scalar], fixed: [&Tensor; 2], segments: usize) -> Result<Self> {
        let mode = match s[2].int() {
            0 => Mode::Var,
            1 => Mode::Rms,
            2 => Mode::Crms,
            3 => Mode::Centre,
            other => return Err(Error::Value(format!("there is no mode {other}"))),
        };
        let (eps, alpha) = (s[3].float(), s[5].float());
        if !(eps >= 0.0 && eps.is_finite()) {
            return Err(Error::Value(format!("eps must be finite and not negative, got {eps}")));
        }
        let given = |name, t: &Tensor| {
            if t.shape() == [0] && alpha == 0.0 {
                return Ok(Vec::new());
            }
            t.expect(name, segments)?;
            places::numbers(t)
        };
        let fixed = [given("mean", fixed[0])?, given("var", fixed[1])?];
        Ok(Rule { mode, eps, correction: s[4].float(), alpha, fixed, by: Vec::new() })
    }

    /// Whether nothing is asked of the data.
    pub fn given(&self) -> bool {
        self.alpha == 1.0
    }

    /// The power of two of a segment.
    pub fn power(&self, i: usize) -> i32 {
        self.by.get(i).map_or(0, |e| *e)
    }

    /// μ and r of a segment, of what is left of it by its power of two.
    pub fn unit(&self, i: usize, m: Moment) -> [f64; 2] {
        let Moment { w, mean, m2 } = m;
        let e = self.power(i);
        let length = |v: f64| if e == 0 { v } else { scaled(v, -e) };
        let square = |v: f64| length(length(v));
        let over = |v: f64, w: f64| if w > 0.0 { v / w } else { f64::NAN };
        let (mut mu, mut v) = match self.mode {
            Mode::Var => (mean, over(m2, w - self.correction)),
            Mode::Rms => (0.0, over(m2, w) + mean * mean),
            Mode::Crms => (0.0, (m2 + w * mean * mean + (w * mean) * (w * mean)) / (w + 1.0)),
            Mode::Centre => return [mean, scaled(1.0, e)],
        };
        if self.given() {
            return [self.fixed[0][i], 1.0 / (self.fixed[1][i] + self.eps).sqrt()];
        }
        if self.alpha != 0.0 {
            mu = self.alpha * length(self.fixed[0][i]) + (1.0 - self.alpha) * mu;
            v = self.alpha * square(self.fixed[1][i]) + (1.0 - self.alpha) * v;
        }
        [mu, 1.0 / (v + square(self.eps)).sqrt()]
    }
}
