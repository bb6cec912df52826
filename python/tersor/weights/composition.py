"""One matrix through outliers, a transform, a solver and a low-rank term, in this order."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.formats import ChannelScales, Hadamard, Outliers, Permutation
from tersor.formats.quantized import DTYPES, QuantizedTensor, matrix_of
from tersor.lossless import NUMPY_DTYPES
from tersor.weights import awq, eora, llm_int8, spqr
from tersor.weights.solver import hessian_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.calibrate import Statistics
    from tersor.formats.recorded import Recorded
    from tersor.weights.layer_recipe import LayerRecipe


def solve(recipe: LayerRecipe, weight: object, statistics: Statistics | None, threads: int) -> QuantizedTensor:
    """LayerRecipe.solve."""
    matrix = matrix_of(weight)
    known = _statistics(recipe, matrix, statistics)
    outliers = _outliers(recipe, matrix, known, threads)
    rest: NDArray[Any] = matrix if outliers is None else outliers.undo(matrix.astype(np.float32))
    transform, inputs = _transform(recipe, rest, known, threads), known
    if transform is not None:
        rest = np.ascontiguousarray(transform.apply(rest.astype(np.float32)))
        inputs = known and known.transformed(transform)
    solved = recipe.made_solver().solve(rest, recipe.format, inputs, threads=threads)
    made = dataclasses.replace(
        solved,
        dtype=next(name for name in DTYPES if NUMPY_DTYPES[name] == matrix.dtype),
        transforms=() if transform is None else (transform,),
        activations=recipe.activations or solved.activations,
    )
    terms: list[Recorded] = []
    if outliers is not None:
        if known is not None and recipe.outlier_kind == "sensitivity":
            left = matrix - made.dequantize(np.float32, threads=threads)
            outliers = spqr.refitted(outliers, left, known, damping=recipe.damping)
        terms.append(outliers)
    if known is not None and recipe.rank:
        left = matrix - dataclasses.replace(made, side_terms=tuple(terms)).dequantize(np.float32, threads=threads)
        terms.append(eora.low_rank(left, known, min(recipe.rank, *left.shape), dtype=recipe.rank_dtype))
    made = dataclasses.replace(made, side_terms=tuple(terms))
    errors = {"weights": made.relative_error(matrix)}
    if known is not None:
        errors["outputs"] = output_error(matrix, made, known)
    return dataclasses.replace(made, errors=errors)


def output_error(weight: object, tensor: QuantizedTensor, statistics: Statistics) -> float:
    """The error of a layer's outputs over the inputs of the statistics, relative to the outputs.

    weight: [N, K], what `tensor` stands for. sqrt(tr(E H E^T) / tr(W H W^T)) with E = dequantized - W and H the mean of
    x x^T; 0 where both are. Raises ValueError (shapes).
    """
    matrix = matrix_of(weight).astype(np.float32)
    if tensor.shape != matrix.shape or statistics.columns != matrix.shape[1]:
        raise ValueError(
            f"weights are {list(matrix.shape)}, the quantized matrix {list(tensor.shape)}, the statistics of "
            f"{statistics.columns} columns"
        )
    hessian = statistics.hessian
    off, of = _energy(tensor.dequantize(np.float32) - matrix, hessian), _energy(matrix, hessian)
    return math.sqrt(off / of) if of else math.sqrt(off)


def _energy(matrix: NDArray[np.float32], hessian: NDArray[np.float32]) -> float:
    """tr(M H M^T), which rounding may make negative where it is about 0."""
    return max(0.0, float(np.einsum("nk,nk->", matrix @ hessian, matrix, dtype=np.float64)))


def _statistics(recipe: LayerRecipe, matrix: NDArray[Any], given: Statistics | None) -> Statistics | None:
    if not recipe.needs_statistics and (given is None or given.tokens == 0):
        return None
    hessian_for(matrix, given)  # refuses what is none
    return given


def _outliers(
    recipe: LayerRecipe, matrix: NDArray[Any], statistics: Statistics | None, threads: int
) -> Outliers | None:
    if recipe.outliers == 0:
        return None
    if recipe.outlier_kind == "magnitude" or statistics is None:
        return Outliers.fit(matrix, recipe.outliers, threads=threads)
    if recipe.outlier_kind == "columns":
        return llm_int8.outlier_columns(matrix, statistics, recipe.outliers)
    return spqr.outliers(matrix, recipe.format, statistics, recipe.outliers, damping=recipe.damping, threads=threads)


def _transform(
    recipe: LayerRecipe, rest: NDArray[Any], statistics: Statistics | None, threads: int
) -> ChannelScales | Hadamard | Permutation | None:
    if recipe.transform == "hadamard":
        return Hadamard(recipe.seed)
    if statistics is None or not recipe.transform:
        return None
    if recipe.transform == "permute":
        return Permutation(np.argsort(-np.diag(statistics.hessian), kind="stable"))
    if recipe.transform == "smooth":
        return awq.smoothing(rest, statistics)
    return awq.channel_scales(rest, recipe.format, statistics, threads=threads)
