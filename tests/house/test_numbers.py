"""README's numbers are those of bench/results: written by bench/report.py, the very function that runs here."""

import json

import pytest

ROW = (
    "case",
    "impl",
    "bytes_in",
    "bytes_out",
    "encode_gbps",
    "decode_gbps",
    "best_peer",
    "encode_ratio",
    "decode_ratio",
    "ceiling",
    "share_of_ceiling",
)
# Measured by a script of its own, beside one peer, in milliseconds: bench/learned_codec.py. Linear layers code nothing.
OWN_ROWS = {
    "solvers": ("case", "impl", "seconds", "error"),
    "quantized_models": ("case", "model", "seed", "bits_per_weight", "kl_mean", "kl_se", "perplexity", "windows"),
    "quantize_memory": ("model", "solver", "samples", "peak_above_imports", "limit", "ratio", "bits_per_weight"),
    "generation": ("what", "case", "threads", "bytes", "tokens_per_s", "gbps", "dram_share"),
    "learned_codec": ("case", "theirs_encode_ms", "theirs_decode_ms", "ours_encode_ms", "ours_decode_ms", "times"),
    "gemm": (
        "case",
        "impl",
        "threads",
        "us",
        "best_us",
        "gbps",
        "dram_share",
        "gops",
        "unit_share",
        "best_peer",
        "peer_ratio",
    ),
}


@pytest.fixture(scope="module")
def report(load):
    return load("bench/report.py")


def test_readme_holds_the_results(report, root):
    readme = (root / "README.md").read_text()
    assert readme == report.rewrite(readme, report.numbers_table(report.load())), "run bench/report.py"


def test_an_edited_number_is_found(report, root):
    readme = (root / "README.md").read_text()
    edited = readme.replace(report.BEGIN, report.BEGIN + "\n| x | 99.9 |", 1)
    assert edited != report.rewrite(edited, report.numbers_table(report.load()))


def test_results_have_one_shape(root):
    for path in sorted((root / "bench" / "results").glob("*.json")):
        result = json.loads(path.read_text())
        assert {"cpu", "cores"} <= set(result["machine"]), path.name
        assert result["rows"], path.name
        for row in result["rows"]:
            assert set(OWN_ROWS.get(result["bench"], ROW)) <= set(row), f"{path.name}: {row['case']}"
