//! The one rule: what a signature says is read back from shapes.

use super::*;

fn made(sig: &(&'static str, &'static str), shapes: &[&[usize]], scalars: &[Scalar]) -> Vec<(Vec<usize>, Dtype)> {
    let sig = Signature::parse("op", sig.0, sig.1).unwrap();
    let inputs = tensors(shapes);
    let sizes = sig.bind(&inputs).unwrap();
    let out = |i| sig.output(i, &sizes, &inputs, scalars).map(|w| (w.shape().to_vec(), w.dtype)).unwrap();
    (0..sig.outputs.len()).map(out).collect()
}

fn tensors<'a>(shapes: &[&[usize]]) -> Vec<Tensor<'a>> {
    // SAFETY: only shapes are read.
    let t =
        |s: &&[usize]| unsafe { Tensor::new(std::ptr::dangling_mut::<f32>().cast(), s, Dtype::F32, false).unwrap() };
    shapes.iter().map(t).collect()
}

#[test]
fn rows_broadcast_to_the_widest() {
    let sig = ("g[.., d], x[.., d], c[.., 1]; eps", "y[.., d], n[..], dx[x], dc[c]");
    let got = made(&sig, &[&[5], &[2, 3, 5], &[]], &[Scalar::Float(0.0)]);
    let shapes: Vec<_> = got.iter().map(|(s, _)| &s[..]).collect();
    assert_eq!(shapes, [&[2, 3, 5][..], &[2, 3], &[2, 3, 5], &[]]);
}

#[test]
fn lists_are_like_lists() {
    let sig = Signature::parse("op", "xs * [*], c[n]; k: int", "ys * [xs]?, d[n]: float64").unwrap();
    assert!(sig.lists() && sig.inputs[0].many && !sig.inputs[1].many && sig.outputs[0].many && !sig.outputs[1].many);
    for (inputs, outputs) in
        [("xs*[n]", "ys*[xs]"), ("xs*[*], c[n]", "ys*[c]"), ("xs*[*]", "y[xs]"), ("xs*[*]", "y*[3]")]
    {
        assert!(Signature::parse("op", inputs, outputs).is_err());
    }
}

#[test]
fn one_row_for_none_is_none() {
    let sig = ("x[.., d], w[.., d]?", "y[.., d], dw[w]");
    for w in [&[5][..], &[0, 5], &[0]] {
        assert_eq!(made(&sig, &[&[0, 5], w], &[])[0].0, [0, 5]);
    }
}

#[test]
fn letters_make_sizes() {
    let sig = (
        "data[e], indptr[m + 1], x[b.., k, n], bias[m]?; hi: int",
        "y[b.., m, 2 * n - 1]: hi < 3 ? int64 : x, w[b * k / 4]",
    );
    let got = made(&sig, &[&[9], &[6], &[2, 3, 4, 7], &[0]], &[Scalar::Int(2)]);
    assert_eq!(got, [(vec![2, 3, 5, 13], Dtype::I64), (vec![6], Dtype::F32)]);
    let parsed = Signature::parse("op", sig.0, sig.1).unwrap();
    for bad in [
        [&[9][..], &[0], &[4, 7], &[0]],
        [&[9], &[6], &[7], &[0]],
        [&[9], &[6], &[4, 7], &[4]],
        [&[9, 9], &[6], &[4, 7], &[5]],
    ] {
        assert!(matches!(parsed.bind(&tensors(&bad)), Err(Error::Value(_))), "{bad:?}");
    }
}

#[test]
fn leading_axes_of_one_name_are_alike() {
    let sig = Signature::parse("op", "x[b.., n, d], y[b.., m, d]", "d[b.., n, m]").unwrap();
    assert!(sig.bind(&tensors(&[&[2, 3, 4], &[2, 5, 4]])).is_ok());
    assert!(sig.bind(&tensors(&[&[2, 3, 4], &[5, 4]])).is_err());
    assert!(sig.bind(&tensors(&[&[2, 3, 4], &[2, 5, 3]])).is_err());
}

#[test]
fn gradients_that_nobody_needs_are_empty() {
    let sig = ("x[*], y[*]; needs: needs", "dx[x]?, dy[y]?");
    let got = made(&sig, &[&[3], &[4]], &[Scalar::Int(2)]);
    assert_eq!(got, [(vec![0], Dtype::F32), (vec![4], Dtype::F32)]);
}

#[test]
fn scales_have_the_shape_of_their_grain() {
    let sig = ("x[*]; axes: int, group: int", "low[grain(x, axes, group)]: compute");
    for (axes, group, want) in [(0, 4, vec![2, 3, 2]), (0b101, 0, vec![2, 1, 8]), (0, 0, vec![])] {
        assert_eq!(made(&sig, &[&[2, 3, 8]], &[Scalar::Int(axes), Scalar::Int(group)])[0].0, want);
    }
}

#[test]
fn what_is_saved_comes_last() {
    let sig = Signature::parse("op", "x[n, d]", "loss[n], (lse[n]: float64)").unwrap();
    assert_eq!((sig.shown(), sig.outputs.len()), (1, 2));
    assert!(Signature::parse("op", "x[n, d]", "(lse[n]: float64), loss[n]").is_err());
}

#[test]
fn what_is_written_wrong_is_refused() {
    for (inputs, outputs) in [
        ("x[d", "y[d]"),
        ("x[d], d[n]", "y[d]"),
        ("x[d]; d", "y[d]"),
        ("x[a.., d], y[b.., d]", "z[d]"),
        ("x[d]; k: word", "y[d]"),
        ("x[d]", "y[q]"),
        ("x[d]", "y[d]: number"),
    ] {
        assert!(Signature::parse("op", inputs, outputs).is_err(), "{inputs} -> {outputs}");
    }
}

#[test]
fn rows_are_of_one_type_but_for_weights() {
    let sig = Signature::parse("op", "g[.., d], x[.., d], w[.., d]?: x | float32", "y[.., d]").unwrap();
    let mut numbers = [0u64; 4];
    let mut of = |dtype: Dtype| {
        // SAFETY: only shapes and types are read.
        unsafe { Tensor::new(numbers.as_mut_ptr().cast(), &[4], dtype, false).unwrap() }
    };
    let [double, single, half, brain] = FLOATS.map(&mut of);
    for fine in [[half, half, half], [half, half, single], [brain, brain, single], [double, double, double]] {
        assert!(sig.bind(&fine).is_ok());
    }
    for bad in [[half, half, brain], [half, single, single], [double, double, single], [single, single, half]] {
        assert!(matches!(sig.bind(&bad), Err(Error::Type(_))));
    }
    for bad in ["x[d], w[d]: y | float32", "x[d], w[d]: x", "x[d], w[d]: x | float64"] {
        assert!(Signature::parse("op", bad, "y[d]").is_err(), "{bad}");
    }
}
