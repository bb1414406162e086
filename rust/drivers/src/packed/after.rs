//! What is done with a complete sum before it is rounded. The one rule: functions are those of f64 lanes, whatever the data.

use base::math::{erf, exp};
use base::simd::*;
use base::{Error, Result};

/// A function of each output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    Nothing,
    /// max(v, 0)
    Relu,
    /// v Φ(v) = v (1 + erf(v/√2)) / 2
    Gelu,
    /// v / (1 + e^−v)
    Silu,
}

impl After {
    pub fn from_code(code: i64) -> Result<After> {
        Ok(match code {
            0 => After::Nothing,
            1 => After::Relu,
            2 => After::Gelu,
            3 => After::Silu,
            other => return Err(Error::Value(format!("activation {other} is not 0, 1, 2 or 3"))),
        })
    }

    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, v: f64x8<S>) -> f64x8<S> {
        match self {
            After::Nothing => v,
            After::Relu => v.simd_lt(0.0).select(f64x8::splat(s, 0.0), v),
            After::Gelu => v * 0.5 * (erf(s, v * std::f64::consts::FRAC_1_SQRT_2) + 1.0),
            After::Silu => v / (exp(s, -v) + 1.0),
        }
    }

    /// Of f32 lanes, rounded once.
    #[inline(always)]
    pub fn single<S: Simd>(self, s: S, v: f32x16<S>) -> f32x16<S> {
        if self == After::Nothing {
            return v;
        }
        let (a, b) = v.widen();
        self.lanes(s, a).narrow(self.lanes(s, b))
    }

    /// Of the sixteen outputs of a panel.
    pub fn panel(self, v: &mut [f64; 16]) {
        struct Panel<'a>(After, &'a mut [f64; 16]);
        impl Kernel for Panel<'_> {
            type Output = ();
            #[inline(always)]
            fn run<S: Simd>(self, s: S) {
                for v in self.1.chunks_exact_mut(8) {
                    self.0.lanes(s, f64x8::from_slice(s, v)).store_slice(v);
                }
            }
        }
        if self != After::Nothing {
            dispatch(Panel(self, v));
        }
    }
}
