"""Peers with Python packages: torch's kernels, ONNX Runtime's MatMulNBits, bitsandbytes' NF4. As they are shipped: in
the memory that they take themselves, with the threads that the point has, and weights as cold as ours.

A peer holds copies of one matrix; `Loaded` gives the way to multiply an x. All raise AbsentError where they cannot be.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.bench.gemm import ik_llama
from tersor.bench.gemm.points import Point
from tersor.bench.gemm.weights import Matrix, Way
from tersor.bench.harness import AbsentError
from tersor.bench.peers import imported

if TYPE_CHECKING:
    from numpy.typing import NDArray

Loaded = Callable[[Any, int], Way]  # x: [tokens, K] float32; threads
Peer = Callable[[Matrix], Loaded]
GROUP = 128


@contextlib.contextmanager
def torch_held(threads: int) -> Iterator[None]:
    """torch with so many threads and without gradients, where there is a torch; both put back."""
    try:
        torch = imported("torch", "torch")
    except AbsentError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)


def _way(name: str, products: Sequence[Callable[[], Any]], nbytes: int, **more: Any) -> Way:
    """One product a copy of the matrix, each giving y as a tensor of torch."""
    return Way(
        name=name,
        multiply=lambda call: products[call % len(products)](),
        first=lambda: products[0]().float().numpy(),
        nbytes=nbytes,
        **more,
    )


def _integers(matrix: Matrix, bits: int, group: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Codes [N, K], 2^(bits - 1) for 0, and scales [N, K / group]; group 0: whole rows."""
    group = group or matrix.columns
    if matrix.columns % group:
        raise AbsentError(f"its groups are of {group} columns, there are {matrix.columns}")
    block = matrix.block.reshape(matrix.block_rows, -1, group)
    zero = 1 << (bits - 1)
    scales = np.abs(block).max(2) / max(zero - 1, 1)
    codes = np.clip(np.rint(block / scales[:, :, None]) + zero, 0, 2 * zero - 1).astype(np.uint8)
    return matrix.tiled(codes.reshape(matrix.block.shape)), matrix.tiled(scales)


def torch_dense(dtype: str, matrix: Matrix) -> Loaded:
    """torch's F.linear on weights of 16 or 32 bits."""
    torch = imported("torch", "torch")
    weight = torch.from_numpy(matrix.tiled(matrix.block)).to(getattr(torch, dtype))
    weights = [weight, *(weight.clone() for _ in range(1, matrix.copies(weight.nbytes)))]

    def loaded(x: Any, threads: int) -> Way:
        given = torch.from_numpy(x).to(weight.dtype)
        products = [partial(torch.nn.functional.linear, given, one) for one in weights]
        return _way(f"torch {dtype}", products, weight.nbytes, dense=True)

    return loaded


def torch_int4(matrix: Matrix) -> Loaded:
    """torch's _weight_int4pack_mm_for_cpu, groups of 128, x in bf16."""
    torch = imported("torch", "torch")
    codes, scales = _integers(matrix, 4, GROUP)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(torch.from_numpy(codes.astype(np.int32)), 1)
    numbers = torch.from_numpy(np.stack([scales.T, np.zeros_like(scales.T)], 2)).to(torch.bfloat16).contiguous()
    weights = [(packed.clone(), numbers.clone()) for _ in range(matrix.copies(packed.nbytes + numbers.nbytes))]

    def loaded(x: Any, threads: int) -> Way:
        given = torch.from_numpy(x).to(torch.bfloat16)
        multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
        products = [partial(multiply, given, one, GROUP, scale) for one, scale in weights]
        return _way("torch int4pack g128", products, packed.nbytes + numbers.nbytes)

    return loaded


def torch_int8(matrix: Matrix) -> Loaded:
    """torch's _weight_int8pack_mm, a scale a row, x in bf16."""
    torch = imported("torch", "torch")
    codes, scales = _integers(matrix, 8, 0)
    weight = torch.from_numpy((codes.astype(np.int16) - 128).astype(np.int8))
    numbers = torch.from_numpy(scales[:, 0]).to(torch.bfloat16)
    weights = [weight.clone() for _ in range(matrix.copies(weight.nbytes))]

    def loaded(x: Any, threads: int) -> Way:
        given = torch.from_numpy(x).to(torch.bfloat16)
        products = [partial(torch.ops.aten._weight_int8pack_mm, given, one, numbers) for one in weights]
        return _way("torch int8pack", products, weight.nbytes + numbers.nbytes)

    return loaded


def fbgemm(matrix: Matrix) -> Loaded:
    """torch's quantized.linear_dynamic with fbgemm: int8 weights, a scale a row, x in 8 bits as it comes."""
    torch = imported("torch", "torch")
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        raise AbsentError("this torch has no fbgemm")
    scales = matrix.tiled(np.abs(matrix.block).max(1) / 127)
    weight = torch.quantize_per_channel(
        torch.from_numpy(matrix.tiled(matrix.block)),
        torch.from_numpy(scales).double(),
        torch.zeros(matrix.rows, dtype=torch.int64),
        0,
        torch.qint8,
    )
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        count = matrix.copies(matrix.rows * matrix.columns)
        weights = [torch.ops.quantized.linear_prepack(weight, None) for _ in range(count)]
    finally:
        torch.backends.quantized.engine = before

    def loaded(x: Any, threads: int) -> Way:
        given = torch.from_numpy(x)
        products = [partial(torch.ops.quantized.linear_dynamic, given, one) for one in weights]
        return _way("fbgemm int8", products, matrix.rows * (matrix.columns + 4))

    return loaded


def onednn(matrix: Matrix) -> Loaded:
    """torch's onednn.qlinear_pointwise: int8 weights, a scale a row; x is in 8 bits before the clock starts."""
    torch = imported("torch", "torch")
    scales = np.abs(matrix.block).max(1) / 127
    codes = np.rint(matrix.block / scales[:, None]).astype(np.int8)
    weight, numbers = torch.from_numpy(matrix.tiled(codes)), torch.from_numpy(matrix.tiled(scales))
    zeros = torch.zeros(matrix.rows, dtype=torch.int32)
    count = matrix.copies(weight.nbytes)

    def loaded(x: Any, threads: int) -> Way:
        step = float(np.abs(x).max() / 127)
        given = torch.from_numpy((np.rint(x / step) + 128).clip(0, 255).astype(np.uint8))
        weights = [torch.ops.onednn.qlinear_prepack(weight, list(x.shape)) for _ in range(count)]

        def product(one: Any) -> Any:
            return torch.ops.onednn.qlinear_pointwise(
                given, step, 128, one, numbers, zeros, None, 1.0, 0, torch.float32, "none", [], ""
            )

        name = "onednn int8, x in 8 bits before"
        return _way(name, [partial(product, one) for one in weights], matrix.rows * (matrix.columns + 4))

    return loaded


def bitsandbytes(matrix: Matrix) -> Loaded:
    """bitsandbytes' Linear4bit, NF4 in blocks of 64, x in bf16."""
    torch, module = imported("torch", "torch"), imported("bitsandbytes", "bitsandbytes")
    layer = module.nn.Linear4bit(
        matrix.columns, matrix.rows, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta"
    )
    dense = torch.from_numpy(matrix.tiled(matrix.block)).to(torch.bfloat16)
    layer.weight = module.nn.Params4bit(dense, requires_grad=False, quant_type="nf4").to("cpu")
    layer.eval()
    layer(torch.zeros(1, matrix.columns, dtype=torch.bfloat16))  # packs
    nbytes = matrix.rows * matrix.columns // 2 + matrix.rows * matrix.columns // 64 * 2  # its scales become bf16
    layers = [layer, *(copy.deepcopy(layer) for _ in range(1, matrix.copies(nbytes)))]

    def loaded(x: Any, threads: int) -> Way:
        given = torch.from_numpy(x).to(torch.bfloat16)
        return _way("bitsandbytes nf4", [partial(one, given) for one in layers], nbytes)

    return loaded


def onnxruntime(bits: int, group: int, matrix: Matrix) -> Loaded:
    """ONNX Runtime's MatMulNBits at accuracy level 4, 8-bit x. One session multiplies all copies in one run, so that a
    call's cost is shared; of several tokens the first one's y alone leaves the session."""
    runtime, onnx = imported("onnxruntime", "onnxruntime"), imported("onnx", "onnx")
    codes, scales = _integers(matrix, bits, group)
    a_byte = 8 // bits
    flat = np.zeros((matrix.rows, matrix.columns // a_byte), np.uint8)
    for place in range(a_byte):
        flat |= codes[:, place::a_byte] << (bits * place)
    packed = flat.reshape(matrix.rows, matrix.columns // group, -1)
    nbytes, name = packed.nbytes + scales.nbytes, f"onnxruntime int{bits} g{group}"
    count = matrix.copies(nbytes)

    def session(one_token: bool, threads: int) -> Any:
        helper, of = onnx.helper, onnx.numpy_helper.from_array
        nodes, given, results = [], [], []
        bounds = [of(np.array([at], np.int64), f"at{at}") for at in (0, 1)]
        for index in range(count):
            whole = f"y{index}" if one_token else f"all{index}"
            # A row further each time: no two are the same, so nobody can join them.
            given += [of(np.roll(packed, index, 0), f"w{index}"), of(np.roll(scales, index, 0), f"s{index}")]
            nodes.append(
                helper.make_node(
                    "MatMulNBits", ["x", f"w{index}", f"s{index}"], [whole], domain="com.microsoft",
                    K=matrix.columns, N=matrix.rows, bits=bits, block_size=group, accuracy_level=4,
                )
            )  # fmt: skip
            if not one_token:
                nodes.append(helper.make_node("Slice", [whole, "at0", "at1", "at0"], [f"y{index}"]))
            results.append(helper.make_tensor_value_info(f"y{index}", onnx.TensorProto.FLOAT, [1, matrix.rows]))
        x_info = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["tokens", matrix.columns])
        graph = helper.make_graph(nodes, "copies", [x_info], results, [*given, *bounds])
        versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=9)
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        return runtime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    made: dict[int, tuple[bool, Any]] = {}  # by threads

    def loaded(x: Any, threads: int) -> Way:
        one_token = len(x) == 1
        if threads not in made or made[threads][0] != one_token:
            made.pop(threads, None)
            made[threads] = (one_token, session(one_token, threads))
        running = made[threads][1]
        return Way(
            name=name,
            multiply=lambda call: running.run(None, {"x": x}),
            first=lambda: np.asarray(running.run(["y0"], {"x": x})[0]),
            nbytes=nbytes,
            a_call=count,
            worst=0.9 if bits == 2 else 0.25,
        )

    return loaded


PEERS: dict[str, Peer] = {
    "torch bfloat16": partial(torch_dense, "bfloat16"),
    "torch float32": partial(torch_dense, "float32"),
    "torch int4pack g128": torch_int4,
    "torch int8pack": torch_int8,
    "fbgemm int8": fbgemm,
    "onednn int8, x in 8 bits before": onednn,
    "bitsandbytes nf4": bitsandbytes,
    **{
        f"onnxruntime int{bits} g{group}": partial(onnxruntime, bits, group)
        for bits, group in ((4, 128), (4, 32), (8, 128), (2, 128))
    },
    **{
        f"ik_llama {kind}": partial(ik_llama.load, kind)
        for kind in ("q4_0_r8", "q4_k_r4", "mxfp4", "q8_0_r8", "q2_k_r4", "q3_k_r4", "q5_k_r4", "q6_k_r4", "iq2_xs")
    },
}

_FOUR_BITS = ("onnxruntime int4 g32", "bitsandbytes nf4", "ik_llama q4_0_r8")
_RIVALS: dict[str, tuple[str, ...]] = {
    "int4-g128": ("onnxruntime int4 g128", "torch int4pack g128", "ik_llama q4_0_r8", "ik_llama q4_k_r4"),
    "int4-g32": _FOUR_BITS,
    "mxfp4": (*_FOUR_BITS, "ik_llama mxfp4"),
    "nvfp4": _FOUR_BITS,
    "nf4": _FOUR_BITS,
    "int8": ("fbgemm int8", "onednn int8, x in 8 bits before", "torch int8pack", "ik_llama q8_0_r8"),
    "int8-g128": ("onnxruntime int8 g128", "fbgemm int8", "ik_llama q8_0_r8"),
    "int2-g128": ("onnxruntime int2 g128", "ik_llama q2_k_r4"),
    "int3-g128": ("onnxruntime int4 g128", "ik_llama q3_k_r4"),
    "int5-g128": ("onnxruntime int8 g128", "ik_llama q5_k_r4"),
    "int6-g128": ("onnxruntime int8 g128", "ik_llama q6_k_r4"),
    "ternary": ("onnxruntime int2 g128", "ik_llama q2_k_r4"),
    "vq-d8-k256-s2": ("ik_llama iq2_xs",),
}


def rivals(point: Point) -> list[str]:
    """The peers of a point: those that store as much and read x alike, and dense weights in bf16."""
    if point.activations == "exact" and "4" in point.format.split("-")[0]:
        return ["bitsandbytes nf4", "torch int4pack g128", "torch bfloat16", "torch float32"]
    return [*_RIVALS.get(point.format, ()), "torch bfloat16"]
