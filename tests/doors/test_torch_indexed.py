"""torch.ops.tersor.rans_encode_indexed and rans_decode_indexed: as the NumPy door, under opcheck and torch.compile."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import tersor.torch  # noqa: E402
from tersor.entropy import TableSet, encode_indexed  # noqa: E402


@pytest.fixture(scope="module")
def latents():
    rng = np.random.default_rng(0)
    scales = np.geomspace(0.2, 20, 32)
    indexes = rng.integers(0, 32, (2, 40, 50))
    symbols = np.rint(rng.normal(size=indexes.shape) * scales[indexes]).astype(np.int32)
    symbols[0, 0, :3] = (2**31 - 1, -(2**31), 999)
    return TableSet.gaussian(scales), torch.from_numpy(symbols), torch.from_numpy(indexes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_the_bytes_are_those_of_the_numpy_door(latents, dtype):
    tables, symbols, indexes = latents
    data = tersor.torch.rans_encode_indexed(symbols, indexes.to(dtype), tersor.torch.table_tensor(tables))
    assert bytes(data.numpy()) == encode_indexed(symbols.numpy(), indexes.numpy(), tables)
    assert encode_indexed(symbols, indexes, tables) == bytes(data.numpy())  # which takes tensors as well
    back = tersor.torch.rans_decode_indexed(data, indexes.to(dtype), tersor.torch.table_tensor(tables))
    assert back.dtype == torch.int32
    assert torch.equal(back, symbols)


def test_means_and_nothing_at_all(latents):
    _, symbols, indexes = latents
    tables = TableSet.gaussian(np.geomspace(0.2, 20, 32), fractions=4)
    held = tersor.torch.table_tensor(tables)
    means = torch.arange(symbols.numel()).reshape(symbols.shape) % 77 - 38
    data = tersor.torch.rans_encode_indexed(symbols, indexes, held, means)
    assert torch.equal(tersor.torch.rans_decode_indexed(data, indexes, held, means), symbols)
    none = torch.zeros((0, 3), dtype=torch.int32)
    back = tersor.torch.rans_decode_indexed(tersor.torch.rans_encode_indexed(none, none, held), none, held)
    assert back.shape == (0, 3)


def test_opcheck(latents):
    tables, symbols, indexes = latents
    held, none = tersor.torch.table_tensor(tables), torch.empty(0, dtype=torch.int32)
    indexes = indexes.to(torch.int32)
    data = torch.ops.tersor.rans_encode_indexed(symbols, indexes, held, none)
    torch.library.opcheck(torch.ops.tersor.rans_encode_indexed.default, (symbols, indexes, held, none))
    torch.library.opcheck(torch.ops.tersor.rans_decode_indexed.default, (data, indexes, held, none))


def test_compiled_whole(latents):
    tables, symbols, indexes = latents

    @torch.compile(fullgraph=True)
    def through(latent, scale_indexes, held):
        data = tersor.torch.rans_encode_indexed(torch.round(latent), scale_indexes, held)
        return tersor.torch.rans_decode_indexed(data, scale_indexes, held) + 0.5, data

    latent = symbols.clamp(-999, 999).to(torch.float32) + 0.25
    back, data = through(latent, indexes, tersor.torch.table_tensor(tables))
    assert torch.equal(back, torch.round(latent) + 0.5)
    assert bytes(data.numpy()) == encode_indexed(torch.round(latent).int(), indexes, tables)


def test_errors_come_as_runtime_errors(latents):
    tables, symbols, indexes = latents
    held = tersor.torch.table_tensor(tables)
    data = tersor.torch.rans_encode_indexed(symbols, indexes, held)
    for call, text in [
        (lambda: tersor.torch.rans_encode_indexed(symbols, indexes + 1, held), "the set has 32 tables"),
        (lambda: tersor.torch.rans_encode_indexed(symbols, indexes[0], held), "2000 indexes for 4000 symbols"),
        (lambda: tersor.torch.rans_encode_indexed(symbols, indexes, held[:50]), "table"),
        (lambda: tersor.torch.rans_decode_indexed(data[:-5], indexes, held), "indexed stream"),
        (lambda: tersor.torch.rans_decode_indexed(data.int(), indexes, held), "data: U8 is needed, found I32"),
        (lambda: tersor.torch.rans_encode_indexed(symbols.long() + 2**31, indexes, held), "32 bits are allowed"),
        (lambda: torch.ops.tersor.rans_encode_indexed(symbols, indexes.float(), held, symbols), "I32 is needed"),
    ]:
        with pytest.raises(RuntimeError, match=text):
            call()
