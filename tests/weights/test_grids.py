"""Solvers of scales, zeros and tables beside plain NumPy, and what each of them promises."""

import tracemalloc

import numpy as np
import pytest

import tersor
from tersor import formats
from tersor.calibrate import Statistics
from tersor.formats.quantized import QuantizedTensor
from tersor.weights import GPTQ, HQQ, CoordinateDescent, DecoupleQ, MissingStatisticsError, Nearest, Nupes


def inputs(tokens, columns, seed=0):
    """Correlated ones, some columns far larger than others."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((tokens, columns)) @ random.standard_normal((columns, columns)) / columns**0.5
    return ((mixed + 0.5 * mixed[:, :1]) * np.exp(random.standard_normal(columns))).astype(np.float32)


def statistics_of(x):
    found = Statistics(x.shape[1])
    found.update(x)
    return found


def matrix(rows, columns, seed=1):
    """Heavier tails than a normal distribution's, as weights have them."""
    random = np.random.default_rng(seed)
    return (random.standard_t(5, (rows, columns)) * 0.02).astype(np.float32)


def row_errors(q, weight, x):
    off = q.dequantize(np.float32).astype(np.float64) - weight
    return np.square(x.astype(np.float64) @ off.T).sum(0)


def cost(q, weight, importance):
    return float((np.square(q.dequantize(np.float32).astype(np.float64) - weight) * importance).sum())


@pytest.mark.parametrize("name", ["int3-g32", "int3-g32-zero", "int4-g64-minimum", "fp4-e2m1-g32-fp16", "nf4"])
def test_a_clip_by_importance_is_the_best_of_the_list_for_it(name):
    weight, random = matrix(9, 200), np.random.default_rng(2)
    importance = np.exp(2 * random.standard_normal(200)).astype(np.float32)
    fmt = formats.parse(name)

    def fitted(clip, weighing):
        parts = fmt.encode(weight, clip=clip, seed=0, threads=1, importance=weighing)
        return QuantizedTensor(format=fmt, shape=weight.shape, parts=parts)

    weighed, plain, rule = fitted("mse", importance), fitted("mse", None), fitted("none", None)
    assert cost(weighed, weight, importance) < 0.97 * cost(plain, weight, importance)
    assert cost(weighed, weight, importance) < cost(rule, weight, importance)
    assert cost(weighed, weight, 1) > cost(plain, weight, 1)
    for part, array in fitted("mse", np.full(200, 0.25, np.float32)).parts.items():
        np.testing.assert_array_equal(array, plain.parts[part])


def test_importance_is_what_plain_numpy_makes_of_it():
    weight, importance = matrix(6, 64), np.linspace(0, 3, 64).astype(np.float32)
    q = formats.parse("int4-g32").encode(weight, clip="mse", seed=0, threads=1, importance=importance)
    for row, group in np.ndindex(6, 2):
        some, weighs = weight[row, group * 32 :][:32], importance[group * 32 :][:32].astype(np.float64)
        extreme = some.min() if -some.min() >= some.max() else some.max()
        ranges = [-extreme / 8 * (1 - np.float32(0.02) * i) for i in range(36)] + [np.abs(some).max() / 7]
        scales = np.asarray(ranges, np.float32).astype(np.float16).astype(np.float32)
        found = [np.rint(np.clip(some / scale, -8, 7)) * scale for scale in scales]
        costs = [(weighs * np.square(some - one, dtype=np.float64)).sum() for one in found]
        best = scales[int(np.argmin(costs))]
        assert q["scales"][row, group] == pytest.approx(best, abs=0) or min(costs) == pytest.approx(
            costs[list(scales).index(np.float32(q["scales"][row, group]))], rel=1e-6
        )


@pytest.mark.parametrize(
    ("importance", "text"),
    [
        (np.ones(63, np.float32), r"importance is \[63\], \[64\] is needed"),
        (np.full(64, np.nan, np.float32), "importance of column 0 is nan"),
        (np.full(64, -2, np.float32), "importance of column 0 is -2"),
    ],
)
@pytest.mark.parametrize("name", ["int4-g32", "mxfp4", "codebook16-tensor"])
def test_importance_that_is_none_is_refused(name, importance, text):
    with pytest.raises(ValueError, match=text):
        formats.parse(name).encode(matrix(4, 64), clip="mse", seed=0, threads=1, importance=importance)


@pytest.mark.parametrize("name", ["int3-g32", "int4-g32-minimum", "int4-tensor", "nvfp4", "q4_k", "codebook8-channel"])
def test_a_search_leaves_no_row_worse_than_what_it_tries(name):
    weight, x = matrix(40, 256), inputs(500, 256)
    statistics = statistics_of(x)
    tried = [row_errors(GPTQ(clip=clip).solve(weight, name, statistics), weight, x) for clip in ("none", "mse")]
    found = row_errors(GPTQ(clip="search").solve(weight, name, statistics), weight, x)
    if name in ("int4-tensor", "nvfp4"):  # rows share a number
        assert found.sum() <= min(one.sum() for one in tried) * (1 + 1e-4)
    else:
        assert (found <= np.minimum(*tried) * (1 + 1e-4)).all()
        assert found.sum() < 0.99 * min(one.sum() for one in tried)


@pytest.mark.parametrize("clip", ["mse", "search"])
@pytest.mark.parametrize(
    "name",
    ["int2-g32", "int3-g64", "int4-g32-zero", "int3-g32-minimum-bf16", "ternary-channel", "nf4", "fp4-e2m1-g32-fp16"],
)
def test_scales_and_codes_in_turn_are_better_than_codes_alone_in_every_row(name, clip):
    weight, x = matrix(40, 200), inputs(500, 200)
    statistics = statistics_of(x)
    codes = row_errors(CoordinateDescent(clip=clip).solve(weight, name, statistics), weight, x)
    q = DecoupleQ(clip=clip).solve(weight, name, statistics)
    both = row_errors(q, weight, x)
    assert (both <= codes * (1 + 1e-4)).all()
    assert both.sum() < 0.99 * codes.sum()
    assert q.nbytes == tersor.quantize(weight, name).nbytes


@pytest.mark.parametrize("name", ["int4-g32", "int4-g32-minimum"])
def test_scales_for_given_codes_are_the_least_squares_solution(name):
    """Of fp32 scales, where rounding hides nothing: no system of a row's scales is better for its codes."""
    from tersor.weights.decoupleq import fitted_numbers
    from tersor.weights.gptq import chosen
    from tersor.weights.solver import Problem

    weight, x = matrix(5, 80), inputs(400, 80)
    problem = Problem.of(weight, name + "-fp32", statistics_of(x), order="activations", damping=0.01)
    found, codes = chosen(problem, "mse", 1)
    found, moved = fitted_numbers(problem, found, codes, 1)
    assert moved == 5
    for _ in range(20):  # a ridge leaves the last of it to further rounds
        found, _ = fitted_numbers(problem, found, codes, 1)
    codes = codes.astype(np.float64) - (0 if "minimum" in name else 8)
    for n in range(5):
        design = np.zeros((6 if "minimum" in name else 3, 80))
        for g in range(3):
            design[g, 32 * g : 32 * (g + 1)] = codes[n, 32 * g : 32 * (g + 1)]
            design[3 + g :, 32 * g : 32 * (g + 1)][:1] = 1
        want = np.linalg.lstsq(x.astype(np.float64) @ design.T, x @ weight[n].astype(np.float64), rcond=None)[0]
        got = np.concatenate([found[part][n] for part in ("scales", "minimums") if part in found])
        np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int4-tensor", "q4_k"])
def test_where_scales_cannot_move_codes_alone_are_chosen(name):
    weight, statistics = matrix(16, 256), statistics_of(inputs(300, 256))
    got, want = (solver.solve(weight, name, statistics) for solver in (DecoupleQ(), CoordinateDescent()))
    for part, array in want.parts.items():
        np.testing.assert_array_equal(got.parts[part], array)


def half_quadratic(weight, bits, norm, rounds):
    """Groups [n, columns] with a minimum each, by the formulas of the method and in doubles, scales in fp32."""
    top = 2**bits - 1
    minimum = weight.min(1, keepdims=True)
    scale = (weight.max(1, keepdims=True) - minimum) / top
    best, least, steepness = weight * 0, np.full((len(weight), 1), np.inf), 5.0
    for _ in range(rounds + 1):
        codes = np.clip(np.rint((weight - minimum) / scale), 0, top)
        error = weight - scale * codes - minimum
        size = (np.abs(error) ** norm).sum(1, keepdims=True)
        best, least = np.where(size < least, scale * codes + minimum, best), np.minimum(size, least)
        steps = np.abs(error) / scale
        with np.errstate(divide="ignore"):
            target = weight - np.sign(error) * scale * np.maximum(steps - steps ** (norm - 1) / steepness, 0)
        for row, (c, t) in enumerate(zip(codes, target, strict=True)):
            scale[row], minimum[row] = np.polyfit(c, t, 1)
        steepness *= 1.05
    return best


def test_half_quadratic_is_its_formulas():
    weight = matrix(12, 96)
    q = HQQ().solve(weight, "int4-g32-minimum-fp32")
    want = half_quadratic(weight.astype(np.float64).reshape(-1, 32), 4, 0.7, 20).reshape(12, 96)
    same = np.isclose(q.dequantize(np.float32), want, rtol=1e-3, atol=1e-6).reshape(-1, 32).all(1)
    assert same.mean() > 0.9  # a tie of float32 decides for the rest of its group
    assert np.abs(q.dequantize(np.float32) - weight).sum() == pytest.approx(np.abs(want - weight).sum(), rel=2e-3)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("mode", ["", "-zero", "-minimum"])
def test_half_quadratic_needs_no_data_to_be_as_good_as_a_search(bits, mode):
    weight = matrix(64, 300)
    q, searched, rule = (
        solver.solve(weight, f"int{bits}-g64{mode}") for solver in (HQQ(), Nearest(clip="mse"), Nearest())
    )
    assert q.errors["weights"] <= 1.1 * searched.errors["weights"]
    assert np.abs(q.dequantize() - weight).sum() < np.abs(rule.dequantize() - weight).sum()
    assert q.nbytes == searched.nbytes


@pytest.mark.parametrize(
    "name", ["int1-g32", "int1-g32-minimum", "ternary", "int8", "int4-tensor-minimum", "int3-channel"]
)
def test_half_quadratic_of_every_kind_of_integers(name):
    weight = matrix(10, 70)
    weight[2, :64] = 0
    weight[3] = 0.25
    q, rule = HQQ().solve(weight, name), tersor.quantize(weight, name)
    assert q.errors["weights"] <= 1.1 * rule.errors["weights"]
    assert HQQ().solve(weight * 1024, name).errors["weights"] == pytest.approx(q.errors["weights"], rel=0.02)


def test_power_levels_are_the_exponent_s_and_the_search_finds_it():
    from tersor.weights.nupes import best_exponent, power_levels

    grid = formats.parse("codebook16-tensor")
    table = power_levels(grid, 1.5)
    np.testing.assert_array_equal(table[0, [0, 8, 12]], np.float16([-1, 0, 0.5**1.5]))
    assert (np.diff(table[0]) > 0).all()
    random = np.random.default_rng(0)
    made = power_levels(grid, 1.75)[0].astype(np.float32)[random.integers(0, 16, (64, 256))]
    assert best_exponent(made, grid, np.ones(256, np.float32), 1) == pytest.approx(1.75, abs=0.01)


def test_an_exponent_is_better_than_equal_steps_and_gptq_s_codes_than_the_nearest():
    weight, x = matrix(64, 256), inputs(500, 256)
    q = Nupes().solve(weight, "codebook16-tensor")
    assert q.errors["weights"] < 0.9 * Nearest(clip="mse").solve(weight, "int4-channel").errors["weights"]
    with_inputs = Nupes().solve(weight, "codebook16-tensor", statistics_of(x))
    assert row_errors(with_inputs, weight, x).sum() < 0.8 * row_errors(q, weight, x).sum()


SOLVERS = [GPTQ(clip="search"), GPTQ(clip="hessian"), DecoupleQ(), HQQ(), Nupes()]


def format_for(solver):
    return "codebook16-tensor" if isinstance(solver, Nupes) else "int4-g32"


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_threads_shapes_and_types(solver):
    statistics, weight = statistics_of(inputs(100, 130)), matrix(37, 130)
    one, three = (solver.solve(weight, format_for(solver), statistics, threads=threads) for threads in (1, 3))
    for part, array in one.parts.items():
        np.testing.assert_array_equal(array, three.parts[part])
    for shape in [(1, 1), (1, 70), (70, 1)]:
        q = solver.solve(matrix(*shape).astype(np.float16), format_for(solver), statistics_of(inputs(50, shape[1])))
        assert (q.shape, q.dtype) == (shape, "F16")
        assert np.isfinite(q.dequantize()).all()
    assert solver.solve(np.zeros((3, 130), np.float32), format_for(solver), statistics).errors["weights"] == 0


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_weights_and_statistics_that_are_none(solver):
    weight, fmt = matrix(8, 64), format_for(solver)
    few = inputs(10, 64)
    few[:, ::3] = 0
    assert np.isfinite(solver.solve(weight, fmt, statistics_of(few)).dequantize()).all()
    nothing = Statistics(64)
    nothing.update(np.zeros((3, 64), np.float32))
    assert solver.solve(weight, fmt, nothing).errors["weights"] < 0.3
    bad = weight.copy()
    bad[3, 5] = np.nan
    with pytest.raises(ValueError, match=r"1 of 512 weights are not finite, the first is nan at \[3, 5\]"):
        solver.solve(bad, fmt, statistics_of(few))
    with pytest.raises(TypeError, match="needed, not vq"):
        solver.solve(weight, "vq-d8-k256-s2", statistics_of(few))
    if isinstance(solver, HQQ):
        return
    broken = Statistics(64)
    with np.errstate(over="ignore"):
        broken.update(np.full((2, 64), 3e30, np.float32))
    with pytest.raises(ValueError, match="statistics are not finite"):
        solver.solve(weight, fmt, broken)
    with pytest.raises(MissingStatisticsError):
        solver.solve(weight, fmt, Statistics(64))


def test_the_factor_is_numpy_s_and_in_place():
    from tersor.weights.solver import Problem

    statistics, weight = statistics_of(inputs(2000, 600)), matrix(2, 600)
    problem = Problem.of(weight, "int4-g128", statistics, order="columns", damping=0.01)
    damped = statistics.hessian.astype(np.float64)
    damped += 0.01 * np.diag(damped).mean() * np.eye(600)
    upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    np.testing.assert_allclose(problem.feedback, upper / np.diag(upper), atol=1e-4)


def test_large_problems_take_few_matrices_of_columns_by_columns():
    weight, statistics = matrix(8, 1024), statistics_of(inputs(1500, 1024))
    for solver in (GPTQ(clip="search"), DecoupleQ(passes=1, rounds=1)):
        tracemalloc.start()
        solver.solve(weight, "int4-g128", statistics, threads=1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * 4 * 1024**2  # with that of the statistics five in float32


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: DecoupleQ(rounds=0), "rounds are 1 or more, not 0"),
        (lambda: DecoupleQ(passes=0), "passes are 1 or more, not 0"),
        (lambda: HQQ(norm=1.5), r"the norm is in \(0, 1\], not 1.5"),
        (lambda: HQQ(rounds=0), "rounds are 1 or more, not 0"),
        (lambda: Nupes(clip="search"), "clip is one of none, mse, hessian, not 'search'"),
    ],
)
def test_options_that_no_solver_takes(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_formats_that_have_no_numbers_to_solve_for_are_refused():
    for solver, name in ((HQQ(), "q4_k"), (HQQ(), "mxfp4"), (Nupes(), "nf4"), (Nupes(), "int4-g32")):
        with pytest.raises(TypeError, match="needed"):
            solver.solve(matrix(4, 64), name)


@pytest.mark.parametrize("damping", [0.01, 1e-4])
@pytest.mark.parametrize("tokens", [1, 3, 16, 40])
def test_fewer_tokens_than_columns_carry_no_weight_away(tokens, damping):
    """What no token sees would be free, and go anywhere."""
    weight, x = matrix(24, 128), inputs(1040, 128)[:tokens]
    for name in ("int3-g32", "int3-g16-minimum", "int2-g16-zero"):
        gptq = GPTQ(damping=damping).solve(weight, name, statistics_of(x))
        for solver in (CoordinateDescent(damping=damping), DecoupleQ(damping=damping)):
            q = solver.solve(weight, name, statistics_of(x))
            assert q.errors["weights"] < 1.5 * gptq.errors["weights"]
            assert row_errors(q, weight, x).sum() < row_errors(gptq, weight, x).sum()


@pytest.mark.parametrize("name", ["int3-g32", "int3-g16-minimum", "int2-g16-zero"])
def test_many_tokens_of_few_kinds_carry_no_scale_away(name):
    weight, x = matrix(24, 128), np.tile(inputs(3, 128), (50, 1))
    codes, both = (solver.solve(weight, name, statistics_of(x)) for solver in (CoordinateDescent(), DecoupleQ()))
    assert both.errors["weights"] < 1.2 * codes.errors["weights"]
