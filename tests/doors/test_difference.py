"""Files coded against bases through every door: found by content, refused by hash, chained, never larger than alone."""

import json
import pathlib
import struct
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import tersor
from tersor import FormatError

COUNT = 600_000  # bf16 weights of the larger tensor: two chunks


def weights(seed, count=COUNT):
    return (np.random.default_rng(seed).standard_normal(count) * 0.02).astype(np.float16)


def stepped(array, seed, share=0.02):
    rng, bits = np.random.default_rng(seed), array.view(np.uint16).copy()
    where = rng.random(bits.shape) < share
    bits[where] += rng.choice([1, 65535], int(where.sum())).astype(np.uint16)
    return bits.view(array.dtype)


def state(seed):
    return {"a": weights(seed), "b": weights(seed + 1, 1000), "c": weights(seed + 2, 50)}


def moved(tensors, seed):
    """`a` and `b` moved a step, `c` as it is, one tensor more."""
    changed = {name: stepped(array, seed) for name, array in tensors.items() if name != "c"}
    return {**changed, "c": tensors["c"], "d": weights(seed, 70)}


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].tobytes() == array.tobytes()


@pytest.fixture
def pair(tmp_path):
    """(base, changed): tensors, saved as base.safetensors, base.tsr and changed.safetensors."""
    base = state(1)
    changed = moved(base, 7)
    safetensors.numpy.save_file(base, tmp_path / "base.safetensors", {"step": "1"})
    safetensors.numpy.save_file(changed, tmp_path / "changed.safetensors")
    tersor.save_file(base, tmp_path / "base.tsr")
    return base, changed


def run(*arguments, code=0, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "tersor", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def test_save_and_load(pair, tmp_path):
    _, changed = pair
    alone = len(tersor.numpy.save(changed))
    for base in (tmp_path / "base.safetensors", str(tmp_path / "base.tsr"), [tmp_path / "base.tsr"]):
        data = tersor.numpy.save(changed, base=base)
        assert len(data) < alone / 30
        assert data == tersor.numpy.save(changed, base=tmp_path / "base.tsr")  # the kind of file does not matter
        tersor.save_file(changed, tmp_path / "x.tsr", base=base)
        assert (tmp_path / "x.tsr").read_bytes() == data
        for where in (tmp_path / "base.safetensors", tmp_path / "base.tsr"):
            same(tersor.load_file(tmp_path / "x.tsr", base=where), changed)
            same(tersor.numpy.load(data, base=[where]), changed)
    with tersor.safe_open(tmp_path / "x.tsr", base=tmp_path / "base.tsr") as file:
        assert file.get_tensor("c").tobytes() == changed["c"].tobytes()
        assert file.get_slice("a")[524_200:524_400].tobytes() == changed["a"][524_200:524_400].tobytes()


def test_torch(pair, tmp_path):
    torch = pytest.importorskip("torch")
    door = pytest.importorskip("tersor.torch")
    _, changed = pair
    tensors = {name: torch.from_numpy(array.copy()) for name, array in changed.items()}
    door.save_file(tensors, tmp_path / "x.tsr", base=tmp_path / "base.safetensors")
    assert door.save(tensors, base=tmp_path / "base.tsr") == (tmp_path / "x.tsr").read_bytes()
    for loaded in (
        door.load_file(tmp_path / "x.tsr", base=tmp_path / "base.tsr"),
        door.load((tmp_path / "x.tsr").read_bytes(), base=tmp_path / "base.safetensors"),
    ):
        assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_a_wrong_or_missing_base_is_refused_with_the_hash_that_is_wanted(pair, tmp_path):
    _, changed = pair
    tersor.save_file(changed, tmp_path / "x.tsr", base=tmp_path / "base.tsr")
    wanted = json.loads(run("info", "--json", "base.tsr", cwd=tmp_path).stdout)["hash"]
    other = tmp_path / "other.safetensors"
    safetensors.numpy.save_file(state(50), other)
    for base in ((), ("--base", other)):
        for command in (("verify",), ("decompress", "-o", "out")):
            done = run(*command, *base, "x.tsr", code=1, cwd=tmp_path)
            assert f"coded against a base whose content hash is {wanted}" in done.stderr
            assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    for attempt in (
        lambda: tersor.load_file(tmp_path / "x.tsr"),
        lambda: tersor.load_file(tmp_path / "x.tsr", base=other),
        lambda: tersor.safe_open(tmp_path / "x.tsr"),
    ):
        with pytest.raises(FormatError, match=wanted):
            attempt()


def test_what_can_be_no_base(pair, tmp_path):
    _, changed = pair
    (tmp_path / "text").write_text("no tensors")
    run("compress", "text", cwd=tmp_path)
    (tmp_path / "empty").mkdir()
    for name, text in (
        ("text", "can be no base"),
        ("text.tsr", "holds no tensors"),
        ("empty", "holds no .safetensors"),
    ):
        with pytest.raises(FormatError, match=text):
            tersor.numpy.save(changed, base=tmp_path / name)
    with pytest.raises(FileNotFoundError):
        tersor.numpy.save(changed, base=tmp_path / "missing.tsr")


def test_chains_and_folders(pair, tmp_path):
    base, changed = pair
    third = moved(changed, 9)
    tersor.save_file(changed, tmp_path / "second.tsr", base=tmp_path / "base.safetensors")
    tersor.save_file(third, tmp_path / "third.tsr", base=[tmp_path / "second.tsr", tmp_path / "base.tsr"])
    listed = json.loads(run("info", "--json", "third.tsr", cwd=tmp_path).stdout)
    second = json.loads(run("info", "--json", "second.tsr", cwd=tmp_path).stdout)
    assert listed["bases"] == [second["hash"]]
    assert second["bases"] == [json.loads(run("info", "--json", "base.tsr", cwd=tmp_path).stdout)["hash"]]
    assert {row["name"]: row.get("base") for row in listed["tensors"]}["a"] == second["hash"]
    for order in (("second.tsr", "base.safetensors"), ("base.tsr", "second.tsr")):
        same(tersor.load_file(tmp_path / "third.tsr", base=[tmp_path / name for name in order]), third)
    with pytest.raises(FormatError, match=second["bases"][0]):  # second.tsr lacks its own
        tersor.load_file(tmp_path / "third.tsr", base=tmp_path / "second.tsr")
    folder = tmp_path / "shards"
    folder.mkdir()
    safetensors.numpy.save_file({"a": base["a"]}, folder / "1.safetensors")
    tersor.save_file({"b": base["b"], "c": base["c"]}, folder / "2.tsr")
    same(tersor.load_file(tmp_path / "second.tsr", base=folder), changed)


def test_a_base_that_needs_itself_is_no_endless_loop(load, tmp_path):
    """An index may claim any hash: here the file's own."""
    container = load("tests/container/oracle.py")
    first = {"w": weights(1, 5000)}
    tersor.save_file(first, tmp_path / "a.tsr")
    tersor.save_file({"w": stepped(first["w"], 2)}, tmp_path / "b.tsr", base=tmp_path / "a.tsr")
    data = (tmp_path / "b.tsr").read_bytes()
    file = container.read(data)
    offset, size = struct.unpack("<QQ", data[-32:-16])
    index = data[offset : offset + size].replace(file.bases[0], file.content_hash())
    trailer = data[-32:-16] + struct.pack("<I", container.crc32c(index))
    trailer += struct.pack("<I", container.crc32c(data[:16] + trailer))
    (tmp_path / "b.tsr").write_bytes(data[:offset] + index + trailer + data[-8:])
    assert container.read((tmp_path / "b.tsr").read_bytes()).bases == [file.content_hash()]
    with pytest.raises(FormatError, match=r"content hash is|needs a base that needs it"):
        tersor.load_file(tmp_path / "b.tsr", base=tmp_path / "b.tsr")


def test_command_line_and_binaries_write_the_same(pair, tmp_path, binaries):
    files = [tmp_path / name for name in ("changed.safetensors", "changed.safetensors.tsr", "e.tsr", "back", "back2")]
    run("compress", "--base", "base.safetensors", files[0], cwd=tmp_path)
    enc = [binaries / "tersor-enc", "--base", tmp_path / "base.tsr", files[0], files[2]]
    subprocess.run(enc, check=True)
    assert files[1].read_bytes() == files[2].read_bytes()
    run("verify", "--base", "base.tsr", files[1], cwd=tmp_path)
    run("decompress", "--base", "base.tsr", "-o", files[3], files[1], cwd=tmp_path)
    subprocess.run([binaries / "tersor-dec", "--base", tmp_path / "base.safetensors", files[1], files[4]], check=True)
    assert files[3].read_bytes() == files[4].read_bytes() == files[0].read_bytes()
    subprocess.run([binaries / "tersor-dec", "--base", tmp_path / "base.safetensors", "--verify", files[1]], check=True)
    refused = subprocess.run([binaries / "tersor-dec", files[1], tmp_path / "no"], capture_output=True, check=False)
    assert refused.returncode == 1
    assert b"content hash" in refused.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_the_bytes(pair, tmp_path, threads):
    _, changed = pair
    want = tersor.numpy.save(changed, base=tmp_path / "base.tsr")
    before = tersor.get_num_threads()
    tersor.set_num_threads(threads)
    try:
        assert tersor.numpy.save(changed, base=tmp_path / "base.tsr") == want
        same(tersor.numpy.load(want, base=tmp_path / "base.tsr"), changed)
    finally:
        tersor.set_num_threads(before)


def test_an_unrelated_base_costs_next_to_nothing(tmp_path):
    tersor.save_file(state(1), tmp_path / "base.tsr")
    other = state(100)
    alone, against = tersor.numpy.save(other), tersor.numpy.save(other, base=tmp_path / "base.tsr")
    assert len(against) <= len(alone) * 1.001
    same(tersor.numpy.load(against, base=tmp_path / "base.tsr"), other)


def test_an_output_that_is_its_own_base_is_refused(pair, tmp_path):
    _, changed = pair
    before = (tmp_path / "base.tsr").read_bytes()
    with pytest.raises(OSError, match="is a base"):
        tersor.save_file(changed, tmp_path / "base.tsr", base=tmp_path / "base.tsr")
    done = run("compress", "-f", "--base", "base.tsr", "-o", "base.tsr", "changed.safetensors", code=1, cwd=tmp_path)
    assert "is a base" in done.stderr
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "1.tsr").write_bytes(before)
    with pytest.raises(OSError, match="would change its base"):
        tersor.save_file(changed, folder / "2.tsr", base=folder)
    assert (tmp_path / "base.tsr").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["1.tsr"]


def test_damage_in_the_base_is_told_of_the_base(pair, tmp_path):
    _, changed = pair
    tersor.save_file(changed, tmp_path / "x.tsr", base=tmp_path / "base.tsr")
    data = bytearray((tmp_path / "base.tsr").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "base.tsr").write_bytes(data)
    with pytest.raises(FormatError, match=r"base\.tsr.*chunk .* is damaged"):
        tersor.load_file(tmp_path / "x.tsr", base=tmp_path / "base.tsr")


def test_real_fine_tuned_weights(data, tmp_path):
    model = data / "models" / "lm_a"
    for name in ("lm_a_finetuned", "lm_a_earlier"):
        source = data / "tensors" / f"{name}.safetensors"
        run("compress", "-o", "alone.tsr", source, cwd=tmp_path)
        run("compress", "-o", f"{name}.tsr", "--base", model, source, cwd=tmp_path)
        run("decompress", "-o", "back", "--base", model, f"{name}.tsr", cwd=tmp_path)
        assert (tmp_path / "back").read_bytes() == pathlib.Path(source).read_bytes()
        assert (tmp_path / f"{name}.tsr").stat().st_size < 0.7 * (tmp_path / "alone.tsr").stat().st_size
        for path in tmp_path.iterdir():
            path.unlink()


def test_bf16_of_one_step_costs_what_the_issue_of_deltas_asks(tmp_path):
    """0.21 bits a weight for a step in 2 % of the weights; the entropy is 0.16."""
    count = 1 << 20
    base = (np.random.default_rng(0).standard_normal(count) * 0.02).astype(ml_dtypes.bfloat16)
    tersor.save_file({"w": base}, tmp_path / "base.tsr")
    data = tersor.numpy.save({"w": stepped(base, 3)}, base=tmp_path / "base.tsr")
    assert 8 * len(data) / count <= 0.19
