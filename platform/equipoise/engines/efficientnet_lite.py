"""EfficientNet-lite: EfficientNet without squeeze-and-excitation and with ReLU6, for quantized CPUs.

Tan and Le (2019), "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", in the lite
variant of its authors. transformers' own EfficientNet always squeezes. The build is that of its ResNet:
`config.depths`, and `encoder.stages[i].layers`, whose first layer changes width and size.
"""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
)


@strict
class EfficientNetLiteConfig(PreTrainedConfig):  # type: ignore[misc]
    """One number a stage in each list; the defaults are lite0's."""

    model_type = "efficientnet_lite"

    num_channels: int = 3
    image_size: int = 224
    embedding_size: int = 32
    hidden_sizes: list[int] | tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    depths: list[int] | tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    kernel_sizes: list[int] | tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    strides: list[int] | tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    expand_ratios: list[int] | tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
    pooled_size: int = 1280
    dropout_rate: float = 0.2
    batch_norm_eps: float = 1e-3
    # Its authors' 0.01 is for hundreds of thousands of steps; fine-tuning has far fewer.
    batch_norm_momentum: float = 0.1
    initializer_range: float = 0.02


class SameConvolution(nn.Conv2d):
    """A convolution with an odd kernel, padded as TensorFlow pads: an even size more after than before."""

    def __init__(self, given: int, made: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            given, made, kernel, stride, 0 if stride > 1 else kernel // 2, groups=groups, bias=False
        )

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.stride[0] > 1:
            after = self.kernel_size[0] // 2
            top, left = (after - 1 + int(size) % 2 for size in input.shape[-2:])
            input = functional.pad(input, (left, after, top, after))
        return super().forward(input)


class NormalizedConvolution(nn.Module):
    """Convolution, batch normalization and, unless it projects, ReLU6."""

    def __init__(
        self,
        config: EfficientNetLiteConfig,
        given: int,
        made: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activated: bool = True,
    ) -> None:
        super().__init__()
        self.convolution = SameConvolution(given, made, kernel, stride, groups)
        self.normalization = nn.BatchNorm2d(
            made, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum
        )
        self.activation = nn.ReLU6() if activated else nn.Identity()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.activation(self.normalization(self.convolution(input)))
        return found


class InvertedResidual(nn.Module):
    """Expand, convolve each channel by itself, project; with a shortcut where size and width stay."""

    def __init__(
        self, config: EfficientNetLiteConfig, given: int, made: int, kernel: int, stride: int, ratio: int
    ) -> None:
        super().__init__()
        wide = given * ratio
        self.expansion = NormalizedConvolution(config, given, wide) if ratio != 1 else nn.Identity()
        self.depthwise = NormalizedConvolution(config, wide, wide, kernel, stride, groups=wide)
        self.projection = NormalizedConvolution(config, wide, made, activated=False)
        self.shortcut = stride == 1 and given == made

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.projection(self.depthwise(self.expansion(input)))
        return found + input if self.shortcut else found


class EfficientNetLiteStage(nn.Module):
    """Blocks of one width; the first changes width and size."""

    def __init__(self, config: EfficientNetLiteConfig, stage: int) -> None:
        super().__init__()
        made = config.hidden_sizes[stage]
        given = config.hidden_sizes[stage - 1] if stage else config.embedding_size
        kernel, ratio = config.kernel_sizes[stage], config.expand_ratios[stage]
        first = InvertedResidual(config, given, made, kernel, config.strides[stage], ratio)
        others = (
            InvertedResidual(config, made, made, kernel, 1, ratio) for _ in range(config.depths[stage] - 1)
        )
        self.layers = nn.Sequential(first, *others)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(input)
        return found


class EfficientNetLiteEncoder(nn.Module):
    """All stages."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            EfficientNetLiteStage(config, stage) for stage in range(len(config.depths))
        )

    def forward(self, input: torch.Tensor) -> list[torch.Tensor]:
        """What goes into the first stage, and what comes out of each."""
        states = [input]
        for stage in self.stages:
            states.append(stage(states[-1]))
        return states


class EfficientNetLitePreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """Where both models get their first weights."""

    config_class = EfficientNetLiteConfig
    base_model_prefix = "efficientnet_lite"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            from transformers import initialization as init

            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class EfficientNetLiteModel(EfficientNetLitePreTrainedModel):
    """Pixels to pooled features of `pooled_size`."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self.embedder = NormalizedConvolution(config, config.num_channels, config.embedding_size, 3, 2)
        self.encoder = EfficientNetLiteEncoder(config)
        self.projector = NormalizedConvolution(config, config.hidden_sizes[-1], config.pooled_size)
        self.pooler = nn.AdaptiveAvgPool2d((1, 1))
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, output_hidden_states: bool | None = None, **_: Any
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        states = self.encoder(self.embedder(pixel_values))
        features = self.projector(states[-1])
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=features,
            pooler_output=self.pooler(features),
            hidden_states=tuple(states) if output_hidden_states else None,
        )


class EfficientNetLiteForImageClassification(EfficientNetLitePreTrainedModel):
    """The same with a linear head."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.efficientnet_lite = EfficientNetLiteModel(config)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.classifier = nn.Linear(config.pooled_size, config.num_labels)
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, output_hidden_states: bool | None = None, **_: Any
    ) -> ImageClassifierOutputWithNoAttention:
        outputs = self.efficientnet_lite(pixel_values, output_hidden_states=output_hidden_states)
        logits = self.classifier(self.dropout(outputs.pooler_output.flatten(1)))
        return ImageClassifierOutputWithNoAttention(logits=logits, hidden_states=outputs.hidden_states)
