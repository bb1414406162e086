"""Quantized linear layers as other runtimes have them. The one rule: each is given the same weight, makes its own codes of it,
and runs on one thread.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Call = Callable[[], Any]


def onnxruntime_bits(w: np.ndarray, x: np.ndarray, bits: int, integers: bool, block: int = 128) -> Call:
    """ONNX Runtime's MatMulNBits: block-wise codes, with float or int8 activations."""
    import onnx
    from onnx import TensorProto, helper

    outs, inputs = w.shape
    blocks = -(-inputs // block)
    parts = w.reshape(outs, blocks, -1)
    most = (1 << bits - 1) - 1
    scale = np.maximum(np.abs(parts).max(-1) / most, 1e-12).astype(np.float32)
    q = (np.rint(parts / scale[..., None]) + (1 << bits - 1)).astype(np.uint8)
    packed = q[..., 0::2] | q[..., 1::2] << 4 if bits == 4 else q
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "s"],
        ["y"],
        domain="com.microsoft",
        K=inputs,
        N=outs,
        bits=bits,
        block_size=block,
        accuracy_level=4 if integers else 1,
    )
    constants = {"w": packed, "s": scale.reshape(-1)}
    return _onnx(onnx, helper, TensorProto, node, constants, x, outs)


def onnxruntime_int8(w: np.ndarray, x: np.ndarray) -> Call:
    """ONNX Runtime's dynamic quantization: int8 weights by columns, activations by tensor."""
    import onnx
    from onnx import TensorProto, helper

    scale = (np.abs(w).max(-1) / 127).astype(np.float32)
    q = np.ascontiguousarray(np.rint(w / scale[:, None]).astype(np.int8).T)
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "w", "s", "z"], ["y"], domain="com.microsoft")
    return _onnx(onnx, helper, TensorProto, node, {"w": q, "s": scale, "z": np.zeros(len(w), np.int8)}, x, len(w))


def _onnx(
    onnx: Any, helper: Any, kinds: Any, node: Any, constants: dict[str, np.ndarray], x: np.ndarray, outs: int
) -> Call:
    import onnxruntime as ort

    graph = helper.make_graph(
        [node],
        "linear",
        [helper.make_tensor_value_info("x", kinds.FLOAT, ["n", x.shape[-1]])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, ["n", outs])],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


def openvino_weights(w: np.ndarray, x: np.ndarray, bits: int, integers: bool, group: int = 128) -> Call:
    """OpenVINO's compressed weights: int8 by rows or int4 by groups, with float or dynamically rounded activations."""
    import openvino as ov
    from openvino import opset13 as op

    outs, inputs = w.shape
    parts = w.reshape(outs, -1, group) if bits == 4 else w
    most = (1 << bits - 1) - 1
    scale = np.maximum(np.abs(parts).max(-1, keepdims=True) / most, 1e-12).astype(np.float32)
    q = np.rint(parts / scale).astype(np.int8)
    kind = ov.Type.i4 if bits == 4 else ov.Type.i8
    codes = op.constant(ov.Tensor(_nibbles(q), q.shape, kind)) if bits == 4 else op.constant(q)
    weight = op.multiply(op.convert(codes, "f32"), op.constant(scale))
    if bits == 4:
        weight = op.reshape(weight, op.constant(np.array([outs, inputs], np.int64)), False)
    given = op.parameter([-1, inputs], np.float32)
    model = ov.Model([op.matmul(given, weight, False, True)], [given])
    config = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 128 if integers else 0,
    }
    request = ov.Core().compile_model(model, "CPU", config).create_infer_request()
    tensor = ov.Tensor(x, shared_memory=True)
    return lambda: request.infer([tensor], share_inputs=True, share_outputs=True)


def _nibbles(q: np.ndarray) -> np.ndarray:
    flat = (q.reshape(-1) & 15).astype(np.uint8)
    return flat[0::2] | flat[1::2] << 4


def torch_dynamic(linear: Any, x: Any) -> Call:
    """torch's dynamically quantized Linear: int8 weights by tensor, activations by tensor."""
    import torch

    quantized = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(linear), {torch.nn.Linear}, torch.qint8)
    return _inference(quantized, x)


def torchao(linear: Any, x: Any, integers: bool) -> Call:
    """torchao's int8 weights, with float or int8 activations."""
    import copy

    import torch
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    model = torch.nn.Sequential(copy.deepcopy(linear))
    quantize_(model, Int8DynamicActivationInt8WeightConfig() if integers else Int8WeightOnlyConfig())
    return _inference(model, x)


def bitsandbytes4(linear: Any, x: Any) -> Call:
    """bitsandbytes' NF4 layer on the CPU."""
    import bitsandbytes as bnb
    import torch

    layer = bnb.nn.Linear4bit(
        linear.in_features, linear.out_features, linear.bias is not None, torch.float32, quant_type="nf4"
    )
    layer.load_state_dict(linear.state_dict())
    return _inference(layer.to("cpu"), x)


def _inference(module: Any, x: Any) -> Call:
    import torch

    def call() -> Any:
        with torch.inference_mode():
            return module(x)

    return call
