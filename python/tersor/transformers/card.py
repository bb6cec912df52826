"""The model card of a quantized model: README.md of its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tersor.nn.quantizing import Loss
    from tersor.transformers.quantizing import QuantizedModel
    from tersor.weights import Recipe


def card_of(made: QuantizedModel, recipe: Recipe, source: str) -> str:
    """Markdown with the metadata that model hubs read: what it was made from, how, and what that cost."""
    found = [layer for layer in made.layers if layer.format]
    formats = sorted({layer.format for layer in found})
    return f"""---
base_model: {source}
library_name: transformers
quantized_by: tersor
tags: [quantized, tersor]
---
# {source}, in few bits

Made from {source} by `tersor quantize`. To load it:

```python
import tersor.transformers, transformers

model = transformers.AutoModelForCausalLM.from_pretrained("this folder")
```

- {made.bytes:,} bytes of weights instead of {made.bytes_before:,}
- {len(found)} matrices in {", ".join(formats)}: {made.bits_per_weight:.3f} bits/weight, scales and all
{_told(made.loss)}The recipe, which `tersor quantize --recipe` takes:

```yaml
{recipe.dump().rstrip()}
```
"""


def _told(loss: Loss | None) -> str:
    if loss is None:
        return ""
    start = f"- beside the dense model, on {loss.windows} windows of the calibration text that no solver saw: "
    if loss.cosine is not None:
        return f"{start}mean cosine {loss.cosine:.5f}\n"
    told = f"{start}divergence {loss.kl_mean:.5f} nats a token"
    if loss.perplexity is not None and loss.perplexity_dense is not None:
        told += f", perplexity {loss.perplexity:.3f} instead of {loss.perplexity_dense:.3f}"
    return f"{told}\n"
