"""The suite of linear layers on tiny shapes: what is verified, skipped and judged, and what its JSON holds."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import tersor
from tersor import gemm
from tersor.bench import command, native
from tersor.bench.gemm import extras, goals, peers, rounds, weights
from tersor.bench.gemm.points import FORMATS, Point, points
from tersor.bench.gemm.roofs import NAMES, Roofs
from tersor.bench.harness import AbsentError, WrongBytesError

FIELDS = {
    "case", "impl", "ours", "threads", "options", "matrix_bytes", "us", "best_us", "gbps", "dram_share", "gops",
    "unit_share", "unit", "best_peer", "peer_ratio", "scaling", "rounds",
}  # fmt: skip
POINT = Point(format="int4-g128", activations="int8", rows=64, columns=256, tokens=5, threads=1)


@pytest.fixture(scope="module")
def roofs():
    return Roofs(quick=True)


def measure(capsys, tmp_path, *arguments):
    """What a quick run prints."""
    output = tmp_path / "result.json"
    assert command.main(["gemm", "--quick", "--rounds", "1", "--json", "-o", str(output), *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(output.read_text())
    return result


def test_quick_run_prints_one_object(capsys, tmp_path):
    result = measure(capsys, tmp_path, "--format", "int4-g128", "--format", "nf4", "--threads", "1")
    assert result["bench"] == "gemm"
    assert result["machine"].keys() >= {"cpu", "flags", "cores", "peers", "commit"}
    assert [row["case"] for row in result["rows"]] == [
        f"{name} int8 64x256 M={tokens}" for name in ("int4-g128", "nf4") for tokens in (1, 5)
    ]
    assert all(row.keys() >= FIELDS and row["ours"] for row in result["rows"])
    assert all(row["best_peer"] is None for row in result["rows"]), "no peers were asked for"
    assert {row["roof"] for row in result["roofs"]} | {
        name.removeprefix("roof ") for name in result["skipped"] if name.startswith("roof ")
    } == set(NAMES)
    assert result["goals"] == [], "small matrices have none"
    assert result["pages"]["peers"] == "as shipped"
    assert result["extras"] == [], "points were chosen"


def test_what_stands_beside_the_points(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    result = measure(capsys, tmp_path, *(text for name in ("call", "packing", "model") for text in ("--case", name)))
    assert result["rows"] == []
    assert [row["what"] for row in result["extras"]] == ["call", "packing", "model", "model"]
    assert result["extras"][0]["us"] > 0
    assert result["extras"][-1]["tokens_per_s"] > 0
    assert "glibc" in result["pages"]["peers"]


def test_the_model_has_the_shape_of_llama_1b():
    shapes = extras.Llama().shapes()
    assert len(shapes) == 16 * 7 + 1
    assert shapes[:7] == [
        (2048, 2048),
        (512, 2048),
        (512, 2048),
        (2048, 2048),
        (8192, 2048),
        (8192, 2048),
        (2048, 8192),
    ]
    assert sum(rows * columns for rows, columns in shapes) == 1_235_746_816


def test_every_goal_has_a_point():
    chosen = points(quick=False)
    for goal in goals.GOALS:
        for name in set(goal.formats) & set(FORMATS):
            for threads in (1, 2):
                assert any(
                    point.format == name
                    and point.activations == goal.activations
                    and goal.tokens[0] <= point.tokens <= goal.tokens[1]
                    and point.threads == threads
                    for point in chosen
                ), (goal, name)
    assert {(point.rows, point.columns) for point in chosen if point.case.startswith("int4-g128 int8 ")} == {
        (4096, 4096), (11008, 4096), (4096, 11008), (14336, 4096),
    }  # fmt: skip
    assert len(set(chosen)) == len(chosen)
    assert {point.format for point in chosen} == set(FORMATS)


def test_options_name_other_points():
    (only,) = points(quick=False, formats=["int4-g64"], shapes=[(48, 192)], tokens=[3], threads=[7])
    assert only.case == "int4-g64 int8 48x192 M=3"
    assert only.threads == 7
    assert len(points(quick=False, formats=["fp8-e4m3"], tokens=[1, 2])) == 4
    assert all(point.activations == "exact" for point in points(quick=False, formats=["fp8-e4m3"], tokens=[1]))
    assert len(points(quick=False, cases=["int4-g128 int8 4096x4096 M=4"])) == 2


@pytest.mark.parametrize("name", FORMATS)
def test_a_matrix_is_its_block_again_and_again(name):
    matrix = weights.Matrix(rows=192, columns=256)
    whole = matrix.quantized(name).dequantize()
    np.testing.assert_array_equal(whole, np.tile(tersor.quantize(matrix.block, name).dequantize(), (3, 1)))


def test_copies_fill_the_rotation():
    matrix = weights.Matrix(rows=64, columns=256, rotation=100_000)
    packed = matrix.packed("int4-g128")
    assert sum(one.nbytes for one in packed) >= 100_000
    assert len({one.data.ctypes.data for one in packed}) == len(packed)
    assert all(np.array_equal(one.data, packed[0].data) for one in packed)


def test_what_the_driver_does_not_read_is_skipped(capsys, tmp_path, monkeypatch):
    def refuse(x, packed, **options):
        raise ValueError("not this one")

    monkeypatch.setattr(gemm, "linear", refuse)
    assert command.main(["gemm", "--quick", "--format", "int4-g128", "--threads", "1"]) == 1
    printed = capsys.readouterr().err
    assert "skipped int4-g128 int8: the driver does not read it: not this one" in printed
    assert "no case is left" in printed


def test_a_wrong_product_is_never_timed(capsys, monkeypatch):
    right = gemm.linear
    monkeypatch.setattr(gemm, "linear", lambda *given, **options: 1.001 * right(*given, **options))
    assert command.main(["gemm", "--quick", "--format", "int4-g128", "--threads", "1"]) == 1
    assert "int4-g128 int8 64x256 M=1, 1 threads: y is off" in capsys.readouterr().err


def test_an_unknown_format_is_an_error(capsys):
    assert command.main(["gemm", "--quick", "--format", "int9000"]) == 1
    assert "no format is named 'int9000'" in capsys.readouterr().err


def multiplier(name: str, factor: float = 1.0, **more):
    """A peer that multiplies by the weights times a factor."""

    def load(matrix):
        weight = matrix.tiled(matrix.block) * factor

        def loaded(x, threads):
            return weights.Way(
                name=name, multiply=lambda call: x @ weight.T, first=lambda: x @ weight.T, nbytes=weight.nbytes, **more
            )

        return loaded

    return load


def test_peers_are_verified_and_compared(capsys, tmp_path, monkeypatch):
    def absent(matrix):
        raise AbsentError("pip install it")

    def broken(matrix):
        raise RuntimeError("a line\nand another")

    fakes = {
        "right": multiplier("right"), "dense": multiplier("dense", dense=True), "wrong": multiplier("wrong", 2.0),
        "absent": absent, "broken": broken,
    }  # fmt: skip
    monkeypatch.setattr(peers, "PEERS", fakes)
    monkeypatch.setattr(peers, "rivals", lambda point: list(fakes))
    result = measure(capsys, tmp_path, "--peers", "--format", "int4-g128", "--tokens", "5", "--threads", "1")
    assert [row["impl"] for row in result["rows"]] == ["tersor", "right", "dense"]
    ours = result["rows"][0]
    assert ours["best_peer"] == "right", "dense weights are no rival"
    assert ours["peer_ratios"].keys() == {"right", "dense"}
    reasons = {name.partition(",")[0]: reason for name, reason in result["skipped"].items()}
    assert "relative error" in reasons["wrong"]
    assert reasons["absent"] == "pip install it"
    assert reasons["broken"] == "RuntimeError: a line"
    assert result["published"], "figures of what no registry has"


def test_the_rivals_are_peers():
    for point in points(quick=False):
        for name in peers.rivals(point):
            assert name in peers.PEERS, (point, name)


def test_torch_multiplies_the_same_matrix():
    pytest.importorskip("torch")
    matrix = weights.Matrix(rows=64, columns=256, rotation=1)
    with peers.torch_held(1):
        for name in ("torch bfloat16", "torch int4pack g128", "torch int8pack"):
            way = peers.PEERS[name](matrix)(matrix.x(3), 1)
            assert way.name == name
            assert way.first().shape == (3, 64)
            assert weights.verify_peer(matrix, way, 3) < (0.15 if "int4" in name else 0.02)


def test_rows_divide_by_the_roofs_of_their_rounds(roofs):
    matrix = weights.Matrix(rows=64, columns=256, rotation=1)
    way = weights.ours(matrix, matrix.packed("int4-g128"), "int8", 5, 1)
    (row,) = rounds.measure(POINT, [way], roofs, rounds=3, least=0.0)
    assert row["rounds"] == len(row["samples_us"]) == 3
    assert row["best_us"] <= row["us"]
    assert row["dram_share"] == pytest.approx(way.nbytes / row["best_us"] / 1e3 / row["dram_best"], rel=0.01)
    if "vnni" not in roofs.absent:
        assert row["unit_share"] == pytest.approx(row["best_gops"] / row["unit_best"], rel=0.01, abs=1e-3)


def test_two_threads_are_compared_with_one():
    row = {"case": "a", "impl": "tersor", "threads": 1, "best_us": 30.0, "scaling": None}
    rows = [row, {**row, "threads": 2, "best_us": 20.0}]
    rounds.scale(rows)
    assert [one["scaling"] for one in rows] == [None, 1.5]


def test_roofs(roofs):
    for name in NAMES:
        rate = roofs.sample(name, 2)
        assert (rate is None) == (name in roofs.absent)
        assert rate is None or rate > 1e8
    with pytest.raises(ValueError, match="not 0"):
        roofs.sample("dram", 0)


def test_roofs_need_a_compiler(monkeypatch):
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(AbsentError, match="no C compiler to build roofs with"):
        Roofs(quick=True)


def judged(*, huge_pages=False, tokens=1, threads=1, shape=(4096, 4096), **found):
    options = {"format": "int4-g128", "activations": "int8", "shape": list(shape), "tokens": tokens}
    row = {
        "case": "a", "threads": threads, "options": options, "unit": "vnni", "dram_share": None, "unit_share": None,
        "best_us": 1.0, "best_peer": None, "peer_ratio": None, "peer_ratios": {}, "scaling": None,
    }  # fmt: skip
    return {entry["goal"]: entry["met"] for entry in goals.judge(row | found, huge_pages=huge_pages)}


def test_goals_are_judged():
    assert judged() == {}
    assert judged(dram_share=0.90) == {"share of memory's roof": True}
    assert judged(dram_share=0.89) == {"share of memory's roof": False}
    assert judged(dram_share=0.82, threads=2) == {"share of memory's roof": True}
    assert judged(dram_share=0.5, shape=(64, 256)) == {}
    assert judged(tokens=4, unit_share=0.7, threads=2) == {"share of vnni peak": True}
    assert judged(tokens=64, scaling=1.8, threads=2) == {"times one thread": False}
    ratios = {"onnxruntime int4 g128": 1.4, "ik_llama q4_0_r8": 1.0, "torch bfloat16": 0.9}
    assert judged(peer_ratio=1.0, best_peer="ik_llama q4_0_r8", peer_ratios=ratios) == {
        "times ik_llama q4_0_r8": False, "times torch bfloat16": False,
    }  # fmt: skip
    assert judged(peer_ratio=1.0, best_peer="ik_llama q4_0_r8", peer_ratios=ratios, huge_pages=True) == {
        "times ik_llama": True, "times onnxruntime": True, "times torch bfloat16": False,
    }  # fmt: skip


def test_goals_beside_the_points_are_judged():
    rows = [
        {"what": "call", "case": "c", "threads": 1, "us": 12.0},
        {"what": "packing", "case": "p", "threads": 1, "gbps": 1.5},
        {"what": "model", "case": "m", "threads": 2, "dram_share": None},
    ]
    assert [entry["met"] for entry in goals.judge_extras(rows)] == [False, True]


def test_verification_knows_what_is_right():
    matrix = weights.Matrix(rows=128, columns=256, rotation=1)
    way = weights.ours(matrix, matrix.packed("nf4"), "int8-g128", 5, 1)
    weights.verify_ours(matrix, way, "nf4", "int8-g128", 5)
    y = way.first()
    y[2, 77] = np.nan
    with pytest.raises(WrongBytesError, match="nan"):
        weights.verify_ours(matrix, dataclasses.replace(way, first=lambda: y), "nf4", "int8-g128", 5)
