//! Quantizers: the table of the family. The one rule: codes are integers of one byte, decided by the quotient x/s in the
//! compute type, and the shape of a scale says to which elements it belongs.

mod affine;
mod codebook;
mod drawn;
mod encode;
mod fake;
mod fixed;
mod gguf;
mod grain;
mod integers;
mod kmeans;
mod l1;
mod layout;
mod ldlq;
mod log;
mod lookup;
mod micro;
mod mini;
mod product;
mod quantile;
mod range;
mod scales;
mod share;
mod spread;
mod table;
#[cfg(test)]
mod tests;
mod threshold;

use base::wide::wide;
use base::{Error, Op, Tensor, by_float, ops};
use drivers::knapsack::{self, Method};

/// The tables of the family.
pub static TABLES: &[&[Op]] = &[OPS];

pub static OPS: &[Op] = ops! {
    quantize(x[*], scale[*], zero_point[*]?; lo: int, hi: int, form: int, rounding: int, seed: int, saturate: bool)
        -> (q[x]: lo < 0 ? int8 : uint8) = affine::quantize;
    dequantize(q[*], scale[*], zero_point[*]?; dtype: int) -> (x[q]: float(dtype)) = affine::dequantize;
    float_encode(x[*]; exponent: int, mantissa: int, rounding: int, seed: int, nan: int) -> (q[x]: uint8) = mini::encode;
    float_decode(q[*]; exponent: int, mantissa: int, dtype: int) -> (x[q]: float(dtype)) = mini::decode;
    fake_quantize(x[*], scale[*], zero_point[*]?; lo: int, hi: int, form: int, rounding: int, seed: int)
        -> (y[x]) in place = fake::forward;
    fake_quantize_bwd(g[*], x[*], scale[*], zero_point[*]?; lo: int, hi: int, form: int) -> (dx[x]) in place = fake::backward;
    fake_quantize_lsq(x[*], scale[*], zero_point[*]?; lo: int, hi: int, form: int, factor) -> (y[x]) in place = fake::forward;
    fake_quantize_lsq_bwd(g[*], x[*], scale[*], zero_point[*]?; lo: int, hi: int, form: int, factor)
        -> (dx[x], dscale[scale], dzero_point[zero_point]) in place = fake::backward_lsq;
    quantize_log(x[*], scale[*]; bits: int, half: bool, saturate: bool) -> (q[x]: uint8) = log::quantize;
    dequantize_log(q[*], scale[*]; bits: int, half: bool, dtype: int) -> (x[q]: float(dtype)) = log::dequantize;
    fake_quantize_log(x[*], scale[*]; bits: int, half: bool) -> (y[x]) in place = log::fake;
    fake_quantize_log_bwd(g[*], x[*], scale[*]; bits: int, half: bool) -> (dx[x]) in place = log::backward;
    value_range(x[*]; axes: int, group: int, saturate: bool)
        -> (low[grain(x, axes, group)]: compute, high[grain(x, axes, group)]: compute) = range::value_range;
    row_quantiles(x[b.., d]; low, high, magnitude: bool, saturate: bool)
        -> (bottom[b.., 1]: compute, top[b.., 1]: compute) = quantile::row_quantiles;
    row_threshold(x[b.., d]; codes: int, symmetric: bool, saturate: bool) -> (threshold[b.., 1]: compute)
        = threshold::row_threshold;
    value_spread(x[*]; axes: int, group: int, laplace: bool, saturate: bool)
        -> (mean[grain(x, axes, group)]: compute, spread[grain(x, axes, group)]: compute) = spread::value_spread;
    best_share(x[*], scale[*], zero_point[*]?; lo: int, hi: int, tried: int, step, power) -> (best[scale])
        = share::best_share;
    encode_symmetric(x[b.., k]; bits: int, group: int, saturate: bool)
        -> (data[b.., (k * bits + 7) / 8]: bits == 8 ? int8 : uint8, scale[b.., group ? k / group : 1]: compute)
        = encode::symmetric;
    encode_affine(x[b.., k]; bits: int, group: int, saturate: bool)
        -> (data[b.., (k * bits + 7) / 8]: uint8, scale[b.., group ? k / group : 1]: compute,
            zero_point[b.., group ? k / group : 1]: uint8)
        = encode::affine;
    encode_table(x[b.., k], table[c]; group: int, peer: bool, saturate: bool)
        -> (data[b.., c == 16 ? (k + 1) / 2 : k]: uint8, scale[b.., group ? k / group : 1]: compute) = table::encode_table;
    encode_float(x[b.., k], outer[*]?; exponent: int, mantissa: int, group: int, scaling: int, saturate: bool)
        -> (data[b.., (k * (1 + exponent + mantissa) + 7) / 8]: uint8, scale[b.., group ? k / group : 1]: uint8)
        = micro::encode_float;
    decode(data[b.., w], scale[*], zero_point[*]?; bits: int, last: int, dtype: int)
        -> (x[b.., last]: float(dtype)) = encode::decode;
    decode_table(data[b.., w], scale[*], table[c], outer[*]?; bits: int, last: int, dtype: int)
        -> (x[b.., last]: float(dtype)) = lookup::decode_table;
    encode_gguf(x[b.., k]; kind: int, bytes: int, saturate: bool) -> (data[b.., k / 32 * bytes]: uint8) = gguf::encode_gguf;
    decode_gguf(data[b.., w]; kind: int, last: int, dtype: int) -> (x[b.., last]: float(dtype)) = gguf::decode_gguf;
    ldlq(w[n, k], ldl[k, k], order[k], scale[*], zero_point[*]?, codebook[c]?; lo: int, hi: int, damp)
        -> (q[w]: lo < 0 ? int8 : uint8, error[n]: float64) = ldlq::ldlq;
    bit_allocate(loss[l, k], cost[l, k]; budget, method: int) -> (choice[l]: int32, sums[3]: float64)
        = |t, s| knapsack::allocate(t, s[0].float(), Method::from_code(s[1].int())?, "method='lagrangian'");
    pack(q[b.., k]; bits: int, words: bool)
        -> (w[b.., words ? (k * bits + 31) / 32 : (k * bits + 7) / 8]: words ? int32 : uint8) = layout::pack;
    panels(q[o, k], scale[o, g], zero_point[*]?; bits: int, affine: bool)
        -> (w[(o + 15) / 16, k ? g * ((affine ? 128 : 64) + (k / g + 7) / 8 * 16 * bits) : 0]: uint8) = product::panels;
    packed_linear(x[b.., k], w[p, t], bias[*]?, table[*]?;
        outs: int, inputs: int, bits: int, groups: int, affine: bool, integers: bool) -> (y[b.., outs]) = product::linear;
    packed_activated(x[b.., k], w[p, t], bias[*]?, table[*]?;
        outs: int, inputs: int, bits: int, groups: int, affine: bool, integers: bool, activation: int)
        -> (y[b.., outs]) = product::activated;
    packed_codes(x[b.., k], w[p, t], bias[*]?, table[*]?;
        outs: int, inputs: int, bits: int, groups: int, affine: bool, integers: bool, activation: int,
        scale, zero_point: int, lo: int, hi: int)
        -> (q[b.., outs]: lo < 0 ? int8 : uint8) = product::codes;
    packed_linear_bwd(g[b.., o], w[p, t], bias[*]?, table[*]?;
        outs: int, inputs: int, bits: int, groups: int, affine: bool, integers: bool, needs: needs)
        -> (dx[b.., inputs]?, dbias[bias]?) = product::linear_bwd;
    packed_int8(a[b.., k], w[p, t]; outs: int, inputs: int) -> (y[b.., outs]: int32) = product::int8;
    shift_exp(q[*]; s, n: int) -> (e[q]: int64) = integers::shift_exp;
    shiftmax(q[b.., d]; s, bits: int) -> (p[q]: int32) = integers::shiftmax;
    shift_gelu(q[b.., d]; s, bits: int) -> (y[q]: int32) = integers::shift_gelu;
    int_layernorm(q[b.., d]; newton: bool) -> (y[q]: int32) = integers::layernorm;
    requantize(z[*], m[*], e[*]; lo: int, hi: int, size: int)
        -> (q[z]: size == 4 ? int32 : size == 2 ? int16 : lo < 0 ? int8 : uint8) = integers::requantize;
    fixed_point(x[*]; wl: int, fl: int, random: bool, seed: int) -> (y[x]) in place = fixed::forward;
    fixed_point_bwd(g[*], x[*]; wl: int, fl: int) -> (dx[x]) in place = fixed::backward;
    l1_normalize(x[b.., d]) -> (y[x]) = |t, _| l1::forward(t);
    l1_normalize_bwd(g[b.., d], x[b.., d]) -> (dx[x]) = |t, _| l1::backward(t);
    codebook_assign(x[n, d], c[m, d]; top: int, metric: int) -> (labels[n, top]: int64)
        = |t, s| wide(t, 2, |t| by_float!(wide t[0], T => codebook::assign::<T>(t, s)));
    codebook_sums(x[n, d], labels[n]; k: int) -> (total[k, d]: float64, size[k]: float64) = codebook::sums;
    kmeans_1d(x[n], weights[n]?; k: int) -> (labels[n]: int64, centers[k]: float64, inertia[]: float64) = kmeans::kmeans;
    unpack(w[b.., n]; bits: int, last: int, signed: bool) -> (q[b.., last]: signed ? int8 : uint8) = layout::unpack;
};

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
