//! Packed products against sums written out, on every path that this machine has.

use super::kernel::Decode;
use super::product::{Path, Tiles, floats, integers};
use super::take::Block;
use super::*;
use base::random::{Source, tag};
use std::sync::Mutex;

fn paths() -> Vec<Path> {
    #[allow(unused_mut)]
    let mut all = vec![Path::Plain];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            all.push(Path::Avx2);
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            all.push(Path::Avx512);
        }
    }
    all
}

struct Case {
    layout: Layout,
    q: Vec<u8>,
    scale: Vec<f32>,
    zero: Option<Vec<f32>>,
    panels: Vec<u8>,
}

fn words(n: usize, seed: u64) -> Vec<u32> {
    let source = Source::new(seed, tag::ROUNDING, 0);
    (0..n.div_ceil(4)).flat_map(|i| source.block(0, i as u32)).take(n).collect()
}

impl Case {
    fn new(outs: usize, inputs: usize, group: usize, bits: usize, affine: bool) -> Case {
        let layout = Layout::new(outs, inputs, group, bits, affine).unwrap();
        let mask = (1u32 << bits) - 1;
        let q: Vec<u8> = words(outs * inputs, 1).into_iter().map(|w| (w & mask) as u8).collect();
        let n = outs * layout.groups();
        let scale: Vec<f32> = words(n, 2).into_iter().map(|w| 0.01 + (w >> 8) as f32 * 1e-8).collect();
        let zero = affine.then(|| words(n, 3).into_iter().map(|w| (w & mask) as f32).collect::<Vec<f32>>());
        let mut panels = vec![0xA5; layout.panels() * layout.panel_bytes()];
        layout.pack(&q, &scale, zero.as_deref(), &mut panels).unwrap();
        Case { layout, q, scale, zero, panels }
    }

    fn weight(&self, out: usize, input: usize) -> (i32, f32) {
        let g = out * self.layout.groups() + input / self.layout.group;
        let z = self.zero.as_ref().map_or(i32::from(self.layout.middle()), |z| z[g] as i32);
        (i32::from(self.q[out * self.layout.inputs + input]) - z, self.scale[g])
    }

    fn weights(&self, decode: Decode) -> Weights<'_> {
        let numbers = match decode {
            Decode::Table => Numbers::Table(&TABLE),
            Decode::Small => Numbers::Small(Small { fraction: 2 }),
            _ => Numbers::Integers,
        };
        Weights { layout: self.layout, panels: &self.panels, numbers }
    }

    /// A row of x with every group filled up by 0.
    fn filled<T: Copy + Default>(&self, row: &[T], out: &mut [T]) {
        out.fill(T::default());
        for (x, out) in row.chunks(self.layout.group).zip(out.chunks_mut(self.layout.filled())) {
            out[..x.len()].copy_from_slice(x);
        }
    }
}

const TABLE: [f32; LANES] =
    [-1.0, -0.7, -0.53, -0.39, -0.28, -0.18, -0.09, 0.0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56, 0.72, 1.0];

fn floats_of(c: &Case, path: Path, decode: Decode, x: &[f32], rows: usize) -> Vec<f32> {
    let tiles = Tiles::new(path, rows);
    let laid = tiles
        .lay(c.layout.width(), |r, out| {
            c.filled(&x[r * c.layout.inputs..][..c.layout.inputs], out);
            Ok(())
        })
        .unwrap();
    let y = Mutex::new(vec![f32::NAN; rows * c.layout.outs]);
    floats(&c.weights(decode), &tiles, &laid, &|block| {
        let mut y = y.lock().unwrap();
        block.rows().for_each(|(row, v)| y[row * c.layout.outs..][block.outs.clone()].copy_from_slice(v));
    })
    .unwrap();
    y.into_inner().unwrap()
}

#[test]
fn floats_are_the_sums_on_every_path_and_in_every_company() {
    for (outs, inputs, group) in [(1, 1, 1), (5, 24, 8), (16, 30, 10), (83, 384, 128), (130, 520, 260), (40, 36, 12)] {
        for (bits, affine) in [(8, false), (8, true), (4, false), (4, true)] {
            let c = Case::new(outs, inputs, group, bits, affine);
            let decode = if bits == 8 { Decode::Eight } else { Decode::Four };
            let most = 29;
            let x: Vec<f32> = words(most * inputs, 5).into_iter().map(|w| w as i32 as f32 * 1e-9).collect();
            let whole = floats_of(&c, paths()[0], decode, &x, most);
            for rows in [1, 2, 3, 4, 5, 7, 12, 13, 29] {
                for path in paths() {
                    let y = floats_of(&c, path, decode, &x, rows);
                    // the same bits, whatever the path and however many rows there are
                    assert_eq!(y, whole[..rows * outs], "{outs} {inputs} {group} {bits} {affine} {rows} {path:?}");
                }
            }
            for (row, x) in x.chunks(inputs).enumerate() {
                for out in 0..outs {
                    let terms = |i: usize| {
                        let (q, s) = c.weight(out, i);
                        f64::from(x[i]) * f64::from(q) * f64::from(s)
                    };
                    let (sum, size) = (0..inputs).map(terms).fold((0.0, 0.0), |(a, b), t| (a + t, b + t.abs()));
                    let error = (f64::from(whole[row * outs + out]) - sum).abs();
                    assert!(error <= 4.0 * f64::from(f32::EPSILON) * (inputs as f64).sqrt() * size);
                }
            }
        }
    }
}

#[test]
fn tables_are_looked_up_on_every_path() {
    let c = Case::new(37, 96, 32, 4, false);
    let x: Vec<f32> = words(6 * 96, 7).into_iter().map(|w| w as i32 as f32 * 1e-9).collect();
    let want = floats_of(&c, Path::Plain, Decode::Table, &x, 6);
    let (row, out) = (3, 21);
    let sum: f64 = (0..96)
        .map(|i| {
            let v = TABLE[usize::from(c.q[out * 96 + i])];
            f64::from(x[row * 96 + i]) * f64::from(v) * f64::from(c.weight(out, i).1)
        })
        .sum();
    assert!((f64::from(want[row * 37 + out]) - sum).abs() < 1e-5);
    for path in paths() {
        for rows in [1, 6] {
            assert_eq!(floats_of(&c, path, Decode::Table, &x, rows), want[..rows * 37]);
        }
    }
}

#[test]
fn small_floats_are_read_on_every_path() {
    let x: Vec<f32> = words(40 * 96, 7).into_iter().map(|w| w as i32 as f32 * 1e-9).collect();
    let c = Case::new(37, 96, 32, 8, false);
    let number = |code: u8| {
        // bias 15, two bits of fraction
        let (power, rest) = (i32::from(code >> 2 & 31), f64::from(code & 3));
        let v = if power == 0 { rest * 2f64.powi(-16) } else { (1.0 + rest / 4.0) * 2f64.powi(power - 15) };
        if code > 127 { -v } else { v }
    };
    for code in 0..=255 {
        assert_eq!(f64::from(Small { fraction: 2 }.number(code)), number(code));
    }
    let w = c.weights(Decode::Small);
    let want = floats_of(&c, Path::Plain, Decode::Small, &x, 40);
    for path in paths() {
        for rows in [1, 6, 40] {
            assert_eq!(floats_of(&c, path, Decode::Small, &x, rows), want[..rows * 37]);
        }
    }
    let near = |y: &[f32]| {
        for (row, y) in y.chunks(37).enumerate() {
            for (out, &y) in y.iter().enumerate() {
                let terms =
                    |i: usize| f64::from(x[row * 96 + i]) * number(c.q[out * 96 + i]) * f64::from(c.weight(out, i).1);
                let (sum, size) = (0..96).map(terms).fold((0.0, 0.0), |(a, b), t| (a + t, b + t.abs()));
                assert!((f64::from(y) - sum).abs() <= 4.0 * f64::from(f32::EPSILON) * 96f64.sqrt() * size);
            }
        }
    };
    near(&want);
    // with tiles, where there are any
    let mut y = vec![0.0; 40 * 37];
    linear::<f32>(&w, Activations::Float, &x, None, After::Nothing, Results::Floats(&mut y)).unwrap();
    near(&y);
}

#[test]
fn integers_are_exact_on_every_path_and_in_every_company() {
    for (outs, inputs, group) in [(1, 1, 1), (5, 24, 8), (16, 30, 10), (83, 384, 128), (130, 520, 260)] {
        for (bits, affine) in [(8, false), (8, true), (4, false), (4, true)] {
            let c = Case::new(outs, inputs, group, bits, affine);
            let (layout, most) = (c.layout, 29);
            let x: Vec<i8> = words(most * inputs, 6).into_iter().map(|w| w as i8).collect();
            for whole in [true, false] {
                for path in paths() {
                    for rows in [1, 2, 5, 12, 29] {
                        let tiles = Tiles::new(path, rows);
                        let filled = |r: usize| {
                            let mut out = vec![0i8; layout.width()];
                            c.filled(&x[r * inputs..][..inputs], &mut out);
                            out
                        };
                        let laid = tiles.lay(layout.width() / 4, |r, out: &mut [i32]| {
                            for (w, b) in out.iter_mut().zip(filled(r).chunks(4)) {
                                *w = i32::from_le_bytes([b[0], b[1], b[2], b[3]].map(|b| b as u8));
                            }
                            Ok(())
                        });
                        let totals = tiles.lay(layout.groups(), |r, out: &mut [i32]| {
                            for (t, x) in out.iter_mut().zip(x[r * inputs..][..inputs].chunks(group)) {
                                *t = x.iter().map(|&x| i32::from(x)).sum();
                            }
                            Ok(())
                        });
                        let y = Mutex::new(vec![f32::NAN; rows * outs]);
                        let take = |block: Block| {
                            let mut y = y.lock().unwrap();
                            block.rows().for_each(|(row, v)| y[row * outs..][block.outs.clone()].copy_from_slice(v));
                        };
                        integers(&c.weights(Decode::Eight), &tiles, &laid.unwrap(), &totals.unwrap(), whole, &take)
                            .unwrap();
                        let y = y.into_inner().unwrap();
                        for row in 0..rows {
                            for out in 0..outs {
                                let mut want = 0f32;
                                let mut sum = 0;
                                for g in 0..layout.groups() {
                                    let part: i32 = (g * group..(g + 1) * group)
                                        .map(|i| i32::from(x[row * inputs + i]) * c.weight(out, i).0)
                                        .sum();
                                    sum += part;
                                    want = (part as f32).mul_add(c.weight(out, g * group).1, want);
                                }
                                let got = y[row * outs + out];
                                if whole {
                                    assert_eq!(got.to_bits() as i32, sum);
                                } else {
                                    assert_eq!(got, want);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn tiles_give_the_same_bits() {
    if !amx::there() {
        eprintln!("this machine has no tiles of AMX");
        return;
    }
    for (outs, inputs, group) in [(16, 64, 64), (83, 384, 128), (130, 512, 512), (40, 192, 64)] {
        for (bits, affine) in [(8, false), (8, true), (4, false), (4, true)] {
            let c = Case::new(outs, inputs, group, bits, affine);
            let w = c.weights(Decode::Eight);
            for rows in [9, 15, 16, 17, 31, 32, 33, 300] {
                let x: Vec<u8> = words(rows * inputs, 6).into_iter().map(|w| w as u8).collect();
                let stride = inputs + 64;
                let mut codes = vec![0; rows * stride];
                for (to, from) in codes.chunks_mut(stride).zip(x.chunks(inputs)) {
                    to[..inputs].copy_from_slice(from);
                }
                let sums = |r: usize, out: &mut [i32]| {
                    for (t, x) in out.iter_mut().zip(x[r * inputs..][..inputs].chunks(group)) {
                        *t = x.iter().map(|&x| i32::from(x as i8)).sum();
                    }
                    Ok(())
                };
                let mut totals = vec![0; rows * c.layout.groups()];
                totals.chunks_mut(c.layout.groups()).enumerate().for_each(|(r, out)| sums(r, out).unwrap());
                let tiles = Tiles::new(Path::Plain, rows);
                let laid = tiles.lay(inputs / 4, |r, out: &mut [i32]| {
                    for (w, b) in out.iter_mut().zip(x[r * inputs..][..inputs].as_chunks().0) {
                        *w = i32::from_le_bytes(*b);
                    }
                    Ok(())
                });
                let (laid, by_tile) = (laid.unwrap(), tiles.lay(c.layout.groups(), sums).unwrap());
                for whole in [false, true] {
                    let both = [0, 1].map(|way| {
                        let y = Mutex::new(vec![f32::NAN; rows * outs]);
                        let take = |block: Block| {
                            let mut y = y.lock().unwrap();
                            block.rows().for_each(|(row, v)| y[row * outs..][block.outs.clone()].copy_from_slice(v));
                        };
                        if way == 0 {
                            integers(&w, &tiles, &laid, &by_tile, whole, &take).unwrap();
                        } else {
                            let rows = amx::integers::Rows { rows, codes: &codes, stride, totals: &totals };
                            amx::sums_of_integers(&w, rows, whole, &take).unwrap();
                        }
                        y.into_inner().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
                    });
                    assert_eq!(both[0], both[1], "{outs} {inputs} {group} {bits} {affine} {rows} {whole}");
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn tiles_of_parts_give_sums_that_are_right() {
    if !amx::there() {
        eprintln!("this machine has no tiles of AMX");
        return;
    }
    for (outs, inputs, group) in [(16, 32, 32), (83, 384, 128), (130, 512, 512), (40, 192, 96)] {
        for (bits, affine) in [(8, false), (8, true), (4, false), (4, true)] {
            let c = Case::new(outs, inputs, group, bits, affine);
            let w = c.weights(if bits == 8 { Decode::Eight } else { Decode::Four });
            for (rows, parts) in [(9, 3), (17, 3), (33, 3), (300, 3), (17, 2), (40, 1)] {
                // numbers of as many bits as their parts have together, and far apart
                let bits = [0xFF00_0000, 0xFFF0_0000, 0xFFFF_FF00][parts - 1];
                let number = |w: u32| (w & bits) as i32 as f32 * 2f32.powi(-31 - (w % 60) as i32);
                let x: Vec<f32> = words(rows * inputs, 9).into_iter().map(number).collect();
                let high = amx::floats::high(inputs, parts);
                let mut numbers = vec![0; rows.div_ceil(amx::HIGH) * high];
                // SAFETY: the machine has tiles, so it has these vectors.
                let split = |(r, x)| unsafe {
                    amx::floats::split(x, parts, r % amx::HIGH, &mut numbers[r / amx::HIGH * high..][..high]).unwrap()
                };
                let back: Vec<f32> = x.chunks(inputs).enumerate().map(split).collect();
                let y = Mutex::new(vec![f32::NAN; rows * outs]);
                let given = amx::floats::Rows { rows, parts, numbers: &numbers, w: &w };
                amx::sums_of_floats(&w, given, &|block| {
                    let mut y = y.lock().unwrap();
                    for (row, v) in block.rows() {
                        let y = &mut y[row * outs..][block.outs.clone()];
                        y.iter_mut().zip(v).for_each(|(y, v)| *y = v * back[row]);
                    }
                })
                .unwrap();
                let y = y.into_inner().unwrap();
                for row in 0..rows {
                    for out in 0..outs {
                        let terms = |i: usize| {
                            let (q, s) = c.weight(out, i);
                            f64::from(x[row * inputs + i]) * f64::from(q) * f64::from(s)
                        };
                        let (sum, size) = (0..inputs).map(terms).fold((0.0, 0.0), |(a, b), t| (a + t, b + t.abs()));
                        let error = (f64::from(y[row * outs + out]) - sum).abs();
                        assert!(error <= 4.0 * f64::from(f32::EPSILON) * (inputs as f64).sqrt() * size);
                    }
                }
            }
        }
    }
}

#[test]
fn long_rows_keep_the_bound_at_its_worst() {
    // each number leaves as much as two parts of 8 bits can leave of it, all to one side; and one stands alone
    let (outs, inputs) = (20, 384);
    let c = Case::new(outs, inputs, inputs, 8, false);
    let rest = 1.0 + 2f32.powi(-9) + 2f32.powi(-17);
    for alone in [false, true] {
        let x: Vec<f32> = (0..16 * inputs)
            .map(|i| {
                let sign = if c.weight(3, i % inputs).0 < 0 { -1.0 } else { 1.0 };
                if alone && i % inputs != i / inputs { 0.0 } else { rest * sign }
            })
            .collect();
        let mut y = vec![0.0; 16 * outs];
        linear::<f32>(&c.weights(Decode::Eight), Activations::Float, &x, None, After::Nothing, Results::Floats(&mut y))
            .unwrap();
        for (i, &y) in y.iter().enumerate() {
            let (row, out) = (i / outs, i % outs);
            let terms = |i: usize| {
                let (q, s) = c.weight(out, i);
                f64::from(x[row * inputs + i]) * f64::from(q) * f64::from(s)
            };
            let (sum, size) = (0..inputs).map(terms).fold((0.0, 0.0), |(a, b), t| (a + t, b + t.abs()));
            assert!((f64::from(y) - sum).abs() <= 4.0 * f64::from(f32::EPSILON) * (inputs as f64).sqrt() * size);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn parts_are_the_number() {
    if !amx::there() {
        return;
    }
    let split = |x: &[f32]| {
        let mut tile = vec![0; amx::floats::high(32, 3)];
        // SAFETY: as above.
        let back = unsafe { amx::floats::split(x, 3, 5, &mut tile) };
        back.map(|back| (back, tile.chunks(512).flat_map(|part| part[5 * 32..][..32].to_vec()).collect::<Vec<_>>()))
    };
    for top in [1.0, f32::MAX, 1e-30, f32::MIN_POSITIVE] {
        let x: Vec<f32> = words(32, 3).into_iter().map(|w| w as i32 as f32 / 2147483648.0 * top).collect();
        let (back, parts) = split(&x).unwrap();
        for (i, &x) in x.iter().enumerate() {
            let sum: f64 = (0..3).map(|p| f64::from(f32::from_bits(u32::from(parts[32 * p + i]) << 16))).sum();
            assert_eq!(sum * f64::from(back), f64::from(x));
        }
    }
    for odd in [f32::NAN, f32::INFINITY, -f32::INFINITY, 1e-32] {
        let mut x = vec![1.0; 32];
        x[7] = odd;
        assert!(split(&x).is_none());
    }
    assert_eq!(split(&[0.0; 32]).unwrap().0, 1.0);
}

#[test]
fn weights_come_back_from_panels() {
    for (bits, affine) in [(8, false), (8, true), (4, false), (4, true)] {
        let c = Case::new(19, 60, 20, bits, affine);
        let mut out = vec![0.0; 20 * LANES];
        for panel in 0..2 {
            for g in 0..3 {
                let bytes = c.layout.panel_bytes();
                let scale = c.layout.numbers(&c.panels[panel * bytes..][..bytes], g, Numbers::Integers, &mut out);
                for lane in 0..LANES.min(19 - panel * LANES) {
                    for i in 0..20 {
                        let (q, s) = c.weight(panel * LANES + lane, g * 20 + i);
                        assert_eq!((out[i * LANES + lane], scale[lane]), (q as f32, s));
                    }
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_packed_is_refused() {
    assert!(Layout::new(4, 10, 3, 8, false).is_err());
    assert!(Layout::new(4, 10, 0, 8, false).is_err());
    assert!(Layout::new(4, 10, 5, 3, false).is_err());
    assert!(Layout::new(usize::MAX, usize::MAX, usize::MAX, 8, false).is_err());
    let layout = Layout::new(1, 8, 8, 4, true).unwrap();
    let mut out = vec![0; layout.panel_bytes() * layout.panels()];
    assert!(layout.pack(&[16; 8], &[1.0], Some(&[0.0]), &mut out).is_err());
    for z in [16.0, -1.0, 0.5, f32::NAN] {
        assert!(layout.pack(&[1; 8], &[1.0], Some(&[z]), &mut out).is_err());
    }
}
