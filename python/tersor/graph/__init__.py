r"""Graphs: features carried along edges, embeddings of nodes, neighbourhoods. The one rule: row i of a matrix holds what node i
takes, and no array of n·n numbers is ever made.

A graph is given as a `tersor.sparse.CSR`, a sparse matrix of SciPy or torch, a graph of networkx, edges ``[2, m]`` as
torch_geometric has them, or DGL's ``(indptr, indices, edge ids)``. A node without edges gets 0, repeated edges add up, loops
stay.
"""

from tersor.graph.adjacency import adjacency, normalized_adjacency
from tersor.graph.fastrp import fastrp
from tersor.graph.propagate import hypergraph_propagate, metapath, propagate

__all__ = [
    "adjacency",
    "fastrp",
    "hypergraph_propagate",
    "metapath",
    "normalized_adjacency",
    "propagate",
]
