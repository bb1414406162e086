r"""Graphs: features carried along edges, embeddings of nodes, neighbourhoods. The one rule: row i of a matrix holds what node i
takes, and no array of n·n numbers is ever made.

A graph is given as a `tersor.sparse.CSR`, a sparse matrix of SciPy or torch, a graph of networkx, edges ``[2, m]`` as
torch_geometric has them, or DGL's ``(indptr, indices, edge ids)``. A node without edges gets 0, repeated edges add up, loops
stay.
"""

from tersor.graph.adjacency import adjacency, normalized_adjacency
from tersor.graph.attention import edge_attention
from tersor.graph.codes import Codes, hamming_knn, pack_bits, unique_codes
from tersor.graph.dimension import id_mle, id_twonn
from tersor.graph.fastrp import fastrp
from tersor.graph.hypergraph import hypergraph_propagate, metapath
from tersor.graph.laplacian import Encoding, laplacian_pe
from tersor.graph.nearest import Neighbors, knn, knn_edges
from tersor.graph.neighbors import (
    NeighborIds,
    cn_pool,
    common_neighbor_ids,
    common_neighbors,
    edge_cosine,
    edge_jaccard,
    ncnc_weights,
)
from tersor.graph.propagate import propagate

__all__ = [
    "Codes",
    "Encoding",
    "NeighborIds",
    "Neighbors",
    "adjacency",
    "cn_pool",
    "common_neighbor_ids",
    "common_neighbors",
    "edge_attention",
    "edge_cosine",
    "edge_jaccard",
    "fastrp",
    "hamming_knn",
    "hypergraph_propagate",
    "id_mle",
    "id_twonn",
    "knn",
    "knn_edges",
    "laplacian_pe",
    "metapath",
    "ncnc_weights",
    "normalized_adjacency",
    "pack_bits",
    "propagate",
    "unique_codes",
]
