"""Recipes: as data, which layers they mean, and what a layer becomes."""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest

from tersor.calibrate import Statistics
from tersor.formats import LowRank, Outliers
from tersor.weights import SOLVERS, LayerRecipe, MissingStatisticsError, Recipe, Rule, output_error

yaml = pytest.importorskip("yaml")
RULES = (
    Rule(pattern="*.down_proj", layer=LayerRecipe(format="int6-g64", solver="rtn", grid="mse")),
    Rule(pattern="lm_head"),
    Rule(pattern="*.1.*", layer=LayerRecipe(format="int3-g128", outliers=0.01, rank=4, seed=2**64 - 1)),
)
WHOLE = Recipe(
    name="all ‘keys’", source="a: b #c", layer=LayerRecipe(format="int4-g128"), rules=RULES,
    embeddings=LayerRecipe(format="int8", solver="rtn"), samples=3, length=17, seed=5,
)  # fmt: skip


def layer_of(rows=48, columns=256, seed=0):
    """Weights, and statistics of correlated inputs of which some columns are far larger than others."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, columns), np.float32)
    mixed = random.standard_normal((600, columns)) @ random.standard_normal((columns, columns)) / columns**0.5
    statistics = Statistics(columns)
    statistics.update(((mixed + 0.5 * mixed[:, :1]) * np.exp(random.standard_normal(columns))).astype(np.float32))
    return weight, statistics


@pytest.mark.parametrize("recipe", [WHOLE, Recipe(layer=LayerRecipe(format="nf4"))])
def test_text_and_numbers_come_back(recipe, tmp_path):
    assert Recipe.from_yaml(recipe.dump()) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    path = tmp_path / "my.yaml"
    path.write_text(recipe.dump(), encoding="utf-8")
    assert Recipe.load(path) == Recipe.load(str(path)) == recipe


@pytest.mark.parametrize("name", Recipe.names())
def test_what_is_shipped_comes_back_and_stores_what_it_says(name):
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert recipe.source
    assert Recipe.from_yaml(recipe.dump()) == recipe
    weight, statistics = layer_of()
    q = recipe.layer.solve(weight, statistics)
    arrays = [*q.parts.values()]
    for one in (*q.transforms, *q.side_terms):
        arrays += one.parts().values()
    assert q.nbytes == sum(array.nbytes for array in arrays)
    assert q.nbytes < weight.nbytes / 2.5
    assert q.errors["outputs"] == pytest.approx(output_error(weight, q, statistics))
    assert 0 < q.errors["outputs"] < 0.6


def test_the_page_has_a_row_for_what_is_shipped(root):
    page = (root / "docs" / "weights.md").read_text(encoding="utf-8")
    named = {name for row in page.splitlines() if row.startswith("| `") for name in re.findall("`([^`]+)`", row)}
    assert set(Recipe.names()) <= named
    assert set(re.findall(r"`(\w+)`", page)) >= set(SOLVERS)


def test_the_yaml_of_the_page_is_a_recipe(root):
    page = (root / "docs" / "weights.md").read_text(encoding="utf-8")
    recipe = Recipe.from_yaml(page.split("```yaml\n")[1].split("```")[0])
    assert recipe.for_layer("a.router") is None
    assert recipe.for_layer("a.down_proj").format == "int4-g128"


def test_the_first_rule_that_matches_decides():
    def of(name, **kind):
        return WHOLE.for_layer(name, **kind)

    assert of("model.layers.1.mlp.down_proj") == RULES[0].layer
    assert of("model.layers.1.mlp.up_proj") == RULES[2].layer
    assert of("model.layers.0.mlp.up_proj") == WHOLE.layer
    assert of("lm_head", is_head=True) is None
    assert of("embed", is_embedding=True) == of("head", is_head=True) == WHOLE.embeddings
    assert Recipe(layer=WHOLE.layer).for_layer("head", is_head=True) is None


def test_outputs_errors_are_those_of_the_inputs():
    random = np.random.default_rng(0)
    x, weight = random.standard_normal((50, 64), np.float32), random.standard_normal((16, 64), np.float32)
    statistics = Statistics(64)
    statistics.update(x)
    q = LayerRecipe(format="int3-g32", solver="rtn").solve(weight, statistics)
    want = np.linalg.norm(x @ (q.dequantize() - weight).T) / np.linalg.norm(x @ weight.T)
    assert output_error(weight, q, statistics) == pytest.approx(want, rel=1e-4)
    assert output_error(np.zeros_like(weight), q, statistics) > 0
    with pytest.raises(ValueError, match=r"weights are \[8, 64\], the quantized matrix \[16, 64\]"):
        output_error(weight[:8], q, statistics)


def test_the_number_of_threads_changes_nothing():
    weight, statistics = layer_of()
    recipe = LayerRecipe(format="int3-g64", transform="awq", outliers=0.01, rank=2)
    one, two = (recipe.solve(weight, statistics, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.dequantize(), two.dequantize())


def test_the_dtype_of_the_weights_is_kept():
    weight, statistics = layer_of()
    q = LayerRecipe(format="int4-g64", transform="hadamard", activations="exact").solve(
        weight.astype(np.float16), statistics
    )
    assert (q.dtype, q.dequantize().dtype, q.activations) == ("F16", np.float16, "exact")


def test_methods_of_models_begin_with_decoupleq_and_none_of_them_is_nameless():
    weight, statistics = layer_of(8, 64)
    first = LayerRecipe(format="int3-g32", solver="decoupleq").solve(weight, statistics)
    assert all(row.source for row in SOLVERS.values())
    assert {name for name, row in SOLVERS.items() if row.of_models} == {"learned", "discquant"}
    for name in ("learned", "discquant"):
        q = LayerRecipe(format="int3-g32", solver=name).solve(weight, statistics)
        for part, array in first.parts.items():
            np.testing.assert_array_equal(q.parts[part], array)


def test_every_solver_has_a_recipe_that_is_shipped():
    assert {Recipe.load(name).layer.solver for name in Recipe.names()} == set(SOLVERS)


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({"solver": "gptq"}, True),
        ({"solver": "rtn"}, False),
        ({"solver": "rtn", "transform": "hadamard"}, False),
        ({"solver": "rtn", "outliers": 0.01, "outlier_kind": "magnitude"}, False),
        ({"solver": "rtn", "outliers": 0.01}, True),
        ({"solver": "rtn", "outliers": 0.01, "outlier_kind": "columns"}, True),
        ({"solver": "rtn", "transform": "awq"}, True),
        ({"solver": "rtn", "transform": "permute"}, True),
        ({"solver": "rtn", "rank": 2}, True),
    ],
)
def test_who_needs_statistics_says_so(options, needs):
    weight, _ = layer_of(8, 64)
    recipe = LayerRecipe(format="int4-g32", **options)
    assert recipe.needs_statistics is needs
    for nothing in (None, Statistics(64)):
        if needs:
            with pytest.raises(MissingStatisticsError, match="one token or more"):
                recipe.solve(weight, nothing)
        else:
            assert "outputs" not in recipe.solve(weight, nothing).errors


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"format": "int9"}, ValueError, "no format is named 'int9'"),
        ({"format": 4}, TypeError, r"format is str, not 4 \(int\)"),
        ({"solver": "magic"}, ValueError, "solver is one of 'rtn', 'gptq'.*, not 'magic'"),
        ({"grid": "log"}, ValueError, "grid is one of .*, not 'log'"),
        ({"grid": "hqq"}, ValueError, "grid is one of .*, not 'hqq'"),
        ({"transform": "dct"}, ValueError, "transform is one of .*, not 'dct'"),
        ({"outlier_kind": "rows"}, ValueError, "outlier_kind is one of .*, not 'rows'"),
        ({"outliers": 1.0}, ValueError, r"outliers are a share in \[0, 1\), not 1.0"),
        ({"outliers": float("nan")}, ValueError, "not nan"),
        ({"outliers": "1%"}, TypeError, "outliers is float, not '1%'"),
        ({"rank": -1}, ValueError, "rank is 0 or more, not -1"),
        ({"rank": True}, TypeError, "rank is int, not True"),
        ({"rank_dtype": "int4"}, ValueError, "rank_dtype is one of .*, not 'int4'"),
        ({"activations": "int4"}, ValueError, "activations is one of .*, not 'int4'"),
        ({"seed": -1}, ValueError, r"seed is in 0..2\*\*64 - 1, not -1"),
        ({"damping": 2}, ValueError, r"damping is in \[0, 1\], not 2.0"),
        ({"order": "rows"}, ValueError, "order is one of activations, columns, not 'rows'"),
        ({"format": "vq-d8-k256-s2"}, ValueError, "format, for gptq: a format with a code a weight is needed, not vq"),
        ({"format": "2:4", "solver": "cd"}, ValueError, "format, for cd: a format with a code a weight is needed"),
        ({"format": "nf4", "solver": "hqq"}, ValueError, "for hqq: integers with scales of their own are needed"),
        ({"format": "int4", "solver": "nupes"}, ValueError, "for nupes: a scalar codebook of scope"),
        ({"format": "nf4", "solver": "learned"}, ValueError, "for learned: integers in groups are needed, not nf4"),
        ({"format": "mxfp4", "solver": "discquant"}, ValueError, "for discquant: integers in groups are needed"),
    ],
)
def test_what_a_layer_cannot_be_is_refused(options, kind, text):
    with pytest.raises(kind, match=text):
        LayerRecipe(**{"format": "int4-g32", **options})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("layer: {fromat: int4}", "layer: unknown key 'fromat', keys are format, solver"),
        ("layer: {solver: rtn}", "layer: format is missing"),
        ("layer: {format: int4, rank: two}", "layer: rank is int, not 'two'"),
        ("layer: int4", "layer is a mapping, not 'int4'"),
        ("{}", "recipe: layer is missing"),
        ("layer: {format: int4}\nsample: 3", "recipe: unknown key 'sample', keys are name, source, layer, rules"),
        ("layer: {format: int4}\nsamples: 0", "samples is 1 or more, not 0"),
        ("layer: {format: int4}\nsamples: 1.5", "samples is int, not 1.5"),
        ("layer: {format: int4}\nname: 3", "name is str, not 3"),
        ("layer: {format: int4}\nrules: 3", "rules is a list, not 3"),
        ("layer: {format: int4}\nrules: [{pattern: ''}]", r"rules\[0\]: pattern is empty"),
        ("layer: {format: int4}\nrules: [{layer: null}]", r"rules\[0\]: pattern is missing"),
        ("layer: {format: int4}\nrules: [{pattern: a, layer: {rank: 1}}]", r"rules\[0\].layer: format is missing"),
        ("layer: {format: int4}\nembeddings: {format: int4}", "embeddings: .* has no statistics"),
        ("layer: null", "layer is a LayerRecipe, not None"),
        ("a: [", "a recipe is YAML"),
        ("3", "a recipe is a mapping, not 3"),
    ],
)
def test_a_wrong_text_is_refused_and_says_where(text, found):
    with pytest.raises(ValueError, match=found):
        Recipe.from_yaml(text)


def test_without_a_reader_of_yaml_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    for call in (WHOLE.dump, lambda: Recipe.load("gptq-4bit")):
        with pytest.raises(ImportError, match=r"need PyYAML: pip install 'tersor\[transformers\]'"):
            call()


def test_an_unknown_name_lists_the_known_and_a_file_its_path(tmp_path):
    with pytest.raises(ValueError, match=r"no recipe is named 'spqr': there are .*gptq-4bit"):
        Recipe.load("spqr")
    with pytest.raises(FileNotFoundError):
        Recipe.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("layer: 3")
    with pytest.raises(ValueError, match=r"bad.yaml: layer is a mapping, not 3"):
        Recipe.load(tmp_path / "bad.yaml")


def test_statistics_that_do_not_fit_are_refused():
    weight, statistics = layer_of(8, 64)
    with pytest.raises(ValueError, match="statistics of 64 columns for a matrix of 32"):
        LayerRecipe(format="int4-g32", solver="rtn").solve(weight[:, :32].copy(), statistics)
    with pytest.raises(ValueError, match="mean square of -"):
        LayerRecipe(format="int4-g32", solver="rtn").solve(weight, Statistics.of(-statistics.hessian, 5))
    holed = statistics.hessian
    holed[3, 4] = holed[4, 3] = np.nan
    for solver in ("rtn", "gptq", "hqq"):
        with pytest.raises(ValueError, match=r"statistics are not finite, nan at \[3, 4\]"):
            LayerRecipe(format="int4-g32", solver=solver).solve(weight, Statistics.of(holed, 5))
    infinite = Statistics(64)
    infinite.update(np.full((2, 64), 3e30, np.float32))
    with pytest.raises(ValueError, match="statistics are not finite"):
        LayerRecipe(format="int4-g32", solver="rtn", outliers=0.01).solve(weight, infinite)


def test_a_side_term_is_recorded_as_it_was_asked_for():
    weight, statistics = layer_of()
    recipe = LayerRecipe(format="int3-g128", outliers=0.01, rank=3, rank_dtype="bf16")
    outliers, low_rank = recipe.solve(weight, statistics).side_terms
    assert isinstance(outliers, Outliers)
    assert outliers.values.size == round(0.01 * weight.size)
    assert isinstance(low_rank, LowRank)
    assert (low_rank.rank, low_rank.u.dtype.name) == (3, "bfloat16")
    tiny = dataclasses.replace(recipe, format="int3-g16", rank=100).solve(weight[:4].copy(), statistics)
    assert tiny.side_terms[1].rank == 4
