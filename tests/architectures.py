"""Small models of transformers, one or two of each architecture. The one rule: a config says as little as makes it small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

TEXT = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER = {
    **TEXT,
    "intermediate_size": 128,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ENCODER = {**TEXT, "intermediate_size": 128, "pad_token_id": 0}
IMAGE = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
T5 = {
    "vocab_size": 96,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
BART = {
    "vocab_size": 96, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 64,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
CLIP_TEXT = {**ENCODER, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 2}
SPEECH = {
    "vocab_size": 32, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "conv_dim": (32, 32), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip


class Architecture(NamedTuple):
    """The class that is saved, its config, what goes in, and whether it writes text."""

    head: str
    config: str
    options: dict[str, Any]
    inputs: str = "text"


def _clip(text: dict[str, Any], vision: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"text_config": text, "vision_config": vision, **options}


ARCHITECTURES: dict[str, Architecture] = {
    # encoders
    "bert": Architecture("BertForMaskedLM", "BertConfig", ENCODER),
    "bert base": Architecture("BertModel", "BertConfig", ENCODER),
    "bert classes": Architecture("BertForSequenceClassification", "BertConfig", ENCODER),
    "roberta": Architecture("RobertaForMaskedLM", "RobertaConfig", ENCODER),
    "xlm-roberta": Architecture("XLMRobertaForSequenceClassification", "XLMRobertaConfig", ENCODER),
    "albert": Architecture("AlbertForMaskedLM", "AlbertConfig", {**ENCODER, "embedding_size": 32}),
    "electra": Architecture("ElectraForPreTraining", "ElectraConfig", {**ENCODER, "embedding_size": 32}),
    "electra generator": Architecture("ElectraForMaskedLM", "ElectraConfig", {**ENCODER, "embedding_size": 32}),
    "mpnet": Architecture("MPNetModel", "MPNetConfig", ENCODER),
    "mpnet head": Architecture("MPNetForMaskedLM", "MPNetConfig", ENCODER),
    "distilbert": Architecture(
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": 96, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128},
    ),
    "modernbert": Architecture(
        "ModernBertForMaskedLM",
        "ModernBertConfig",
        {**ENCODER, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "fnet": Architecture("FNetForMaskedLM", "FNetConfig", ENCODER),
    "mobilebert": Architecture(
        "MobileBertForMaskedLM",
        "MobileBertConfig",
        {**ENCODER, "embedding_size": 32, "intra_bottleneck_size": 32, "num_feedforward_networks": 2},
    ),
    "deberta-v2": Architecture(
        "DebertaV2ForMaskedLM",
        "DebertaV2Config",
        {
            **ENCODER,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "max_relative_positions": 8,
            "position_buckets": 4,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        },
    ),
    "nomic-bert": Architecture("NomicBertModel", "NomicBertConfig", ENCODER),
    "xlm": Architecture(
        "XLMWithLMHeadModel", "XLMConfig", {"vocab_size": 96, "emb_dim": 64, "n_layers": 2, "n_heads": 4}
    ),
    # decoders
    "llama": Architecture("LlamaForCausalLM", "LlamaConfig", DECODER),
    "llama tied": Architecture("LlamaForCausalLM", "LlamaConfig", {**DECODER, "tie_word_embeddings": True}),
    "qwen2": Architecture("Qwen2ForCausalLM", "Qwen2Config", {**DECODER, "tie_word_embeddings": True}),
    "qwen3": Architecture("Qwen3ForCausalLM", "Qwen3Config", {**DECODER, "head_dim": 16}),
    "mistral": Architecture("MistralForCausalLM", "MistralConfig", DECODER),
    "gemma": Architecture("GemmaForCausalLM", "GemmaConfig", {**DECODER, "head_dim": 16}),
    "phi": Architecture("PhiForCausalLM", "PhiConfig", DECODER),
    "phi3": Architecture("Phi3ForCausalLM", "Phi3Config", DECODER),
    "opt": Architecture(
        "OPTForCausalLM",
        "OPTConfig",
        {
            "vocab_size": 96,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 128,
            "word_embed_proj_dim": 32,
        },
    ),
    "falcon": Architecture("FalconForCausalLM", "FalconConfig", {**TEXT, "bos_token_id": 1, "eos_token_id": 2}),
    "gpt-neox": Architecture("GPTNeoXForCausalLM", "GPTNeoXConfig", {**DECODER}),
    "gpt-bigcode": Architecture(
        "GPTBigCodeForCausalLM",
        "GPTBigCodeConfig",
        {
            "vocab_size": 96,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "gpt2": Architecture(
        "GPT2LMHeadModel",
        "GPT2Config",
        {
            "vocab_size": 96,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "bloom": Architecture(
        "BloomForCausalLM", "BloomConfig", {"vocab_size": 96, "hidden_size": 64, "n_layer": 2, "n_head": 4}
    ),
    # encoder and decoder
    "t5": Architecture("T5ForConditionalGeneration", "T5Config", T5, "seq2seq"),
    "mt5": Architecture("MT5ForConditionalGeneration", "MT5Config", T5, "seq2seq"),
    "bart": Architecture("BartForConditionalGeneration", "BartConfig", BART, "seq2seq"),
    "mbart": Architecture("MBartForConditionalGeneration", "MBartConfig", BART, "seq2seq"),
    "marian": Architecture("MarianMTModel", "MarianConfig", {**BART, "pad_token_id": 0}, "seq2seq"),
    "whisper": Architecture(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {**BART, "num_mel_bins": 16, "max_source_positions": 16, "max_target_positions": 32, "pad_token_id": 0},
        "spectrogram",
    ),
    # images
    "vit": Architecture("ViTForImageClassification", "ViTConfig", IMAGE, "image"),
    "deit": Architecture("DeiTForImageClassification", "DeiTConfig", IMAGE, "image"),
    "dinov2": Architecture("Dinov2Model", "Dinov2Config", IMAGE, "image"),
    "beit": Architecture(
        "BeitForImageClassification", "BeitConfig", {**IMAGE, "use_relative_position_bias": True}, "image"
    ),
    "swin": Architecture(
        "SwinForImageClassification",
        "SwinConfig",
        {"image_size": 32, "patch_size": 2, "embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4},
        "image",
    ),
    "convnext": Architecture(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"image_size": 32, "patch_size": 2, "hidden_sizes": [32, 64], "depths": [1, 1], "num_stages": 2},
        "image",
    ),
    "resnet": Architecture(
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic", "stage_names": None},
        "image",
    ),
    "clip": Architecture("CLIPModel", "CLIPConfig", _clip(CLIP_TEXT, IMAGE, projection_dim=64), "image and text"),
    "siglip": Architecture(
        "SiglipModel", "SiglipConfig", _clip({**CLIP_TEXT, "projection_size": 64}, IMAGE), "image and text"
    ),
    # sound
    "wav2vec2": Architecture("Wav2Vec2ForCTC", "Wav2Vec2Config", SPEECH, "sound"),
    "wavlm": Architecture("WavLMForCTC", "WavLMConfig", SPEECH, "sound"),
    "hubert": Architecture("HubertForCTC", "HubertConfig", SPEECH, "sound"),
    # mixtures of experts
    "mixtral": Architecture("MixtralForCausalLM", "MixtralConfig", {**DECODER, "num_local_experts": 4}),
    "qwen2-moe": Architecture(
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {
            **DECODER,
            "num_experts": 4,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 64,
            "num_experts_per_tok": 2,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        },
    ),
    "granite-moe": Architecture(
        "GraniteMoeForCausalLM", "GraniteMoeConfig", {**DECODER, "num_local_experts": 4, "num_experts_per_tok": 2}
    ),
    "granite-moe shared": Architecture(
        "GraniteMoeSharedForCausalLM",
        "GraniteMoeSharedConfig",
        {**DECODER, "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 64},
    ),
    "jetmoe": Architecture(
        "JetMoeForCausalLM",
        "JetMoeConfig",
        {**DECODER, "kv_channels": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2},
    ),
    "phimoe": Architecture("PhimoeForCausalLM", "PhimoeConfig", {**DECODER, "num_local_experts": 4}),
    "switch": Architecture(
        "SwitchTransformersForConditionalGeneration",
        "SwitchTransformersConfig",
        {
            **T5,
            "num_experts": 4,
            "num_sparse_encoder_layers": 1,
            "num_sparse_decoder_layers": 1,
            "num_decoder_layers": 2,
        },
        "seq2seq",
    ),
    "deepseek-v3": Architecture(
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        {
            **DECODER,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 64,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 32,
            "kv_lora_rank": 32,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 16,
            "v_head_dim": 16,
        },
    ),
    "llama4": Architecture(
        "Llama4ForCausalLM",
        "Llama4TextConfig",
        {
            **DECODER,
            "intermediate_size_mlp": 128,
            "head_dim": 16,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 1,
        },
    ),
    # state spaces and other recurrences
    "mamba": Architecture(
        "MambaForCausalLM",
        "MambaConfig",
        {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},
    ),
    "mamba2": Architecture(
        "Mamba2ForCausalLM",
        "Mamba2Config",
        {
            "vocab_size": 96,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 16,
            "n_groups": 2,
            "chunk_size": 8,
        },
    ),
    "recurrent-gemma": Architecture(
        "RecurrentGemmaForCausalLM",
        "RecurrentGemmaConfig",
        {**DECODER, "num_key_value_heads": 1, "lru_width": 64, "num_hidden_layers": 3},
    ),
    "rwkv": Architecture(
        "RwkvForCausalLM",
        "RwkvConfig",
        {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "context_length": 64},
    ),
}


def build(name: str) -> Any:
    """The model of that name with random weights, every one of them large enough to be seen."""
    import torch
    import transformers

    found = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = getattr(transformers, found.config)(**found.options)
    model = getattr(transformers, found.head)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2 and parameter.std() < 1e-3:
                parameter.normal_(0, 0.02)
    return model


def inputs(name: str) -> dict[str, Any]:
    """Something for the model to read."""
    import torch

    generator = torch.Generator().manual_seed(1)

    def floats(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator)

    ids = torch.randint(3, 90, (2, 12), generator=generator)
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "text": lambda: {"input_ids": ids},
        "seq2seq": lambda: {"input_ids": ids, "decoder_input_ids": ids[:, :5]},
        "image": lambda: {"pixel_values": floats(2, 3, 32, 32)},
        "image and text": lambda: {"pixel_values": floats(2, 3, 32, 32), "input_ids": ids},
        "sound": lambda: {"input_values": floats(2, 1600)},
        "spectrogram": lambda: {"input_features": floats(2, 16, 32), "decoder_input_ids": ids[:, :5]},
    }
    return makers[ARCHITECTURES[name].inputs]()
