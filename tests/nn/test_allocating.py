"""Bits for the layers of a small model: within the budget, and by either allocator from one window on."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tersor.formats import parse  # noqa: E402
from tersor.lossless import NUMPY_DTYPES  # noqa: E402
from tersor.nn.allocating import BITS, allocated  # noqa: E402
from tersor.nn.blocks import layers_of  # noqa: E402
from tersor.weights import LayerRecipe, Recipe  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = Recipe(layer=LayerRecipe(format="int4-g32", solver="rtn", grid="mse"))


def bytes_of(recipe, layer):
    """Of a matrix in the format of its recipe."""
    parts = parse(recipe.format).parts(*layer.shape)
    return sum(int(np.prod(part.shape)) * NUMPY_DTYPES[part.dtype].itemsize for part in parts.values())


def small():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=61, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    layers = [one for one in layers_of(model) if one.module == "linear" and one.name.startswith("model.layers.")]
    return model, layers[:3]


@pytest.mark.parametrize(("allocator", "count"), [("dp", 1), ("evopress", 1), ("evopress", 2)])
def test_a_choice_within_the_budget_that_leaves_the_model_alone(allocator, count):
    model, layers = small()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    windows = [torch.from_numpy(np.random.default_rng(i).integers(0, 61, 24)) for i in range(count)]
    budget = sum(bytes_of(RECIPE.layer, layer) for layer in layers)
    told = {}
    made = allocated(model, layers, RECIPE, windows, budget, allocator=allocator, save=told.update)
    recipes = [made.recipe.for_layer(layer.name) for layer in layers]
    assert made.rate == sum(bytes_of(one, layer) for one, layer in zip(recipes, layers, strict=True)) <= budget
    assert {one.format for one in recipes} <= {f"int{bits}-g32" for bits in BITS}
    assert made == allocated(model, layers, RECIPE, windows, budget, allocator=allocator, known=told)
    for name, one in model.state_dict().items():
        torch.testing.assert_close(one, before[name], rtol=0, atol=0)
