"""Logits that are not numbers: which rows, and the likely cause in words."""

from typing import Any

import torch
from torch import Tensor


def finite_rows(logits: Tensor) -> list[bool]:
    """Say for each row of ``logits`` [rows, vocabulary] whether its largest value is a number.

    NaN anywhere, an infinite maximum, or only minus infinities are not; single tokens at minus infinity are.
    """
    found: list[bool] = torch.isfinite(logits.amax(-1)).tolist()
    return found


def why_not_finite(model: Any) -> str:
    """Say that the model computes values that are not numbers, the likely cause, and what to do."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            return (
                "the model's output is not a number (NaN or infinite): "
                f"the weight {name} holds values that are not numbers; its files are damaged, fetch them again"
            )
    if model.dtype == torch.float16:
        return "the model's output is not a number (NaN or infinite): float16 overflows; use dtype: bfloat16 or float32"
    return (
        f"the model's output is not a number (NaN or infinite) in {str(model.dtype).removeprefix('torch.')}: "
        "the weights are damaged or quantized too coarsely; use dtype: float32 without quantization, or fetch it again"
    )
