r"""Sparse matrices by rows (CSR), and their products with dense ones.

A `CSR` owns a checked copy of its structure, columns ascending in each row: entries given out of order give the same bits
as sorted ones, entries of equal place are kept and add up. What makes products fast (the transpose that a gradient
wants, the tensors of a NumPy matrix) is made when first needed and kept with the structure.

Every element of a product is one chain of fused multiply-adds over the columns in ascending order. Its bits depend neither
on threads, instruction set and alignment nor on the other columns, and for terms :math:`w_k x_k` the error is at most
:math:`\gamma_{n+1} (\sum_k |w_k x_k| + |b|)`. float16 and bfloat16 are computed in float32 and rounded once. Only stored
entries take part: NaN and infinities in x reach the rows that have an entry for them, explicit zeros included.
"""

from tersor.sparse._crossover import crossover
from tersor.sparse._csr import CSR
from tersor.sparse._edges import from_coo, from_edges
from tersor.sparse._formats import BSR, COO, CSC
from tersor.sparse._make import from_dense, from_scipy, from_torch
from tersor.sparse.codes import Int8CSR
from tersor.sparse.images import conv1x1
from tersor.sparse.lanes import linear, spmv
from tersor.sparse.market import read_mtx, read_smtx
from tersor.sparse.nm import NMTensor, nm_compress, nm_decompress
from tersor.sparse.product import spmm
from tersor.sparse.rowwise import softmax
from tersor.sparse.sampled import sddmm
from tersor.sparse.terms import spgemm

__all__ = [
    "BSR",
    "COO",
    "CSC",
    "CSR",
    "Int8CSR",
    "NMTensor",
    "conv1x1",
    "crossover",
    "from_coo",
    "from_dense",
    "from_edges",
    "from_scipy",
    "from_torch",
    "linear",
    "nm_compress",
    "nm_decompress",
    "read_mtx",
    "read_smtx",
    "sddmm",
    "softmax",
    "spgemm",
    "spmm",
    "spmv",
]
