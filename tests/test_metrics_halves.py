"""Metrics of numbers of 16 bits. The one rule: they are read as they are: what they give is that of the same numbers, wider."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from drawn import draw, probabilities
from tersor import metrics


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_numbers_of_16_bits_are_read_as_they_are(kind):
    p = torch.from_numpy(probabilities(50, 3)).to(kind)
    y = torch.from_numpy(draw().integers(0, 3, 50))
    wide = p.double()
    assert metrics.calibration_error(p, y) == metrics.calibration_error(wide, y)
    assert metrics.spearman_corrcoef(p, p.flip(1)).tolist() == metrics.spearman_corrcoef(wide, wide.flip(1)).tolist()
    assert metrics.cka(p, p[:, :2]) == metrics.cka(wide, wide[:, :2])
    assert metrics.neural_collapse(p, y) == metrics.neural_collapse(wide, y)
    assert metrics.residual_contribution(p, p)[0].dtype is kind
    theirs = ml_dtypes.bfloat16 if kind is torch.bfloat16 else np.float16
    q = p.view(torch.int16).numpy().view(theirs)
    assert metrics.calibration_error(q, y.numpy()) == float(metrics.calibration_error(p, y))
    assert math.isclose(metrics.cka(q, q[:, :2]), metrics.cka(p, p[:, :2]), rel_tol=1e-13)
    assert metrics.residual_contribution(q, q)[0].dtype == theirs
