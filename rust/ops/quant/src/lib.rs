//! Quantizers: the table of the family. The one rule: codes are integers of one byte, decided by the quotient x/s in the
//! compute type, and the shape of a scale says to which elements it belongs.

mod affine;
mod encode;
mod fake;
mod grain;
mod layout;
mod range;
mod scales;
#[cfg(test)]
mod tests;

use base::{Error, Kind, Op, Rule, Tensor};

const AFFINE: &[&str] = &["x", "scale", "zero_point"];
const BACK: &[&str] = &["g", "x", "scale", "zero_point"];
const CODES: &[(&str, Kind)] = &[("lo", Kind::Int), ("hi", Kind::Int), ("form", Kind::Int)];
const LSQ: &[(&str, Kind)] = &[("lo", Kind::Int), ("hi", Kind::Int), ("form", Kind::Int), ("factor", Kind::Float)];

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = &[
    Op {
        name: "quantize",
        inputs: AFFINE,
        vectors: 0,
        outputs: &[("q", Rule::Custom)],
        scalars: &[
            ("lo", Kind::Int),
            ("hi", Kind::Int),
            ("form", Kind::Int),
            ("rounding", Kind::Int),
            ("seed", Kind::Int),
            ("saturate", Kind::Bool),
        ],
        alias: false,
        run: affine::quantize,
    },
    Op {
        name: "dequantize",
        inputs: &["q", "scale", "zero_point"],
        vectors: 0,
        outputs: &[("x", Rule::Custom)],
        scalars: &[("dtype", Kind::Int)],
        alias: false,
        run: affine::dequantize,
    },
    Op {
        name: "fake_quantize",
        inputs: AFFINE,
        vectors: 0,
        outputs: &[("y", Rule::Like(0))],
        scalars: CODES,
        alias: true,
        run: fake::forward,
    },
    Op {
        name: "fake_quantize_bwd",
        inputs: BACK,
        vectors: 0,
        outputs: &[("dx", Rule::Like(1))],
        scalars: CODES,
        alias: true,
        run: fake::backward,
    },
    Op {
        name: "fake_quantize_lsq",
        inputs: AFFINE,
        vectors: 0,
        outputs: &[("y", Rule::Like(0))],
        scalars: LSQ,
        alias: true,
        run: fake::forward,
    },
    Op {
        name: "fake_quantize_lsq_bwd",
        inputs: BACK,
        vectors: 0,
        outputs: &[("dx", Rule::Like(1)), ("dscale", Rule::Like(2)), ("dzero_point", Rule::Like(3))],
        scalars: LSQ,
        alias: true,
        run: fake::backward_lsq,
    },
    Op {
        name: "value_range",
        inputs: &["x"],
        vectors: 0,
        outputs: &[("low", Rule::Custom), ("high", Rule::Custom)],
        scalars: &[("axes", Kind::Int), ("group", Kind::Int), ("saturate", Kind::Bool)],
        alias: false,
        run: range::value_range,
    },
    Op {
        name: "encode_symmetric",
        inputs: &["x"],
        vectors: 0,
        outputs: &[("data", Rule::Custom), ("scale", Rule::Custom)],
        scalars: &[("bits", Kind::Int), ("group", Kind::Int), ("saturate", Kind::Bool)],
        alias: false,
        run: encode::symmetric,
    },
    Op {
        name: "encode_affine",
        inputs: &["x"],
        vectors: 0,
        outputs: &[("data", Rule::Custom), ("scale", Rule::Custom), ("zero_point", Rule::Custom)],
        scalars: &[("bits", Kind::Int), ("group", Kind::Int), ("saturate", Kind::Bool)],
        alias: false,
        run: encode::affine,
    },
    Op {
        name: "decode",
        inputs: &["data", "scale", "zero_point"],
        vectors: 0,
        outputs: &[("x", Rule::Custom)],
        scalars: &[("bits", Kind::Int), ("last", Kind::Int), ("dtype", Kind::Int)],
        alias: false,
        run: encode::decode,
    },
    Op {
        name: "pack",
        inputs: &["q"],
        vectors: 0,
        outputs: &[("w", Rule::Custom)],
        scalars: &[("bits", Kind::Int), ("words", Kind::Bool)],
        alias: false,
        run: layout::pack,
    },
    Op {
        name: "unpack",
        inputs: &["w"],
        vectors: 0,
        outputs: &[("q", Rule::Custom)],
        scalars: &[("bits", Kind::Int), ("last", Kind::Int), ("signed", Kind::Bool)],
        alias: false,
        run: layout::unpack,
    },
];

fn arrays(expected: usize, got: &[Tensor]) -> Error {
    Error::Type(format!("expected {expected} arrays, got {}", got.len()))
}

fn shapes(name: &str, t: &Tensor, like: &Tensor) -> Error {
    Error::Value(format!("{name} has shape {:?}, expected {:?}", t.shape(), like.shape()))
}

fn non_finite() -> Error {
    Error::Value(
        "x holds non-finite values (nan='zero' takes NaN for 0 and infinities for the ends of the range)".into(),
    )
}
