"""Post-training quantization through onnxruntime and nncf."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from equipoise.tasks import Arrays


def quantize_onnx(source: Path, target: Path, calibration: Sequence[Arrays]) -> None:
    """Static int8: ranges from calibration batches, so a row's answer is its own.

    Only products with constant weights are quantized; onnxruntime's defaults, which quantize the
    attention products too, lose the accuracy of BERT models entirely. A ReLU or ReLU6 right after a
    convolution goes into its range: were the range taken before it, most of the 256 steps would lie where
    the activation cuts off, and a ReLU6 network would lose its accuracy.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Arrays] = iter(calibration)

        def get_next(self) -> Arrays | None:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quantization.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm", "Conv", "Relu", "Clip"],
            extra_options={"MatMulConstBOnly": True},
        )


def quantize_onnx_dynamic(source: Path, target: Path) -> None:
    """Dynamic int8: ranges are taken from each batch, so a row's answer depends on its neighbours."""
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quantization.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_dynamic(
            str(prepared),
            str(target),
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
            extra_options={"MatMulConstBOnly": True},
        )


def quantize_openvino(model: Any, calibration: Sequence[Arrays], *, transformer: bool) -> Any:
    """Static int8 by nncf, with its settings for transformers or for convolutions."""
    import nncf

    return nncf.quantize(
        model,
        nncf.Dataset(list(calibration)),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibration),
    )


def compress_openvino(model: Any, precision: str) -> Any:
    """Weights alone in 8 bits a channel, or most of them in 4 bits a group of 64; no data is needed.

    Of 4 bits, the embedding and the last layer keep 8, and so does the fifth of the others that nncf
    ranks by their weights as the most sensitive.
    """
    import nncf

    if precision == "int8_weights":
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    return nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT4_SYM,
        group_size=64,
        ratio=0.8,
        # A layer whose width 64 does not divide gets smaller groups, or 8 bits where none of 32 or more fits.
        advanced_parameters=nncf.AdvancedCompressionParameters(
            group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
        ),
    )
