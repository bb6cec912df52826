"""bench/solvers.py on a small layer: a line and a row a solver, and the plain GPTQ beside ours is one."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def solvers(load):
    pytest.importorskip("torch")
    return load("bench/solvers.py")


def test_a_row_a_solver(solvers, tmp_path, capsys):
    to = tmp_path / "rows.json"
    assert solvers.main(["--quick", "--data", str(tmp_path), "-o", str(to)]) == 0
    result = json.loads(to.read_text())
    assert [row["impl"] for row in result["rows"]] == list(solvers.TIMED)
    assert all(row["seconds"] > 0 and 0 < row["error"] < 1 for row in result["rows"])
    assert len(capsys.readouterr().out.splitlines()) == len(result["rows"]) + 1  # and what is left out


def test_plain_gptq_is_nearest_where_columns_do_not_move_each_other(solvers):
    weight = np.random.default_rng(0).standard_normal((5, 256)).astype(np.float32)
    statistics = solvers.Statistics(256)
    statistics.update(np.eye(256, dtype=np.float32))
    groups = weight.reshape(5, 2, 128)
    scale = np.abs(groups).max(2, keepdims=True) / 7
    want = (np.rint(groups / scale).clip(-8, 7) * scale).reshape(5, 256)
    np.testing.assert_allclose(solvers.plain_gptq(weight, "int4-g128", statistics), want, rtol=1e-5, atol=1e-6)
