"""What is wanted of each point, and whether it is met. Shares are of the roofs of the same rounds, best of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
MANY = 1 << 30
LARGE = 4096  # goals are for matrices of at least so many rows and columns

SCALING, SCALING_TOKENS = 1.85, 64  # of two threads, from so many tokens on
CALL_US, PACKING_GBPS, MODEL_SHARE = 10.0, 1.0, 0.80
DENSE = {"int8": 1.0, "int8-g128": 1.0, "exact": 0.9}  # times torch's bf16, for formats of these bits, at any M
_DENSE_FORMATS = ("int4", "mxfp4", "nvfp4", "nf4", "int8")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The least that one or two threads reach on formats and tokens.

    ceiling: "dram" or "unit"; shares and at_most_us by threads. ratios: times a peer, by its name or how that begins;
    "" is the best one. ratios_shipped where peers have the pages that they take themselves, ratios_huge where glibc
    gives huge ones.
    """

    formats: tuple[str, ...]
    activations: str
    tokens: tuple[int, int]  # from, to
    ceiling: str = ""
    shares: Mapping[int, float] = field(default_factory=dict)
    at_most_us: Mapping[int, float] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)
    ratios_shipped: Mapping[str, float] = field(default_factory=dict)
    ratios_huge: Mapping[str, float] = field(default_factory=dict)


def _goal(formats: str, activations: str, first: int, last: int, ceiling: str, *shares: float, **more: Any) -> Goal:
    by_threads = {threads: shares[min(threads, len(shares)) - 1] for threads in (1, 2)} if shares else {}
    tokens = (first, last)
    names = tuple(formats.split())
    return Goal(formats=names, activations=activations, tokens=tokens, ceiling=ceiling, shares=by_threads, **more)


GOALS = (
    _goal(
        "int4-g128", "int8", 1, 1, "dram", 0.90, 0.82, ratios_shipped={"": 1.3},
        ratios_huge={"ik_llama": 0.97, "onnxruntime": 1.35},
    ),
    _goal("int4-g128", "int8", 4, 4, "unit", 0.68, 0.60, ratios={"": 1.9}),
    _goal("int4-g128", "int8", 16, 16, "unit", 0.78, 0.75, ratios={"": 1.8}),
    _goal("int4-g128", "int8", 64, MANY, "unit", 0.82, 0.78, ratios={"": 1.85}),
    _goal("int4-g128", "exact", 1, 1, "dram", 0.85, ratios={"bitsandbytes": 1.6}),
    _goal("int4-g128", "exact", 64, MANY, "unit", 0.75),
    _goal(
        "int4-g32 mxfp4 nvfp4 nf4", "int8", 1, 1, "dram", 0.88,
        ratios_huge={"ik_llama q4_0": 0.97, "ik_llama mxfp4": 1.05},
    ),
    _goal("int4-g32 mxfp4", "int8", 64, MANY, "unit", 0.68, ratios={"ik_llama": 1.45}),
    _goal("nvfp4", "int8", 64, MANY, "unit", 0.60),
    _goal("nf4", "int8", 64, MANY, "unit", 0.70),
    _goal("int8 int8-g128", "int8", 1, 1, "dram", 0.92, ratios={"": 0.95}),
    _goal("int8 int8-g128", "int8", 4, 4, "", ratios={"": 0.95}),
    _goal("int8 int8-g128", "int8", 128, MANY, "unit", 0.85, ratios={"onednn": 0.92, "onnxruntime": 1.8}),
    _goal("int2-g128 int3-g128", "int8", 1, 1, "dram", 0.65, ratios={"": 1.1}),
    _goal("int2-g128 int3-g128 int5-g128 int6-g128", "int8", 64, MANY, "unit", 0.75, ratios={"": 1.7}),
    _goal("fp8-e4m3 fp8-e5m2", "exact", 1, 1, "dram", 0.70),
    _goal("fp8-e4m3 fp8-e5m2", "exact", 64, MANY, "unit", 0.60),
    # Half the time of ggml's iq2_xs on a machine with AVX-512, which no package on the index is built for.
    _goal("vq-d8-k256-s2", "int8", 1, 1, "", at_most_us={1: 524.0, 2: 281.0}, ratios={"ik_llama iq2_xs": 2.0}),
    _goal("vq-d8-k256-s2", "int8", 64, MANY, "unit", 0.65),
    _goal("bitmap-50-int4 bitmap-50-int8", "int8", 1, 1, "dram", 0.60),
)  # fmt: skip


def judge(row: Row, *, huge_pages: bool) -> list[Row]:
    """Every goal of one of our rows: {case, threads, goal, wanted, found, met}. huge_pages: glibc's, for the peers."""
    options = row["options"]
    found: list[Row] = []
    if min(options["shape"]) < LARGE:
        return found
    for goal in GOALS:
        if (
            options["format"] not in goal.formats
            or options["activations"] != goal.activations
            or not goal.tokens[0] <= options["tokens"] <= goal.tokens[1]
        ):
            continue
        least = goal.shares.get(row["threads"])
        if least is not None and row[f"{goal.ceiling}_share"] is not None:
            name = "memory's roof" if goal.ceiling == "dram" else f"{row['unit']} peak"
            found.append(_entry(row, f"share of {name}", least, row[f"{goal.ceiling}_share"]))
        most = goal.at_most_us.get(row["threads"])
        if most is not None and options["shape"] == [LARGE, LARGE]:
            found.append(_entry(row, "us at most", most, row["best_us"], upward=False))
        for name, least in {**goal.ratios, **(goal.ratios_huge if huge_pages else goal.ratios_shipped)}.items():
            ratio = _ratio(row, name)
            if ratio is not None:
                found.append(_entry(row, f"times {name or row['best_peer']}", least, ratio))
    dense = row["peer_ratios"].get("torch bfloat16")
    least_dense = DENSE.get(options["activations"])
    if dense is not None and least_dense is not None and options["format"].startswith(_DENSE_FORMATS):
        found.append(_entry(row, "times torch bfloat16", least_dense, dense))
    if row["scaling"] is not None and row["threads"] == 2 and options["tokens"] >= SCALING_TOKENS:
        found.append(_entry(row, "times one thread", SCALING, row["scaling"]))
    return found


def _ratio(row: Row, name: str) -> float | None:
    """Ours over the best of the peers whose names begin so."""
    if not name:
        return row["peer_ratio"] if row["peer_ratio"] is None else float(row["peer_ratio"])
    ratios = [value for peer, value in row["peer_ratios"].items() if peer.startswith(name)]
    return float(min(ratios)) if ratios else None


def _entry(row: Row, goal: str, wanted: float, found: float, *, upward: bool = True) -> Row:
    met = found >= wanted if upward else found <= wanted
    return {"case": row["case"], "threads": row["threads"], "goal": goal, "wanted": wanted, "found": found, "met": met}


def judge_extras(extras: Sequence[Row]) -> list[Row]:
    """The goals of a call's cost, of packing and of the model."""
    wanted: dict[str, tuple[str, float, bool]] = {
        "call": ("us", CALL_US, False),
        "packing": ("gbps", PACKING_GBPS, True),
        "model": ("dram_share", MODEL_SHARE, True),
    }
    found = []
    for row in extras:
        figure, least, upward = wanted[row["what"]]
        if row[figure] is not None:
            names = {"us": "us at most", "gbps": "GB/s packed", "dram_share": "share of memory's roof"}
            found.append(_entry(row, names[figure], least, row[figure], upward=upward))
    return found
