"""The run over a model: block after block is read, solved, written and dropped. Page: docs/quantize.md."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

import tersor
from tersor.evaluate.divergence import mean_divergence
from tersor.formats.format import parse
from tersor.formats.model_folder import Entry, ModelWriter
from tersor.formats.quantized import QuantizedTensor
from tersor.nn.blocks import Layer, layers_of, matrix_of
from tersor.nn.calibration import HiddenStates, Taps, Workers
from tersor.nn.discquant import DiscQuant
from tersor.nn.learned_rounding import LearnedRounding
from tersor.nn.quantized import tensor_of_array
from tersor.nn.stages import Source, Stage, Stages, drop, logits_of
from tersor.weights import LayerRecipe, Recipe

CHECKED = 8  # windows that no solver sees, on which the whole model's loss is measured


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """What became of a matrix.

    error: of weights, ||W' - W|| / ||W||. output_error: the same of what the layer gives, on the calibration; 0 where
    nothing was known of its inputs. tokens: that it was calibrated with. reason: why it stays dense, or was not
    calibrated.
    """

    name: str
    format: str
    bytes: int
    bits_per_weight: float
    error: float = 0.0
    output_error: float = 0.0
    tokens: int = 0
    tied_to: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Of the quantized model beside the dense one, on windows of the calibration text that no solver has seen.

    Of a model with an output head the mean divergence of its predictions in nats a token, and both perplexities where
    it predicts the next token and they are numbers; of an encoder the mean cosine of what it makes of each token.
    """

    windows: int
    kl_mean: float | None = None
    perplexity: float | None = None
    perplexity_dense: float | None = None
    cosine: float | None = None


class Run:
    """One model quantized into one folder.

    model: of transformers, parameters on meta, buffers in memory, evaluation mode. source: its weights. windows: int64
    [count, length], the last CHECKED of which measure the loss; count 0 where no solver needs statistics. writer: its
    parts are taken as they are, whose they are is the caller's to know (writer.begin). progress: called with what
    became of each layer, how many are done and how many there are.
    Raises ValueError: a recipe that needs a text; no layer that is quantized; weights, inputs or predictions that are
    not finite, with the layer's name; DiscQuant for a model without predictions.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        source: Source,
        windows: np.ndarray[Any, Any],
        recipe: Recipe,
        writer: ModelWriter,
        *,
        threads: int = 0,
        progress: Callable[[LayerResult, int, int], None] | None = None,
    ) -> None:
        self._model, self._source, self._recipe, self._writer = model, source, recipe, writer
        self._windows = torch.from_numpy(np.asarray(windows, np.int64))
        self._progress, self._threads = progress, threads or tersor.get_num_threads()
        self._layers = layers_of(model)
        first = {id(parameter): name for name, parameter in model.named_parameters()}
        self._aliases = {
            name: first[id(parameter)] for name, parameter in model.named_parameters(remove_duplicate=False)
        }
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        self._head = next((path for path, module in model.named_modules() if module is head and head is not None), "")
        self._done: list[LayerResult] = []
        self._predicted: list[torch.Tensor] = []
        self._experts: tuple[str, np.ndarray[Any, Any]] = ("", np.zeros(0))

    def go(self) -> tuple[list[LayerResult], Loss | None]:
        """Quantize, and write all parts; `writer.finish` is the caller's."""
        workers = Workers(self._threads)
        count = len(self._windows)
        enough = count >= self._recipe.samples + CHECKED
        checked = min(CHECKED, count if enough else max(1, count // 4), max(0, count - 1))
        calibrated = count - checked
        self._hidden = HiddenStates(calibrated, self._writer.parts / "hidden.bin")
        self._dense_hidden = HiddenStates(calibrated, self._writer.parts / "dense.bin")
        try:
            self._stages = Stages(self._model, self._source, self._windows)
            self._recipes = {layer.name: self._recipe_of(layer) for layer in self._layers}
            self._keep_experts_together()
            self._learns = {layer.name for layer in self._layers if self._solver_of(layer) == "learned"}
            self._refined = [layer for layer in self._layers if self._solver_of(layer) == "discquant"]
            self._require_work()
            if not any(
                isinstance(recipe, LayerRecipe) and recipe.needs_statistics for recipe in self._recipes.values()
            ):
                self._hidden = HiddenStates(0, self._writer.parts / "hidden.bin")  # nobody looks at what flows
            for i in range(len(self._hidden)):
                self._hidden[i] = self._stages.first_input(i)
                if self._learns:
                    self._dense_hidden[i] = self._hidden[i]
            self._dense = [self._stages.first_input(calibrated + i) for i in range(checked)]
            self._quantized = list(self._dense)
            self._stages.drop_outside()
            self._outside()
            for i, stage in enumerate(self._stages.stages):
                stage.load(self._source)
                self._stage(i + 1, stage, workers)
                stage.drop()
            if self._refined and calibrated:
                self._refine_whole(calibrated)
            if not checked:
                return self._done, None
            self._stages.load_outside()
            return self._done, self._loss(calibrated)
        finally:
            drop(self._model)
            workers.close()
            self._hidden.close()
            self._dense_hidden.close()

    def _outside(self) -> None:
        """Part 0: what no block has. Embeddings and head are rounded where the recipe says so."""
        if self._writer.has_part(0):
            self._report(self._writer.notes(0)["results"])
            return
        entries = {name: Entry(tensor=self._source.array(name)) for name in self._stages.outside}
        results = []
        for layer in self._layers:
            if self._stages.has(layer.name):
                continue
            recipe = self._recipes[layer.name]
            if isinstance(recipe, str):
                results.append(_dense(layer, recipe, entries))
            elif layer.tied_to:
                entries[layer.name] = Entry(tensor=None, module=layer.module, tied_to=layer.tied_to)
                results.append(_tied(layer))
            else:
                tensor = recipe.solve(_oriented(entries[layer.name].tensor, layer), threads=self._threads)
                entries[layer.name] = Entry(tensor=tensor, module=layer.module)
                results.append(_result(layer, tensor, 0))
        if any(entry.tied_to for entry in entries.values()):  # transformers ties nothing of this model any more
            for alias, name in self._aliases.items():
                if alias not in entries and name in entries and isinstance(entries[name].tensor, np.ndarray):
                    entries[alias] = entries[name]
        self._write(0, entries, results)

    def _stage(self, number: int, stage: Stage, workers: Workers) -> None:
        layers = [layer for layer in self._layers if layer.name.startswith(stage.prefix)]
        following = _all(stage, self._dense, workers)
        if self._learns:
            # Of the last stage too: they are what its block is to give.
            self._dense_hidden = self._flowed(stage, self._dense_hidden, workers, f"dense{number}.bin")
        if self._writer.has_part(number):
            tensors, notes = self._writer.read_part(number)
            for layer in layers:
                tensor = tensors.get(layer.name)
                if isinstance(tensor, QuantizedTensor):
                    self._put(layer, tensor)
            self._report(notes["results"])
        else:
            self._solve(number, stage, layers, workers)
        self._dense = following
        self._quantized = _all(stage, self._quantized, workers)
        if number < len(self._stages.stages):
            self._hidden = self._flowed(stage, self._hidden, workers, f"hidden{number}.bin")

    def _flowed(self, stage: Stage, hidden: HiddenStates, workers: Workers, place: str) -> HiddenStates:
        """What a stage makes of hidden states, which are gone then."""
        made = HiddenStates(len(hidden), self._writer.parts / place)
        for i, output in enumerate(workers.each(lambda i: stage(hidden[i]), len(hidden))):
            made[i] = output
        hidden.close()
        return made

    def _solve(self, number: int, stage: Stage, layers: Sequence[Layer], workers: Workers) -> None:
        entries: dict[str, Entry] = {}
        results: dict[str, LayerResult] = {}
        recipes = self._recipes
        solved = [layer for layer in layers if not isinstance(recipes[layer.name], str)]
        taps = Taps(stage.module, solved, self._model)
        groups = [[layer] for layer in solved]
        if len(self._hidden):
            groups = taps.order(lambda: stage(self._hidden[0]))
        for group in groups:
            statistics: Mapping[str, Any] = {}
            if any(
                recipe.needs_statistics for layer in group if isinstance(recipe := recipes[layer.name], LayerRecipe)
            ):
                if not len(self._hidden):
                    raise ValueError(f"{group[0].name}: its solver needs a calibration text")
                with _named(group[0]):
                    statistics = taps.statistics(group, lambda i: stage(self._hidden[i]), len(self._hidden), workers)
            for layer in group:
                recipe = recipes[layer.name]
                assert isinstance(recipe, LayerRecipe)
                with _named(layer):
                    tensor, result = self._solved(layer, recipe, statistics.get(layer.name))
                entries[layer.name] = Entry(tensor=tensor, module=layer.module)
                results[layer.name] = result
                self._put(layer, tensor)
                if layer.name not in self._learns:
                    self._tell(result)
        if learned := [layer for layer in solved if layer.name in self._learns]:
            self._learn(stage, learned, entries, results)
        marks = {layer.name.rpartition(".")[0] for layer in solved if layer.module == "expert"}
        for name in self._source.names():
            if name.startswith(stage.prefix) and name not in entries and name not in marks:
                entries[name] = Entry(tensor=self._source.array(name))
        for layer in layers:
            if isinstance(reason := recipes[layer.name], str):
                results[layer.name] = _dense(layer, reason, entries)
                self._tell(results[layer.name])
        self._write(number, entries, list(results.values()), told=True)

    def _learn(
        self, stage: Stage, layers: Sequence[Layer], entries: dict[str, Entry], results: dict[str, LayerResult]
    ) -> None:
        """Codes and scales that bring the block's outputs nearer to those of the dense model."""
        names = {layer.path.removeprefix(stage.prefix): layer for layer in layers}
        made = LearnedRounding(seed=self._recipe.seed).refine(
            stage.module,
            _Calls(stage, self._hidden),
            self._dense_hidden,
            {name: entries[layer.name].tensor for name, layer in names.items()},
            weights={name: self._dense_weight(layer) for name, layer in names.items()},
        )
        for name, layer in names.items():
            self._replace(layer, made[name], entries, results)
            self._tell(results[layer.name])

    def _refine_whole(self, count: int) -> None:
        """Codes and scales that bring the whole model's predictions nearer to the dense one's; it is in memory now."""
        number = len(self._stages.stages) + 1
        self._stages.load_outside()
        for stage in self._stages.stages:
            stage.load(self._source)
        entries: dict[str, Entry] = {}
        for i in range(1, number):
            tensors, _ = self._writer.read_part(i)
            entries |= {name: Entry(tensor=one) for name, one in tensors.items() if isinstance(one, QuantizedTensor)}
        refined = {layer.name for layer in self._refined}
        for layer in self._layers:
            if layer.name in entries and layer.name not in refined:
                self._put(layer, entries[layer.name].tensor)
        results = {result.name: result for result in self._done}
        if self._writer.has_part(number):
            known, notes = self._writer.read_part(number)
            made = {layer.path: one for layer in self._refined if isinstance(one := known[layer.name], QuantizedTensor)}
            results |= {row["name"]: LayerResult(**row) for row in notes["results"]}
        else:
            start = {layer.path: entries[layer.name].tensor for layer in self._refined}
            made = DiscQuant(seed=self._recipe.seed).refine(self._model, list(self._windows[:count]), start)
        for layer in self._refined:
            self._replace(layer, made[layer.path], entries, results)
        if not self._writer.has_part(number):
            own = {layer.name: dataclasses.replace(entries[layer.name], module=layer.module) for layer in self._refined}
            told = [asdict(results[layer.name]) for layer in self._refined]
            self._writer.write_part(number, own, {"results": told})
        self._done = [results[result.name] for result in self._done]
        with torch.no_grad():
            self._predicted = [logits_of(self._model, window[None])[0] for window in self._windows[count:]]

    def _replace(
        self, layer: Layer, tensor: QuantizedTensor, entries: dict[str, Entry], results: dict[str, LayerResult]
    ) -> None:
        """A better matrix in the place of a layer's. The output error was that of the one before."""
        entries[layer.name] = Entry(tensor=tensor, module=layer.module)
        results[layer.name] = _result(layer, tensor, results[layer.name].tokens)
        self._put(layer, tensor)

    def _dense_weight(self, layer: Layer) -> torch.Tensor:
        return tensor_of_array(self._weight(layer)).to(torch.float32)

    def _solver_of(self, layer: Layer) -> str:
        """ "" for layers that stay dense, and experts, which learn nothing."""
        recipe = self._recipes[layer.name]
        return "" if isinstance(recipe, str) or layer.module not in ("linear", "conv1d") else recipe.solver

    def _keep_experts_together(self) -> None:
        """One layer runs all matrices of its experts: where one stays dense, all do."""
        for layer in self._layers:
            if layer.module == "expert" and isinstance(reason := self._recipes[layer.name], str):
                told = f"{layer.name} stays dense: {reason}"
                for other in self._layers:
                    if other.path == layer.path and not isinstance(self._recipes[other.name], str):
                        self._recipes[other.name] = told

    def _require_work(self) -> None:
        """Raise before anything is computed for nothing."""
        if all(isinstance(recipe, str) for recipe in self._recipes.values()):
            told = "; ".join(sorted({str(recipe) for recipe in self._recipes.values()}))
            raise ValueError(f"no layer would be quantized: {told or 'the model has no matrices'}")
        if self._refined and not self._head:
            raise ValueError("discquant learns from a model's predictions, and this one has no output head")
        names = [layer.name for layer in self._layers]
        for rule in self._recipe.rules:
            if not any(fnmatch.fnmatchcase(name, rule.pattern) for name in names):
                raise ValueError(f"the rule {rule.pattern!r} names no layer: they are named as {names[-1]!r}")

    def _solved(self, layer: Layer, recipe: LayerRecipe, statistics: Any) -> tuple[QuantizedTensor, LayerResult]:
        weight = self._weight(layer)
        reason = ""
        if recipe.needs_statistics and (statistics is None or not statistics.tokens):
            recipe, reason, statistics = _uncalibrated(recipe), "no token of the calibration reached it", None
        tensor = recipe.solve(weight, statistics, threads=self._threads)
        return tensor, _result(layer, tensor, 0 if statistics is None else statistics.tokens, reason)

    def _weight(self, layer: Layer) -> np.ndarray[Any, Any]:
        """The matrix [N, K] in the source's dtype."""
        if layer.module == "expert":
            rest, _, number = layer.name.rpartition(".")
            if self._experts[0] != rest:  # all of them are one array of the file
                self._experts = rest, self._source.array(rest)
            return np.ascontiguousarray(self._experts[1][int(number)])
        return _oriented(self._source.array(layer.name), layer)

    def _put(self, layer: Layer, tensor: QuantizedTensor) -> None:
        """The quantized matrix in the place of the dense one, which what follows is then calibrated with."""
        matrix = matrix_of(self._model.get_submodule(layer.path), layer)
        matrix.copy_(tensor_of_array(tensor.dequantize(np.float32)))

    def _recipe_of(self, layer: Layer) -> LayerRecipe | str:
        """What becomes of a layer, or why it stays dense."""
        if layer.reason:
            return layer.reason
        is_embedding, is_head = layer.module == "embedding", layer.path == self._head
        if (is_embedding or is_head) and self._stages.is_whole:
            return "embeddings and heads stay dense in a model that is one stage"
        recipe = self._recipe.for_layer(layer.name, is_embedding=is_embedding, is_head=is_head)
        if recipe is None:
            kind = "an embedding" if is_embedding else "the output head" if is_head else ""
            return f"{kind} stays dense unless the recipe says more" if kind else "the recipe leaves it dense"
        if recipe.needs_statistics and not (is_embedding or is_head or self._stages.has(layer.name)):
            return "it stands outside of the blocks, where no inputs are seen"
        try:
            parse(recipe.format).parts(*layer.shape)
        except ValueError as error:
            return str(error)
        return recipe

    def _loss(self, first: int) -> Loss:
        count = len(self._dense)
        divergence, cosine, losses = 0.0, 0.0, np.zeros(2)
        for i in range(count):
            with torch.no_grad():
                wanted = self._stages.outputs(self._dense[i], first + i)
                given = self._predicted[i] if self._predicted else self._stages.outputs(self._quantized[i], first + i)
            if not self._head:
                cosine += float(torch.cosine_similarity(given.double(), wanted.double(), dim=-1).mean()) / count
                continue
            for name, logits in (("dense", wanted), ("quantized", given)):
                if not torch.isfinite(logits).all():
                    raise ValueError(f"the {name} model's predictions are not finite")
            kl, ours, theirs = mean_divergence(given, wanted, self._windows[first + i])
            divergence += kl / count
            losses += np.array([ours, theirs]) / count
        if not self._head:
            return Loss(windows=count, cosine=cosine)
        if not self._model.can_generate():  # what it predicts is not the next token
            return Loss(windows=count, kl_mean=divergence)
        return Loss(
            windows=count, kl_mean=divergence, perplexity=_exp(losses[0]), perplexity_dense=_exp(losses[1])
        )  # fmt: skip

    def _write(
        self, number: int, entries: Mapping[str, Entry], results: Sequence[LayerResult], *, told: bool = False
    ) -> None:
        self._writer.write_part(number, entries, {"results": [asdict(result) for result in results]})
        if not told:
            for result in results:
                self._tell(result)

    def _report(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self._tell(LayerResult(**row))

    def _tell(self, result: LayerResult) -> None:
        self._done.append(result)
        if self._progress is not None:
            self._progress(result, len(self._done), len(self._layers))


class _Calls(Sequence[Any]):
    """What a block is called with, window by window."""

    def __init__(self, stage: Stage, hidden: HiddenStates) -> None:
        self._stage, self._hidden = stage, hidden

    def __len__(self) -> int:
        return len(self._hidden)

    def __getitem__(self, i: Any) -> Any:
        return (self._hidden[i], *self._stage.arguments), self._stage.named


def _all(stage: Stage, hidden: Sequence[torch.Tensor], workers: Workers) -> list[torch.Tensor]:
    return list(workers.each(lambda i: stage(hidden[i]), len(hidden)))


def _exp(loss: float) -> float | None:
    """None beyond what floats hold, which JSON has no number for."""
    return math.exp(loss) if loss < 700 else None  # NaN was refused


@contextlib.contextmanager
def _named(layer: Layer) -> Iterator[None]:
    """Errors begin with the layer's name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{layer.name}: {error}") from None


def _uncalibrated(recipe: LayerRecipe) -> LayerRecipe:
    """The same format where nothing is known of the inputs."""
    return LayerRecipe(
        format=recipe.format, solver="rtn", grid="mse", activations=recipe.activations, seed=recipe.seed
    )  # fmt: skip


def _oriented(array: np.ndarray[Any, Any], layer: Layer) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(array.T) if layer.module == "conv1d" else array


def _result(layer: Layer, tensor: QuantizedTensor, tokens: int, reason: str = "") -> LayerResult:
    return LayerResult(
        name=layer.name, format=str(tensor.format), bytes=tensor.nbytes, bits_per_weight=tensor.bits_per_weight,
        error=tensor.errors["weights"], output_error=tensor.errors.get("outputs", 0.0), tokens=tokens, reason=reason,
    )  # fmt: skip


def _dense(layer: Layer, reason: str, entries: Mapping[str, Entry]) -> LayerResult:
    name = layer.name.rpartition(".")[0] if layer.module == "expert" else layer.name
    size = math.prod(layer.shape)
    array = entries[name].tensor if name in entries else None
    itemsize = 0 if array is None or layer.tied_to else array.dtype.itemsize
    return LayerResult(
        name=layer.name, format="", bytes=size * itemsize, bits_per_weight=8.0 * itemsize, tied_to=layer.tied_to,
        reason=reason,
    )  # fmt: skip


def _tied(layer: Layer) -> LayerResult:
    return LayerResult(name=layer.name, format="", bytes=0, bits_per_weight=0.0, tied_to=layer.tied_to)
