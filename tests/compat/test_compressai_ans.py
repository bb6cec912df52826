"""CompressAI's coder on ours: every container, escapes, context models, errors; beside CompressAI where it is there."""

import sys

import numpy as np
import pytest
import torch

import tersor
from tersor import _core
from tersor.compat import compressai_ans
from tersor.compat.compressai_ans import BufferedRansEncoder, RansDecoder, RansEncoder
from tersor.entropy import TableSet, decode_indexed

SPREAD = (0.3, 1.0, 4.0, 20.0)


def cdf_rows(spreads):
    """CompressAI's three lists for Gaussians, the rows padded with zeros."""
    rows, sizes, offsets = [], [], []
    for spread in spreads:
        half = int(np.ceil(4 * spread))
        mass = np.exp(-((np.arange(-half, half + 1) / spread) ** 2) / 2)
        cdf = np.rint(np.append(0, np.cumsum(mass) / mass.sum()) * (65535 - mass.size)).astype(int)
        rows.append([*(cdf + np.arange(cdf.size)).tolist(), 65536])
        sizes.append(len(rows[-1]))
        offsets.append(-half)
    return [row + [0] * (max(sizes) - len(row)) for row in rows], sizes, offsets


def sample(count, seed=0, tables=len(SPREAD)):
    """Symbols, some of them far outside their tables, and indexes."""
    random = np.random.default_rng(seed)
    indexes = random.integers(0, tables, count)
    symbols = np.rint(random.normal(0, np.resize(SPREAD, tables)[indexes])).astype(np.int32)
    if count >= 3:
        symbols[random.integers(0, count, 3)] = [-(2**31), 2**31 - 1, 77]
    return symbols, indexes.astype(np.int32)


CONTAINERS = {
    "list": lambda values: np.asarray(values).tolist(),
    "tuple": lambda values: tuple(np.asarray(values).tolist()),
    "array": lambda values: np.asarray(values, np.int32),
    "int64": lambda values: np.asarray(values, np.int64),
    "tensor": lambda values: torch.tensor(np.asarray(values), dtype=torch.int32),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000, 50_000])
def test_containers_give_the_same_stream(container, count):
    cdfs, sizes, offsets = cdf_rows(SPREAD)
    symbols, indexes = sample(count)
    to = CONTAINERS[container]
    tables = (to(cdfs), to(sizes), to(offsets))
    stream = RansEncoder().encode_with_indexes(to(symbols), to(indexes), *tables)
    assert stream == RansEncoder().encode_with_indexes(symbols.tolist(), indexes.tolist(), cdfs, sizes, offsets)
    back = RansDecoder().decode_with_indexes(stream, to(indexes), *tables)
    wanted = {"list": list, "tuple": list, "tensor": torch.Tensor}.get(container, np.ndarray)
    assert type(back) is wanted
    assert np.array_equal(np.asarray(back), symbols)
    if wanted is list:
        assert all(type(symbol) is int for symbol in back)
    else:
        assert back.dtype in (np.int32, torch.int32)


def test_streams_are_the_indexed_streams_of_a_table_set():
    cdfs, sizes, offsets = cdf_rows(SPREAD)
    symbols, indexes = sample(5000)
    stream = RansEncoder().encode_with_indexes(symbols.tolist(), indexes.tolist(), cdfs, sizes, offsets)
    tables = TableSet.from_cdfs(cdfs, sizes, offsets)
    assert np.array_equal(decode_indexed(stream, indexes, tables), symbols)
    packed = _core.pack_cdf_lists(cdfs, *(x for v in map(np.int32, (sizes, offsets)) for x in (v.ctypes.data, v.size)))
    assert TableSet(_core.table_set_of_cdfs(packed, 0, len(sizes))) == tables


def test_a_context_model_writes_and_reads_piece_by_piece():
    cdfs, sizes, offsets = cdf_rows(SPREAD)
    other = cdf_rows(SPREAD[::-1])
    symbols, indexes = sample(4096)
    encoder, decoder = BufferedRansEncoder(), RansDecoder()
    for at in range(0, 4096, 192):
        tables = other if at % 384 else (cdfs, sizes, offsets)
        encoder.encode_with_indexes(symbols[at : at + 192].tolist(), indexes[at : at + 192].tolist(), *tables)
    stream = encoder.flush()
    decoder.set_stream(stream)
    for at in range(0, 4096, 64):
        tables = other if at // 192 % 2 else (cdfs, sizes, offsets)
        assert decoder.decode_stream(indexes[at : at + 64].tolist(), *tables) == symbols[at : at + 64].tolist()
    with pytest.raises(ValueError, match="1 symbols, 0 are left"):
        decoder.decode_stream([0], cdfs, sizes, offsets)
    decoder.set_stream(stream)  # and again from the beginning
    assert decoder.decode_stream(indexes[:7], cdfs, sizes, offsets).tolist() == symbols[:7].tolist()


def test_flush_empties_and_the_first_symbols_can_be_read_alone():
    cdfs, sizes, offsets = cdf_rows(SPREAD)
    symbols, indexes = sample(300)
    encoder = BufferedRansEncoder()
    encoder.encode_with_indexes(symbols.tolist(), indexes.tolist(), cdfs, sizes, offsets)
    stream = encoder.flush()
    assert stream == RansEncoder().encode_with_indexes(symbols, indexes, cdfs, sizes, offsets)
    assert RansDecoder().decode_with_indexes(encoder.flush(), [], cdfs, sizes, offsets) == []
    some = RansDecoder().decode_with_indexes(stream, indexes[:99].tolist(), cdfs, sizes, offsets)
    assert some == symbols[:99].tolist()


def test_more_tables_than_a_set_holds():
    """A table for each symbol, as a mixture has them, and symbols that go to and fro between sets."""
    cdfs, sizes, offsets = cdf_rows(np.resize(SPREAD, 9000))
    for indexes in (np.arange(9000), np.random.default_rng(1).integers(0, 9000, 20_000)):
        symbols = np.arange(indexes.size) % 9 - 4
        arguments = (indexes.tolist(), cdfs, sizes, offsets)
        stream = RansEncoder().encode_with_indexes(symbols.tolist(), *arguments)
        assert RansDecoder().decode_with_indexes(stream, *arguments) == symbols.tolist()
        decoder = RansDecoder()
        decoder.set_stream(stream)
        assert np.array_equal(decoder.decode_stream(indexes, np.array(cdfs, np.int32), sizes, offsets), symbols)
    with pytest.raises(ValueError, match="9000 tables, found 0 to 9000"):
        RansEncoder().encode_with_indexes([0, 0], [0, 9000], cdfs, sizes, offsets)


def test_tables_are_known_again_by_their_content():
    cdfs, sizes, offsets = cdf_rows(SPREAD)
    coder = RansEncoder()
    first = coder._tables(cdfs, sizes, offsets)
    assert coder._tables([list(row) for row in cdfs], tuple(sizes), np.array(offsets)) is first
    assert RansDecoder()._tables(torch.tensor(cdfs), sizes, offsets) is first
    cdfs[0][1] += 1  # in place: the lists are the same, their tables are not
    assert coder._tables(cdfs, sizes, offsets) is not first
    for more in range(40):
        coder._tables(cdfs, sizes, [offset + more for offset in offsets])
    assert len(compressai_ans._kept) <= 16


TABLES = cdf_rows(SPREAD)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (([0], [4], *TABLES), ValueError, "index 4"),
        (([0], [-1], *TABLES), ValueError, "index -1"),
        (([0, 1], [0], *TABLES), ValueError, "1 indexes for 2 symbols"),
        (([0.5], [0], *TABLES), TypeError, "symbols are integers"),
        (([0, None], [0, 0], *TABLES), TypeError, "symbols are integers, number 1"),
        (([2**31], [0], *TABLES), ValueError, "symbols have 32 bits"),
        (([2**80], [0], *TABLES), ValueError, "symbols have 32 bits"),
        ((np.array([0.5]), [0], *TABLES), TypeError, "symbols are integers, not float64"),
        ((torch.tensor([0.5]), [0], *TABLES), TypeError, "symbols are integers"),
        (([0], ["0"], *TABLES), TypeError, "indexes are integers"),
        (([0], [0], TABLES[0], TABLES[1][:3], TABLES[2]), ValueError, "3 sizes and 4 offsets for 4 cdfs"),
        (([0], [0], TABLES[0], [2**20, *TABLES[1][1:]], TABLES[2]), ValueError, "its size says 1048576"),
        (([0], [0], TABLES[0], [-1, *TABLES[1][1:]], TABLES[2]), ValueError, "its size says -1"),
        (([0], [0], [[0, 65536]], [2], [0]), ValueError, "3 are needed"),
        (([0], [0], [[0, 5, 4, 65536]], [4], [0]), ValueError, "does not rise"),
        (([0], [0], [[0, 5, 65535]], [3], [0]), ValueError, "from 0 to 65535"),
        (([0], [0], [7], [3], [0]), TypeError, "cdfs"),
        (([0], [0], np.zeros(3, np.int32), [3], [0]), ValueError, "two dimensions"),
        (([0], [0], [[0, "x", 65536]], [3], [0]), TypeError, "cdfs are integers"),
        (([], [], [], [], []), ValueError, "0 tables"),
    ],
)
def test_bad_arguments(arguments, error, says):
    with pytest.raises(error, match=says):
        RansEncoder().encode_with_indexes(*arguments)
    encoder = BufferedRansEncoder()
    with pytest.raises(error, match=says):
        encoder.encode_with_indexes(*arguments)
    assert RansDecoder().decode_with_indexes(encoder.flush(), [], *TABLES) == []  # nothing was written


def test_a_list_that_changes_while_it_is_read():
    class Clearing:
        def __init__(self, of):
            self.of = of

        def __index__(self):
            self.of.clear()
            return 1

    symbols = [0, 1, 2, 3]
    symbols[1] = Clearing(symbols)
    with pytest.raises((ValueError, IndexError)):
        RansEncoder().encode_with_indexes(symbols, [0] * 4, *TABLES)


def test_bad_streams():
    symbols, indexes = sample(500)
    stream = RansEncoder().encode_with_indexes(symbols, indexes, *TABLES)
    for end in range(0, len(stream), 7):
        with pytest.raises(tersor.FormatError):
            RansDecoder().decode_with_indexes(stream[:end], indexes, *TABLES)
    with pytest.raises(ValueError, match="501 symbols, 500 are left"):
        RansDecoder().decode_with_indexes(stream, np.zeros(501, np.int32), *TABLES)
    with pytest.raises(ValueError, match="set_stream"):
        RansDecoder().decode_stream([0], *TABLES)


# ---- beside CompressAI -----------------------------------------------------------------------------------------------


def test_the_same_symbols_as_compressai(compressai):
    theirs = sys.modules["compressai.ans"]
    cdfs, sizes, offsets = cdf_rows(SPREAD)
    symbols, indexes = sample(20_000)
    symbols = symbols.clip(-(10**6), 10**6)  # theirs cannot code more than 31 bits
    arguments = (indexes.tolist(), cdfs, sizes, offsets)
    string = theirs.RansEncoder().encode_with_indexes(symbols.tolist(), *arguments)
    stream = RansEncoder().encode_with_indexes(symbols.tolist(), *arguments)
    want = theirs.RansDecoder().decode_with_indexes(string, *arguments)
    assert RansDecoder().decode_with_indexes(stream, *arguments) == want == symbols.tolist()
    assert len(stream) < 1.01 * len(string) + 64
    for name in compressai_ans.__all__[:3]:
        methods = {method for method in vars(getattr(theirs, name)) if not method.startswith("_")}
        assert methods == {method for method in dir(getattr(compressai_ans, name)) if not method.startswith("_")}


def test_install_and_uninstall(compressai):
    import compressai.models.google as google
    from compressai.entropy_models import EntropyModel

    before = (sys.modules["compressai.ans"], compressai.ans, google.RansDecoder, EntropyModel.compress)
    with compressai_ans.installed():
        compressai_ans.install()
        from compressai.ans import RansEncoder as named

        assert named is RansEncoder
        assert google.RansDecoder is RansDecoder
        assert isinstance(EntropyModel().entropy_coder._encoder, RansEncoder)
    assert before == (sys.modules["compressai.ans"], compressai.ans, google.RansDecoder, EntropyModel.compress)
    assert not isinstance(EntropyModel().entropy_coder._encoder, RansEncoder)


def entropy_model(compressai, install):
    def make():
        from compressai.entropy_models import GaussianConditional

        model = GaussianConditional(None)
        model.update_scale_table([0.5, 2.0, 8.0])
        return model

    if not install:
        return make()
    with compressai_ans.installed():
        return make()


@pytest.mark.parametrize("dims", [2, 3, 4])
def test_entropy_models_give_the_same(compressai, dims):
    torch.manual_seed(0)
    shape = (2, 3, 5, 7)[:dims]
    x, means = 9 * torch.randn(shape), torch.randn(shape)
    indexes = torch.randint(0, 3, shape, dtype=torch.int32)
    theirs, ours = entropy_model(compressai, False), entropy_model(compressai, True)
    with compressai_ans.installed():
        for mean in (None, means, means[:, :, :1, :1] if dims == 4 else means):
            want = theirs.decompress(theirs.compress(x, indexes, mean), indexes, means=mean)  # made before: untouched
            got = ours.decompress(ours.compress(x, indexes, mean), indexes, means=mean)
            assert got.dtype == want.dtype
            assert torch.equal(got, want)
    outside = ours.compress(x, indexes, means)  # after uninstall, through lists
    assert torch.equal(ours.decompress(outside, indexes, means=means), want if dims != 4 else got_of(theirs, x, indexes, means))


def got_of(model, x, indexes, means):
    return model.decompress(model.compress(x, indexes, means), indexes, means=means)


def test_entropy_models_raise_the_same(compressai):
    from compressai.entropy_models import EntropyModel

    theirs, ours = entropy_model(compressai, False), entropy_model(compressai, True)
    x, indexes = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4, dtype=torch.int32)
    string = ours.compress(x, indexes)
    with compressai_ans.installed():
        empty = EntropyModel()
        calls = [
            lambda model: model.compress(x.reshape(-1), indexes.reshape(-1)),
            lambda model: model.compress(x, indexes[:, :2]),
            lambda model: model.decompress("text", indexes),
            lambda model: model.decompress(string * 2, indexes),
            lambda model: model.decompress(string, indexes.reshape(1, -1)[0, :1]),
            lambda model: model.decompress(string, indexes, means=torch.zeros(1, 2, 4, 4)),
            lambda model: model.decompress(string, indexes, means=torch.zeros(1, 3, 2, 4)),
        ]
        for call in calls:
            for model in (theirs, ours, empty):
                with pytest.raises(ValueError, match=r"Invalid|size|Uninitialized"):
                    call(model)
        with pytest.raises(ValueError, match="Uninitialized"):
            empty.compress(x, indexes)


@pytest.mark.parametrize("name", ["ScaleHyperprior", "MeanScaleHyperprior", "JointAutoregressiveHierarchicalPriors"])
def test_models_give_the_same_image(compressai, load, name):
    codec = load("bench/learned_codec.py")
    theirs = codec.spread_model(getattr(compressai.models, name), codec.picture(192, 192), width=(16, 24))
    x = codec.picture(192, 192)
    with torch.no_grad():
        want = theirs.decompress(**codec.packed(theirs.compress(x)))["x_hat"]
        with compressai_ans.installed():
            ours = codec.spread_model(getattr(compressai.models, name), codec.picture(192, 192), width=(16, 24))
            got = ours.decompress(**codec.packed(ours.compress(x)))["x_hat"]
    assert want.std() > 0
    assert torch.equal(got, want)
