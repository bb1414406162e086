"""GPU kernels, one module per family with the operators' own names. The rule: ``launcher(*inputs, *outputs, *scalars)``.

Importing this imports nothing else; a module here is imported when an operator first meets a tensor on a GPU.
"""

#: of an operator that runs its reference in torch on the device, in float64: right, not fast
PLAIN = "plain"
_UNWRITTEN = "not written yet"
_PAIRS = "not written yet: pairs are walked tile by tile with a running reducer, on the CPU alone"
_STRUCTURE = "the structure of a matrix is made on the CPU, once, and kept where its values are"
_PLAIN = "torch's own functions do it where `CSR` meets a tensor on a GPU"

#: operators without a kernel here, and why
ABSENT = {
    "carry": PLAIN,
    "carry_bwd": PLAIN,
    "cdist": PLAIN,
    "cdist_bwd": PLAIN,
    "csr_count": _PLAIN,
    "csr_dense": _PLAIN,
    "csr_dense_bwd": _PLAIN,
    "csr_fill": _PLAIN,
    "csr_sort": _STRUCTURE,
    "csr_transpose": _STRUCTURE,
    "dequantize": _UNWRITTEN,
    "encode_affine": _UNWRITTEN,
    "fake_quantize_lsq": _UNWRITTEN,
    "fake_quantize_lsq_bwd": _UNWRITTEN,
    "knn": _PAIRS,
    "ldlq": "columns follow one another; weights and their Hessian are moved to the CPU, where rows are decided side by side",
    "lorentz_dist": PLAIN,
    "lorentz_dist_bwd": PLAIN,
    "magnitude_split": "a sample tells where the threshold is on the CPU alone; elsewhere digits are searched",
    "materialise": "a matrix that is to be seen is made where it is looked at",
    "midpoint": PLAIN,
    "midpoint_bwd": PLAIN,
    "normalize": PLAIN,
    "normalize_bwd": PLAIN,
    "pack": _UNWRITTEN,
    "philox4x32": "kernels draw with tl.philox, which makes the same words",
    "project_csr": _UNWRITTEN,
    "quantize": _UNWRITTEN,
    "softmin_dist": PLAIN,
    "softmin_dist_bwd": PLAIN,
    "spread": PLAIN,
    "spread_bwd": PLAIN,
    "unpack": _UNWRITTEN,
}
