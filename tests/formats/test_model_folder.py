"""tersor.formats.model_folder: what is written is read, in one file and in shards; what nobody wrote is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy

import tersor
from tersor import formats
from tersor.formats.model_folder import Entry, ModelFolder, ModelWriter


def _entries(seed: int = 0) -> dict[str, Entry]:
    random = np.random.default_rng(seed)

    def matrix(rows: int) -> np.ndarray:
        return random.standard_normal((rows, 64), np.float32)

    outliers = formats.Outliers.fit(matrix(48), 0.02)
    hadamard = formats.Hadamard(3)
    return {
        "embed.weight": Entry(tensor=tersor.quantize(matrix(96), "int8"), module="embedding"),
        "head.weight": Entry(tensor=None, tied_to="embed.weight"),
        "a.b.weight": Entry(
            tensor=tersor.quantize(
                matrix(48),
                "int4-g32",
                transforms=[hadamard],
                side_terms=[outliers],
            )
        ),
        "a.experts.up.0": Entry(tensor=tersor.quantize(matrix(8), "int3-g32"), module="expert"),
        "a.norm.weight": Entry(tensor=random.standard_normal(64, np.float32).astype(np.float16)),
    }


def _written(folder, shard_bytes: int = 1 << 30) -> dict[str, Entry]:
    entries = _entries()
    writer = ModelWriter(folder, shard_bytes=shard_bytes)
    writer.write_part(0, {name: entries[name] for name in ("embed.weight", "head.weight")})
    writer.write_part(1, {name: entries[name] for name in ("a.b.weight", "a.experts.up.0", "a.norm.weight")}, {"n": 1})
    writer.finish({"model_type": "x"}, {"recipe": "name: x\n"})
    return entries


@pytest.mark.parametrize("shard_bytes", [1 << 30, 3000])
def test_what_is_written_is_read(tmp_path, shard_bytes):
    entries = _written(tmp_path, shard_bytes)
    assert (tmp_path / "model.safetensors").is_file() == (shard_bytes > 3000)
    with ModelFolder(tmp_path) as folder:
        assert set(folder.names()) == set(entries)
        for name, entry in entries.items():
            found, wanted = folder.get(name), entries[entry.tied_to].tensor if entry.tied_to else entry.tensor
            assert folder.shape(name) == wanted.shape
            if isinstance(wanted, np.ndarray):
                np.testing.assert_array_equal(found, wanted, strict=True)
            else:
                assert (found.format, found.activations, found.nbytes) == (
                    wanted.format,
                    wanted.activations,
                    wanted.nbytes,
                )
                np.testing.assert_array_equal(found.dequantize(), wanted.dequantize())
        assert folder.config["quantization_config"]["recipe"] == "name: x\n"
        for file in folder.files:  # each opens alone, in our reader and in the format's own
            alone = formats.load_file(file)
            assert {f"{name}.weight" for name in alone if isinstance(alone[name], formats.QuantizedTensor)} <= {
                *entries, "a.experts.0.up.weight",
            }  # fmt: skip
            assert safetensors.numpy.load_file(file).keys() >= alone.keys() - {"embed", "a.b", "a.experts.0.up"}
    assert not (tmp_path / ".parts").exists()


def test_every_quantized_parameter_is_marked(tmp_path):
    _written(tmp_path)
    arrays = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    for name in ("embed.weight", "a.b.weight", "a.experts.up"):
        assert arrays[name].shape == (0,)
    assert "head.weight" not in arrays


def test_the_same_parts_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        _written(tmp_path / name)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_parts_are_read_again(tmp_path):
    writer, entries = ModelWriter(tmp_path), _entries()
    assert not writer.has_part(0)
    writer.write_part(0, entries, {"block": 7})
    found, notes = ModelWriter(tmp_path).read_part(0)
    assert notes == {"block": 7}
    assert found.keys() == entries.keys() - {"head.weight"}
    np.testing.assert_array_equal(found["a.b.weight"].dequantize(), entries["a.b.weight"].tensor.dequantize())


def _read(path):
    with ModelFolder(path) as folder:
        return {name: folder.get(name) for name in folder.names()}


def _changed(change):
    def edit(folder):
        config = json.loads((folder / "config.json").read_text())
        change(config["quantization_config"])
        (folder / "config.json").write_text(json.dumps(config))

    return edit


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (_changed(lambda q: q.update(quant_method="gptq")), "quantized by 'gptq'"),
        (_changed(lambda q: q.update(version=2)), "version 2, 1 is needed"),
        (_changed(lambda q: q.update(layers=[])), "has no layers"),
        (_changed(lambda q: q["layers"]["a.b.weight"].update(module="recurrent")), "a matrix of a 'recurrent'"),
        (_changed(lambda q: q["layers"]["head.weight"].update(tied_to="x")), "tied to 'x', which has no matrix"),
        (
            _changed(lambda q: q["layers"]["a.b.weight"]["parts"].update(codes="no")),
            "no array is named 'no'",
        ),
        (_changed(lambda q: q["layers"]["a.b.weight"].update(shape=[48, 65])), "a.b.weight: "),
        (_changed(lambda q: q["layers"]["a.b.weight"].pop("format")), "a.b.weight: "),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "config.json").write_text("[]"), "an object is needed, found list"),
    ],
)
def test_what_nobody_wrote_is_refused(tmp_path, edit, told):
    _written(tmp_path)
    edit(tmp_path)
    with pytest.raises(tersor.FormatError) as raised:
        _read(tmp_path)
    assert told in str(raised.value)


def test_a_shard_that_leads_elsewhere_is_refused(tmp_path):
    _written(tmp_path, 3000)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../x.safetensors"}}))
    with pytest.raises(tersor.FormatError, match=r"the shard '\.\./x\.safetensors', a file name is needed"):
        ModelFolder(tmp_path)
    index.write_text(json.dumps({"weight_map": {"x": "x.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"no shard x\.safetensors"):
        ModelFolder(tmp_path)
