"""LoRA adapters of PEFT on layers in few bits. Needs peft.

config = lora(peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
model = peft.get_peft_model(model, config)                # its adapters train, the matrices stay as they are
"""

from __future__ import annotations

from typing import Any

import torch

from tersor.nn.quantized import QuantLinear


def lora(config: Any) -> Any:
    """Let a peft.LoraConfig know tersor.nn.QuantLinear; returns it.

    Gradients reach adapters and inputs as though the layers read activations exactly. Adapters do not merge into packed
    matrices: that raises ValueError. Raises ImportError without peft, TypeError for another config.
    """
    try:
        from peft import LoraConfig
        from peft.tuners.lora import Linear
    except ImportError as error:
        raise ImportError("adapters need peft: pip install peft") from error
    if not isinstance(config, LoraConfig):
        raise TypeError(f"a peft.LoraConfig is needed, found {type(config).__name__}")

    class LoraQuantLinear(Linear):  # type: ignore[misc]
        """An adapter beside a packed matrix."""

        def merge(self, *arguments: Any, **named: Any) -> None:
            raise ValueError("adapters do not merge into a packed matrix: save them beside it")

        def get_delta_weight(self, adapter: str) -> torch.Tensor:
            raise ValueError("adapters do not merge into a packed matrix: save them beside it")

    config._register_custom_module({QuantLinear: LoraQuantLinear})
    return config
