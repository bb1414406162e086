//! Weight, mean and squares about it, of some numbers. The one rule: those of parts are those of the whole, infinities too.

/// W = Σw, μ = Σwx/W and M = Σw(x − μ)².
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub struct Moment {
    pub w: f64,
    pub mean: f64,
    pub m2: f64,
}

impl Moment {
    /// With those that follow (Chan, Golub and LeVeque, 1979).
    #[inline(always)]
    pub fn merge(&mut self, b: Moment) {
        if self.w == 0.0 {
            *self = b;
        } else if b.w != 0.0 {
            let (w, delta) = (self.w + b.w, b.mean - self.mean);
            let (share, m2) = (b.w / w, self.m2 + b.m2);
            // means that are one: nothing moves, infinities neither
            if delta != 0.0 {
                self.mean = match self.mean.is_finite() {
                    true if delta.is_finite() => self.mean + delta * share,
                    true => self.mean * (1.0 - share) + b.mean * share,
                    false => self.mean + b.mean,
                };
            }
            (self.w, self.m2) = (w, m2 + delta * delta * (self.w * share));
        }
    }
    /// From Σw, Σw(x − p) and Σw(x − p)².
    #[inline(always)]
    pub fn about(p: f64, w: f64, s1: f64, s2: f64) -> Moment {
        if w == 0.0 {
            return Moment::default();
        }
        let off = s1 / w;
        // from squares that are no numbers, of finite ones, nothing is taken
        let m2 = if off.is_finite() && !s2.is_finite() { s2 } else { s2 - s1 * off };
        // what rounding leaves below 0 is none
        Moment { w, mean: p + off, m2: if m2 < 0.0 { 0.0 } else { m2 } }
    }
}
