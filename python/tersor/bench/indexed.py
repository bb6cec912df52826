"""Cases of the indexed stream: integers that each name one of 64 Gaussian tables, as the latents of learned codecs do.

Symbols are int32, so 1 GB/s is 250 M symbols/s. Tables are built before; NumPy arrays go in and come out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tersor.bench import ours
from tersor.bench.harness import AbsentError, Bytes, Case, Codec
from tersor.bench.peers import imported
from tersor.bench.selection import Factory, Selection, choose

TABLES, LEAST_SCALE, MOST_SCALE = 64, 0.11, 64.0
ROUNDS, QUICK_ROUNDS = 11, 3
CALL = 1000  # symbols of an incremental call
TORCHAC_SYMBOLS = 8192  # whose cdfs, one a symbol, take 30 MB of floats

CASES = {"latent4k": 4000, "latent1m": 1 << 20, "latent4m": 4 << 20}
QUICK_CASES = {"latent4k": 4000, "latent1m": 1 << 16, "latent4m": 1 << 17}

Array = NDArray[Any]


@cache
def tables() -> Any:
    """Gaussians of 64 scales, 0.11 to 64, each the same factor above the one before."""
    from tersor.entropy import TableSet

    return TableSet.gaussian(np.geomspace(LEAST_SCALE, MOST_SCALE, TABLES))


@cache
def indexes(count: int) -> Array:
    """[count] int32, uniform; fewer are the first of more."""
    return np.random.default_rng(5).integers(0, TABLES, count, dtype=np.int32)


def symbols(count: int) -> Array:
    """[count] int32: Gaussians of the scales that the indexes name, rounded; a few lie outside their tables."""
    scales = np.geomspace(LEAST_SCALE, MOST_SCALE, TABLES)[indexes(count)]
    return np.rint(np.random.default_rng(6).standard_normal(count) * scales).astype(np.int32)


def floor_bits(found: Array) -> float:
    """Cross-entropy of the symbols under the integer tables, bits a symbol; an escape costs its slots alone."""
    total, named = 0.0, indexes(found.size)
    for index in range(TABLES):
        frequencies, low = tables().frequencies(index), int(tables().offsets[index])
        places = found[named == index].astype(np.int64) - low
        inside = (places >= 0) & (places < frequencies.size - 1)
        total += float((16 - np.log2(frequencies[np.where(inside, places, frequencies.size - 1)])).sum())
    return total / found.size


def coder(*, threads: int = 1, isa: str | None = None, call: int | None = None) -> Codec:
    """encode_indexed and decode_indexed, or Encoder and Decoder in calls of so many symbols. Raises AbsentError."""
    from tersor import entropy

    if isa is not None and not ours.runs(isa):
        raise AbsentError(f"this machine, or TERSOR_ISA, has no {isa}")
    held = tables()

    def encode(data: Any) -> Any:
        named = indexes(data.size)
        if call is None:
            return entropy.encode_indexed(data, named, held)
        encoder = entropy.Encoder()
        for at in range(0, data.size, call):
            encoder.write(data[at : at + call], named[at : at + call], held)
        return encoder.finish()

    def decode(coded: Any, out: Bytes | None) -> Any:
        decoder = entropy.Decoder(coded)
        named = indexes(len(decoder))
        result = None if out is None else out.view(np.int32)
        if call is None:
            return entropy.decode_indexed(coded, named, held, out=result)
        if result is None:
            result = np.empty(named.size, np.int32)
        for at in range(0, named.size, call):
            decoder.read(named[at : at + call], held, out=result[at : at + call])
        return result

    return Codec(
        name=coder_name(threads=threads, isa=isa, call=call),
        encode=encode,
        decode=decode,
        setting=lambda: ours.held(threads=threads, isa=isa),
        ours=True,
        threads=threads,
        held=isa,
        options={"isa": isa or ours.isa(), "call": call},
    )


def coder_name(*, threads: int = 1, isa: str | None = None, call: int | None = None) -> str:
    """The name of a row: "tersor", "tersor, avx2", "tersor, calls of 1000", "tersor, 2 threads"."""
    return ours.row_name("tersor", isa, f"calls of {call}" if call else None, threads=threads)


def _compressai_ans() -> Any:
    """Its coder alone, from its file: the package around it imports far more than it needs to code."""
    spec = importlib.util.find_spec("compressai")
    for folder in (spec and spec.submodule_search_locations) or []:
        for path in Path(folder).glob("ans.*.so"):
            found = importlib.util.spec_from_file_location("ans", path)
            assert found is not None
            assert found.loader is not None
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
            return module
    raise AbsentError("no compressai here: pip install --no-deps compressai==1.2.8")


def compressai(*, lists_ready: bool) -> Codec:
    """CompressAI's RansEncoder and RansDecoder with our tables. lists_ready: the conversions between arrays and lists,
    which CompressAI's models make around every call, are not timed."""
    ans = _compressai_ans()
    held = tables()
    cdfs = [[0, *np.cumsum(held.frequencies(index)).tolist()] for index in range(TABLES)]
    model = (cdfs, [len(cdf) for cdf in cdfs], held.offsets.tolist())
    lists: dict[int, list[int]] = {}

    def named(count: int) -> list[int]:
        if count in lists:
            return lists[count]
        found: list[int] = indexes(count).tolist()
        if lists_ready:
            lists[count] = found
        return found

    def encode(data: Any) -> Any:
        taken = data if lists_ready else data.tolist()
        return len(taken), ans.RansEncoder().encode_with_indexes(taken, named(len(taken)), *model)

    def decode(coded: Any, out: Bytes | None) -> Any:
        count, stream = coded
        values = ans.RansDecoder().decode_with_indexes(stream, named(count), *model)
        return values if lists_ready else np.array(values, np.int32)

    return Codec(
        name="compressai.ans, lists ready" if lists_ready else "compressai.ans, as models call it",
        prepare=(lambda data: data.tolist()) if lists_ready else (lambda data: data),
        encode=encode,
        decode=decode,
        size=lambda coded: len(coded[1]),
        policies=("fresh",),
    )


def constriction() -> Codec:
    """constriction's AnsCoder with its exact Gaussian of a scale for each symbol, no tables."""
    stream = imported("constriction", "constriction").stream
    model = stream.model.QuantizedGaussian(-5000, 5000)

    def parameters(count: int) -> tuple[Array, Array]:
        scales = np.geomspace(LEAST_SCALE, MOST_SCALE, TABLES)[indexes(count)]
        return np.zeros(count), scales

    ready = cache(parameters)

    def encode(data: Any) -> Any:
        found = stream.stack.AnsCoder()
        found.encode_reverse(data, model, *ready(data.size))
        return data.size, found.get_compressed()

    def decode(coded: Any, out: Bytes | None) -> Any:
        count, words = coded
        return stream.stack.AnsCoder(words).decode(model, *ready(count))

    return Codec(
        name="constriction AnsCoder",
        encode=encode,
        decode=decode,
        size=lambda coded: coded[1].nbytes,
        policies=("fresh",),
    )


def torchac() -> Codec:
    """torchac with a float cdf for each symbol, made before; the first symbols alone. Raises AbsentError."""
    torch = imported("torch", "torch==2.13.0")
    try:
        module = imported("torchac", "torchac ninja")
    except RuntimeError as error:  # its backend is compiled when it is imported
        raise AbsentError(f"torchac does not build: {error}") from error
    held = tables()
    low, high = int(held.offsets.min()) - 50, -int(held.offsets.min()) + 50
    edges = np.arange(low, high + 2) - 0.5
    normal = torch.distributions.Normal(0.0, 1.0)

    def cdfs(count: int) -> Any:
        scales = np.geomspace(LEAST_SCALE, MOST_SCALE, TABLES)[indexes(count)]
        return normal.cdf(torch.from_numpy(edges[None, :] / scales[:, None])).to(torch.float32)

    ready = cache(cdfs)

    def encode(data: Any) -> Any:
        moved = torch.from_numpy((data - low).astype(np.int16))
        return data.size, module.encode_float_cdf(ready(data.size), moved, check_input_bounds=False)

    def decode(coded: Any, out: Bytes | None) -> Any:
        count, stream = coded
        return module.decode_float_cdf(ready(count), stream).numpy().astype(np.int32) + low

    return Codec(
        name="torchac",
        encode=encode,
        decode=decode,
        size=lambda coded: len(coded[1]),
        policies=("fresh",),
        limit_bytes=4 * TORCHAC_SYMBOLS,
    )


PEERS: dict[str, Factory] = {
    "compressai.ans, lists ready": partial(compressai, lists_ready=True),
    "compressai.ans, as models call it": partial(compressai, lists_ready=False),
    "constriction AnsCoder": constriction,
    "torchac": torchac,
}


def _ours() -> dict[str, Factory]:
    rows: list[dict[str, Any]] = [{}, {"call": CALL}, {"threads": 2}, {"isa": "avx2"}, {"isa": "scalar"}]
    return {coder_name(**row): partial(coder, **row) for row in rows}


def _case(name: str, count: int) -> Case:
    data = symbols(count)
    return Case(
        name=name,
        data=data,
        about=f"{count} integers of 64 Gaussian scales, 0.11 to 64",
        floor_bits=floor_bits(data),
    )


def plan(
    *,
    peers: bool,
    quick: bool,
    rounds: int | None = None,
    cases: Sequence[str] | None = None,
    impls: Sequence[str] | None = None,
    data: str | None = None,
) -> Selection:
    """The cases and coders that the options leave, and why others are skipped. `data` has no use here."""
    factories = {**_ours(), **(PEERS if peers else {})}
    made: dict[str, Callable[[], Case]] = {
        name: partial(_case, name, count) for name, count in (QUICK_CASES if quick else CASES).items()
    }
    return choose(
        made,
        lambda case: factories,
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        only=cases,
        impls=impls,
    )
