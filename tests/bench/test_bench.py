"""The harness on tiny cases: what is verified, in which order things run, how ratios are formed, what JSON holds."""

from __future__ import annotations

import contextlib
import json
import sys

import numpy as np
import pytest

from tersor.bench import command, difference, entropy, harness, hull, lossless, native, ratios, selection
from tersor.bench.harness import AbsentError, Case, Codec, WrongBytesError

DATA = np.arange(256, dtype=np.uint8).repeat(16)
FIELDS = {
    "case", "impl", "bytes_in", "bytes_out", "encode_gbps", "decode_gbps", "best_peer", "encode_ratio", "decode_ratio",
    "ceiling", "share_of_ceiling",
}  # fmt: skip


def copier(name: str, *, log: list[tuple[str, str]] | None = None, shrink: int = 2, **settings) -> Codec:
    """A coder that remembers its input and claims 1/shrink of its bytes."""

    def encode(array):
        if log is not None:
            log.append((name, "encode"))
        return array.copy()

    def decode(coded, out):
        if log is not None:
            log.append((name, "decode"))
        if out is None:
            return coded.copy()
        out[:] = coded.view(np.uint8)
        return out

    size = lambda coded: coded.nbytes // shrink  # noqa: E731
    return Codec(name=name, encode=encode, decode=decode, size=size, **settings)


def tiny(policies=("fresh", "given")) -> Case:
    return Case(name="tiny", data=DATA, about="a staircase", floor_bits=3.0, policies=policies)


def test_rounds_interleave_every_coder(monkeypatch):
    monkeypatch.setattr(harness, "LEAST_SAMPLE_S", 0.0)  # one call a sample, so that the log shows the order
    monkeypatch.setattr(harness, "WARM_BYTES", 0)
    log: list[tuple[str, str]] = []
    names = ("a", "b", "c")
    harness.measure(tiny(("fresh",)), [copier(name, log=log, policies=("fresh",)) for name in names], rounds=3)
    timed = [name for name, operation in log[-3 * len(names) * 2 :] if operation == "encode"]
    assert timed == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_a_row_has_the_fields_that_every_bench_has():
    (row,) = harness.measure(tiny(), [copier("ours", ours=True)], rounds=2)
    assert row.keys() >= FIELDS | {"decode_into_gbps", "decode_into_ratio", "encode_spread", "encode_hull"}
    assert (row["bytes_in"], row["bytes_out"], row["bits_per_element"]) == (4096, 2048, 4.0)
    assert row["over_floor_percent"] == pytest.approx(100 / 3, abs=1e-3)
    assert row["rounds"] == 2
    assert row["best_peer"] is None, "no peer was measured, so there is no ratio"


def test_the_share_of_the_ceiling_is_of_the_same_round():
    (row,) = harness.measure(tiny(("given",)), [copier("ours", ours=True, policies=("given",))], rounds=1)
    assert row["ceiling"].endswith("warm target")
    assert row["share_of_ceiling"] == pytest.approx(row["decode_gbps"] / row["ceiling_gbps"], rel=0.02, abs=1e-3)


def test_wrong_bytes_are_never_timed():
    broken = Codec(
        name="broken", encode=lambda a: a.copy(), decode=lambda coded, out: coded[::-1].copy(), policies=("fresh",)
    )
    with pytest.raises(WrongBytesError, match="broken"):
        harness.measure(tiny(("fresh",)), [broken], rounds=1)


def test_a_coder_that_changes_its_input_is_refused():
    def encode(array):
        coded = array.copy()
        array ^= 1
        return coded

    data = DATA.copy()
    vandal = Codec(name="vandal", encode=encode, decode=lambda coded, out: coded, policies=("fresh",))
    with pytest.raises(WrongBytesError, match="changed the array"):
        harness.measure(Case(name="tiny", data=data, about="", policies=("fresh",)), [vandal], rounds=1)


def test_slow_coders_see_a_part_and_say_so():
    slow = copier("slow", limit_bytes=1000)
    (row,) = harness.measure(tiny(), [slow], rounds=1)
    assert row["bytes_in"] == 1000
    assert row["over_floor_percent"] is None, "the floor is the whole input's"


def test_settings_surround_every_call():
    inside: list[bool] = []
    state = {"held": False}

    @contextlib.contextmanager
    def setting():
        state["held"] = True
        yield
        state["held"] = False

    def encode(array):
        inside.append(state["held"])
        return array.copy()

    codec = Codec(name="held", encode=encode, decode=lambda coded, out: coded, policies=("fresh",), setting=setting)
    harness.measure(tiny(("fresh",)), [codec], rounds=2)
    assert len(inside) >= 4
    assert all(inside)
    assert not state["held"]


def row(impl: str, *, ours: bool = False, stored: int, **samples: list[float]) -> ratios.Row:
    made = {"impl": impl, "ours": ours, "bytes_in": 1000, "bytes_out": stored, "bits_per_element": stored / 125}
    return made | {"threads": 1, "options": {}, "samples_gbps": samples}


def test_ratios_take_the_best_peer_that_does_the_same_job():
    rows = [
        row("tersor", ours=True, stored=650, encode=[2.0], decode=[6.0], decode_into=[12.0]),
        row("small", stored=660, encode=[0.1], decode=[0.5], decode_into=[0.6]),
        row("quick", stored=665, encode=[0.5], decode=[3.0]),
        row("lazy", stored=999, encode=[9.0], decode=[50.0], decode_into=[60.0]),  # saves nothing: no rival
    ]
    ratios.compare(rows)
    ours, *peers = rows
    assert (ours["best_peer"], ours["best_encode_peer"], ours["smallest_peer"]) == ("quick", "quick", "small")
    assert (ours["encode_ratio"], ours["decode_ratio"], ours["decode_into_ratio"]) == (4.0, 2.0, 4.0)
    assert ours["size_ratio"] == pytest.approx(650 / 660, abs=1e-5)
    assert all(peer["best_peer"] is None and peer["encode_ratio"] is None for peer in peers)


def test_a_ratio_is_formed_round_by_round():
    ours = row("tersor", ours=True, stored=650, encode=[2.0, 1.0, 1.1], decode=[6.0, 3.0, 3.0])
    peer = row("peer", stored=660, encode=[1.0, 0.5, 0.5], decode=[2.0, 1.0])  # the machine slowed down after round 1
    ratios.compare([ours, peer])
    assert (ours["encode_ratio"], ours["decode_ratio"]) == (2.0, 3.0)


def test_threads_are_compared_with_the_same_coder_on_one():
    one = row("tersor", ours=True, stored=650, encode=[1.0], decode=[5.0])
    two = row("tersor, 2 threads", ours=True, stored=650, encode=[1.9], decode=[9.0]) | {"threads": 2}
    ratios.scale([two, one])
    assert (two["encode_scaling"], two["decode_scaling"]) == (1.9, 1.8)
    assert one["encode_scaling"] is None


def test_hull_keeps_what_no_mixture_beats():
    points = [(1.0, 10.0), (2.0, 5.0), (3.0, 4.9), (4.0, 1.0), (5.0, 2.0)]
    assert hull.on_hull(points) == [True, True, False, True, False]
    assert hull.on_hull([(1.0, 1.0), (1.0, 1.0)]) == [True, True]
    assert hull.on_hull([]) == []


def test_an_absent_peer_is_announced(monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)  # what an import sees of a package that is not there
    monkeypatch.setattr(native.ctypes.util, "find_library", lambda name: None)
    factories = {
        "zstd -3": lossless._peers("bf16", quick=True)["zstd -3"],
        "hts": entropy.PEERS["htscodecs rANS 32x16 AVX2"],
    }
    codecs, skipped = selection.select(factories, None)
    assert codecs == []
    assert "pip install zstandard" in skipped["zstd -3"]
    assert "libhtscodecs" in skipped["hts"]


def test_a_plan_holds_what_is_named_and_there():
    def absent():
        raise AbsentError("no such model")

    cases = {"tiny": tiny, "away": absent, "unnamed": tiny}
    coders = {"one": lambda: copier("one"), "two": lambda: copier("two")}

    def chosen(impls):
        plan, skipped = selection.choose(cases, lambda case: coders, rounds=3, only=["tiny", "away"], impls=impls)
        return [(case.name, [codec.name for codec in codecs], rounds) for case, codecs, rounds in plan], skipped

    assert chosen(None) == ([("tiny", ["one", "two"], 3)], {"away": "no such model"})
    assert chosen(["wo"])[0] == [("tiny", ["two"], 3)]
    assert chosen(["three"])[0] == []


def test_huff0_without_a_compiler_is_announced(monkeypatch):
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(AbsentError, match="no C compiler"):
        native.huff0()


@pytest.mark.parametrize("suite", command.CODERS)
def test_quick_run_prints_one_object(suite, capsys, tmp_path):
    output = tmp_path / "result.json"
    assert command.main([suite, "--quick", "--rounds", "1", "--json", "-o", str(output)]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads(output.read_text())
    assert result["bench"] == suite
    assert result["machine"].keys() >= {"cpu", "flags", "cores", "kernel", "python", "tersor", "peers", "commit"}
    assert result["rows"]
    assert all(one.keys() >= FIELDS and one["ours"] for one in result["rows"])
    assert result["published"] == [], "no peers were asked for"
    assert "measuring" in printed.err


def test_nothing_to_measure_is_an_error(capsys):
    assert command.main(["entropy", "--quick", "--case", "nowhere"]) == 1
    assert "no case is left" in capsys.readouterr().err


@pytest.fixture
def report(load):
    return load("bench/report.py")


def a_result() -> dict:
    machine = {"cpu": "A CPU", "cores": 2, "kernel": "6.1", "python": "3.11.7"}
    codecs = [copier("tersor alias", ours=True, policies=("given",)), copier("huff0", policies=("given",))]
    case = Case(name="geo", data=DATA, about="", floor_bits=3.0, policies=("given",))
    rows = harness.measure(case, codecs, rounds=1)
    return {"bench": "entropy", "machine": machine, "rows": rows, "skipped": {"pcodec -8": "not here"}, "published": []}


def test_report_writes_a_line_a_row_and_names_the_machine(report):
    result = a_result()
    text = report.numbers_table([result])
    assert text.count("\n| geometric") == 2
    assert "**tersor alias**" in text
    assert f"{result['rows'][0]['decode_gbps']:.2f}" in text
    assert "A CPU, 2 cores" in text
    assert "pcodec -8 was not there" in text
    assert "make bench" in report.numbers_table([])


def test_report_replaces_only_what_stands_between_the_marks(report):
    text = f"# tersor\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.rewrite(text, "new") == f"# tersor\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    with pytest.raises(ValueError, match="once each"):
        report.rewrite("# tersor", "new")


def test_differences_of_a_folder_pair_a_file_with_the_larger_one_that_has_its_tensors(tmp_path):
    from safetensors.numpy import save_file

    before = {name: np.arange(600, dtype=np.float32) + at for at, name in enumerate("abc")}
    save_file(before, tmp_path / "model.safetensors")
    save_file({"b": before["b"] * 2, "a": before["a"] * 2}, tmp_path / "tuned.safetensors")
    save_file({"a": before["a"][:9]}, tmp_path / "other.safetensors")
    chosen, skipped = difference.plan(peers=False, quick=True, data=str(tmp_path))
    assert not skipped
    (pair,) = [case for case, _, _ in chosen if case.name not in difference.SOURCES]
    assert pair.name == f"{tmp_path.name}/tuned:f32"
    assert np.array_equal(pair.data, 2 * pair.base)
    assert sorted(pair.base[[0, 600]].tolist()) == [0, 1]
