"""GPU kernels, one module per family with the operators' own names. The rule: ``launcher(*inputs, *outputs, *scalars)``.

Importing this imports nothing else; a module here is imported when an operator first meets a tensor on a GPU.
"""

#: of an operator that runs its reference in torch on the device, in float64: right, not fast
PLAIN = "plain"
_STRUCTURE = "the structure of a matrix is made on the CPU, once, and kept where its values are"
_PLAIN = "torch's own functions do it where `CSR` meets a tensor on a GPU"
_LANES = "an order for the lanes of a CPU: on a GPU few vectors go through `spmm` too"
_CODES = "for the CPU: on a GPU the codes are decoded and go through `linear`"
_FILES = "blocks of files, which are read and written on the CPU"
_COUNTED = "a metric brings its numbers to the CPU, where they are counted and put in order"
_PACKED = "a layout for the CPU: on a GPU the weight is decoded and multiplied by torch's own product"

#: operators whose launcher here is made of torch's own operations and of other launchers: no kernel of its own, no reference
COMPOSED = frozenset(
    {
        "loss.info_nce",
        "loss.info_nce_bwd",
        "quant.best_share",
        "quant.encode_affine",
        "quant.fake_quantize_lsq",
        "quant.fake_quantize_lsq_bwd",
        "quant.pack",
        "quant.unpack",
    }
)

#: operators without a launcher here, and why
ABSENT = {
    "foreach.ema": PLAIN,
    "foreach.ema_stochastic": "each target that is rounded draws its words on the CPU",
    "foreach.lincomb": PLAIN,
    "foreach.lincomb_bwd": PLAIN,
    "foreach.norms": PLAIN,
    "foreach.norms_bwd": PLAIN,
    "graph.edge_attention": PLAIN,
    "graph.edge_attention_bwd": PLAIN,
    "graph.hamming": PLAIN,
    "graph.meet_count": _STRUCTURE,
    "graph.meet_fill": _STRUCTURE,
    "graph.nearest": PLAIN,
    "graph.row_dots": _STRUCTURE,
    "hyperbolic.busemann": PLAIN,
    "hyperbolic.busemann_bwd": PLAIN,
    "hyperbolic.carry": PLAIN,
    "hyperbolic.carry_bwd": PLAIN,
    "hyperbolic.cdist": PLAIN,
    "hyperbolic.cdist_bwd": PLAIN,
    "hyperbolic.entail": PLAIN,
    "hyperbolic.entail_bwd": PLAIN,
    "hyperbolic.knn": PLAIN,
    "hyperbolic.midpoint": PLAIN,
    "hyperbolic.midpoint_bwd": PLAIN,
    "hyperbolic.normalize": PLAIN,
    "hyperbolic.normalize_bwd": PLAIN,
    "hyperbolic.softmin_dist": PLAIN,
    "hyperbolic.softmin_dist_bwd": PLAIN,
    "hyperbolic.spread": PLAIN,
    "hyperbolic.spread_bwd": PLAIN,
    "lorentz.dist": PLAIN,
    "lorentz.dist_bwd": PLAIN,
    "metrics.calibration_bins": _COUNTED,
    "metrics.calibration_judged": _COUNTED,
    "metrics.calibration_quantile": _COUNTED,
    "metrics.kendall": _COUNTED,
    "metrics.spearman": _COUNTED,
    "norm.evonorm": PLAIN,
    "norm.evonorm_bwd": PLAIN,
    "project.materialise": "a matrix that is to be seen is made where it is looked at",
    "prune.assignment": "rows are added one after another, on the CPU",
    "prune.budget_allocate": "a choice among a few hundred amounts, one after another, on the CPU",
    "prune.group_sums": PLAIN,
    "prune.magnitude_split": "a sample tells where the threshold is on the CPU alone; elsewhere digits are searched",
    "prune.obs_strip": PLAIN,
    "quant.bit_allocate": "a choice among a few hundred levels, one after another, on the CPU",
    "quant.decode_gguf": _FILES,
    "quant.encode_gguf": _FILES,
    "quant.int_layernorm": PLAIN,
    "quant.kmeans_1d": "numbers are put in order and cut on the CPU",
    "quant.l1_normalize": PLAIN,
    "quant.l1_normalize_bwd": PLAIN,
    "quant.ldlq": "columns follow one another: weights and Hessian go to the CPU, where rows are decided side by side",
    "quant.packed_activated": _PACKED,
    "quant.packed_codes": _PACKED,
    "quant.packed_int8": _PACKED,
    "quant.packed_linear": _PACKED,
    "quant.packed_linear_bwd": _PACKED,
    "quant.panels": _PACKED,
    "quant.requantize": PLAIN,
    "quant.row_quantiles": PLAIN,
    "quant.row_threshold": "histograms are walked on the CPU",
    "quant.shift_exp": PLAIN,
    "quant.shift_gelu": PLAIN,
    "quant.shiftmax": PLAIN,
    "quant.value_spread": PLAIN,
    "reduce.row_groups": "rows are told apart on the CPU, where their numbers are asked for",
    "random.philox4x32": PLAIN,
    "reduce.segment_extreme_bwd": PLAIN,
    "sparse.csr_count": _PLAIN,
    "sparse.csr_dense": _PLAIN,
    "sparse.csr_dense_bwd": _PLAIN,
    "sparse.csr_fill": _PLAIN,
    "sparse.csr_lanes": _LANES,
    "sparse.csr_matmul": _PLAIN,
    "sparse.csr_matmul_bwd": _PLAIN,
    "sparse.csr_matmul_count": _STRUCTURE,
    "sparse.csr_matmul_places": _STRUCTURE,
    "sparse.csr_softmax": _PLAIN,
    "sparse.csr_softmax_bwd": _PLAIN,
    "sparse.csr_sort": _STRUCTURE,
    "sparse.csr_transpose": _STRUCTURE,
    "sparse.linear8": _CODES,
    "sparse.linear8_bwd": _CODES,
    "sparse.nm_meta": PLAIN,
    "sparse.nm_put": PLAIN,
    "sparse.nm_put_bwd": PLAIN,
    "sparse.nm_take": PLAIN,
    "sparse.nm_take_bwd": PLAIN,
    "sparse.spmv": _LANES,
}
