"""Architectures of GGUF files and of transformers: names of tensors, order of rows, configurations.

What llama.cpp's models compute is what those of transformers compute, under other names: `tensors` maps the names,
`rows_in_file` tells the order of the rows of queries and keys, `config_of` and `metadata_of` map the numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = re.compile(r"^(blk|model\.layers)\.(0|[1-9][0-9]{0,5})\.")
_ATTENTION = {
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
}
_AROUND = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
    "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
}
_GATED = {"blk.{}.ffn_gate": "model.layers.{}.mlp.gate_proj", "blk.{}.ffn_up": "model.layers.{}.mlp.up_proj"}
_ONE_NORM = {"blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm"}
_HEAD_NORMS = {
    "blk.{}.attn_q_norm": "model.layers.{}.self_attn.q_norm",
    "blk.{}.attn_k_norm": "model.layers.{}.self_attn.k_norm",
}
_FOUR_NORMS = {
    "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_norm": "model.layers.{}.pre_feedforward_layernorm",
    "blk.{}.post_ffw_norm": "model.layers.{}.post_feedforward_layernorm",
}
_FUSED = {
    "blk.{}.attn_qkv": "model.layers.{}.self_attn.qkv_proj",
    "blk.{}.ffn_up": "model.layers.{}.mlp.gate_up_proj",
}
_DENSE = {**_AROUND, **_ATTENTION, **_GATED, **_ONE_NORM}

# transformers' config.json -> the key behind "<architecture>."
_NUMBERS = {
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
_SOFT_CAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "sliding_window": "attention.sliding_window",
}
_FRACTIONS = (  # of config.json; its other numbers are whole
    "rms_norm_eps", "attn_logit_softcapping", "final_logit_softcapping", "rope_theta", "factor", "low_freq_factor",
    "high_freq_factor",
)  # fmt: skip
_IDS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}

ROPE_FACTORS = "rope_freqs.weight"  # of Llama 3.1: what each frequency is divided by
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A row of the table. name: "general.architecture". model_type, model_class: transformers'.

    tensors: stems of names, GGUF's -> transformers'. interleaved: GGUF has the two halves of a head's rows of queries
    and keys interleaved. norms_plus_one: GGUF stores w + 1. numbers: further keys, as _NUMBERS. fixed: what
    transformers' configuration must say, since llama.cpp computes nothing else.
    """

    name: str
    model_type: str
    model_class: str
    tensors: Mapping[str, str]
    interleaved: bool = False
    norms_plus_one: bool = False
    numbers: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def to_transformers(self, name: str) -> str | None:
        """The parameter's name that a tensor of the file has; None for an unknown one."""
        return _renamed(name, self.tensors)

    def to_gguf(self, name: str) -> str | None:
        """The inverse."""
        return _renamed(name, {theirs: ours for ours, theirs in self.tensors.items()})

    def rows_in_file(self, name: str, rows: int, config: Mapping[str, Any]) -> NDArray[np.int64] | None:
        """The row of transformers' parameter in each place of the file's tensor; None where they are in order.

        name: of the file. transformers turns pairs (i, i + half) of a head, ggml's "norm" rotation neighbors.
        """
        if not self.interleaved or not re.search(r"\.attn_[qk]\.", name):
            return None
        heads = int(config["num_attention_heads"])
        if ".attn_k." in name:
            heads = int(config.get("num_key_value_heads") or heads)
        if heads < 1 or rows % (2 * heads):
            raise _core.FormatError(f"{name} has {rows} rows, a multiple of 2 times {heads} heads is needed")
        return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)

    def is_norm(self, name: str) -> bool:
        return self.norms_plus_one and name.endswith("norm.weight")


LLAMA = Architecture(
    name="llama", model_type="llama", model_class="LlamaForCausalLM", tensors=_DENSE, interleaved=True,
    fixed={"hidden_act": "silu"},
)  # fmt: skip
ARCHITECTURES = (
    LLAMA,
    Architecture(  # llama.cpp has no name of its own for it: read, it is a llama
        name="llama", model_type="mistral", model_class="MistralForCausalLM", tensors=_DENSE, interleaved=True,
        fixed={"hidden_act": "silu"},
    ),
    Architecture(
        name="qwen2", model_type="qwen2", model_class="Qwen2ForCausalLM", tensors=_DENSE,
        fixed={"hidden_act": "silu", "use_sliding_window": False},
    ),
    Architecture(
        name="qwen3", model_type="qwen3", model_class="Qwen3ForCausalLM", tensors={**_DENSE, **_HEAD_NORMS},
        fixed={"hidden_act": "silu", "use_sliding_window": False},
    ),
    Architecture(
        name="phi3", model_type="phi3", model_class="Phi3ForCausalLM", tensors={**_AROUND, **_FUSED, **_ONE_NORM},
        numbers={"sliding_window": "attention.sliding_window"}, fixed={"hidden_act": "silu"},
    ),
    Architecture(
        name="gemma2", model_type="gemma2", model_class="Gemma2ForCausalLM", norms_plus_one=True, numbers=_SOFT_CAPS,
        tensors={**_AROUND, **_ATTENTION, **_GATED, **_FOUR_NORMS}, fixed={"hidden_activation": "gelu_pytorch_tanh"},
    ),
)  # fmt: skip


def of_file(metadata: Mapping[str, Any]) -> Architecture:
    """The architecture of a GGUF file. Raises FormatError (one that is not in the table)."""
    name = metadata.get("general.architecture")
    for one in ARCHITECTURES:
        if one.name == name:
            return one
    known = ", ".join(sorted({one.name for one in ARCHITECTURES}))
    raise _core.FormatError(f"a model of the architecture {name!r}, known are {known}")


def of_config(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json. Raises ValueError (one that is not in the table)."""
    for one in ARCHITECTURES:
        if one.model_type == config.get("model_type"):
            return one
    known = ", ".join(one.model_type for one in ARCHITECTURES)
    raise ValueError(f"a model of the type {config.get('model_type')!r}, GGUF export knows {known}")


def config_of(
    architecture: Architecture, metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]],
    factors: NDArray[np.float32] | None,
) -> dict[str, Any]:  # fmt: skip
    """config.json of a GGUF file. shapes: of its tensors. factors: its rope_freqs.weight, if it has one.

    Raises FormatError (a key that is missing or no number; a mixture of experts; frequencies that no configuration
    gives).
    """

    def get(key: str) -> Any:
        return metadata.get(f"{architecture.name}.{key}")

    def number(key: str, default: float | None = None, *, whole: bool = True) -> Any:
        """One above 0, the default where there is none."""
        value = default if get(key) is None else get(key)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not 0 < value < 2**31:
            wanted = "a whole number" if whole else "a number"
            raise _core.FormatError(f"{architecture.name}.{key} is {value!r}, {wanted} above 0 is needed")
        return value

    if get("expert_count"):
        raise _core.FormatError("a mixture of experts, dense models are known")
    heads = number("attention.head_count")
    found = {
        ours: number(key, heads if ours == "num_key_value_heads" else None, whole=ours not in _FRACTIONS)
        for ours, key in _NUMBERS.items()
    }
    for ours, key in architecture.numbers.items():
        if get(key):  # a window of 0 is none
            found[ours] = number(key, whole=ours not in _FRACTIONS)
    if "token_embd.weight" not in shapes:
        raise _core.FormatError("there is no tensor token_embd.weight")
    found["rms_norm_eps"] = _shortest(found["rms_norm_eps"])
    found["head_dim"] = number("attention.key_length", found["hidden_size"] // heads)
    config = {
        "architectures": [architecture.model_class],
        "model_type": architecture.model_type,
        **found,
        **architecture.fixed,
        "vocab_size": shapes["token_embd.weight"][0],
        "tie_word_embeddings": "output.weight" not in shapes,
        "rope_parameters": _rope(get, number, factors, found),
        "dtype": "float32",
    }
    for ours, key in _IDS.items():
        token = metadata.get(f"tokenizer.ggml.{key}")
        config[ours] = token if isinstance(token, int) else None
    if architecture.model_type in ("llama", "qwen3"):
        config["attention_bias"] = "blk.0.attn_output.bias" in shapes or "blk.0.attn_q.bias" in shapes
    if architecture.model_type == "llama":
        config["mlp_bias"] = "blk.0.ffn_up.bias" in shapes
    if architecture.model_type == "gemma2":
        config["query_pre_attn_scalar"] = _gemma_scalar(config)
    return config


def metadata_of(architecture: Architecture, config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys behind "<architecture>." for a config.json. Raises ValueError (what llama.cpp does not compute)."""
    for ours, needed in architecture.fixed.items():
        if config.get(ours, needed) != needed:
            raise ValueError(f"{ours} is {config[ours]!r}, llama.cpp's {architecture.name} has {needed!r}")
    if architecture.model_type == "gemma2" and config.get("query_pre_attn_scalar") != _gemma_scalar(config):
        raise ValueError(f"query_pre_attn_scalar is {config.get('query_pre_attn_scalar')}, not {_gemma_scalar(config)}")
    numbers = {**_NUMBERS, **architecture.numbers}
    found = {key: _positive(config, ours) for ours, key in numbers.items() if config.get(ours) is not None}
    missing = [ours for ours, key in _NUMBERS.items() if key not in found and ours != "num_key_value_heads"]
    if missing:
        raise ValueError(f"config.json has no {missing[0]}")
    head = head_dim(config)
    found.setdefault("attention.head_count_kv", found["attention.head_count"])
    if "sliding_window" in architecture.numbers:  # asked for even where there is none
        found.setdefault("attention.sliding_window", found["context_length"])
    rope = {**config, **_rope_parameters(config)}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "llama3", "linear"):
        raise ValueError(f"positions are scaled by {kind!r}, GGUF export knows default, llama3 and linear")
    scaled: dict[str, Any] = {}
    if kind == "linear":
        scaled = {"rope.scaling.type": "linear", "rope.scaling.factor": _positive(rope, "factor")}
    if float(rope.get("partial_rotary_factor") or 1) != 1:
        raise ValueError(f"a share of {rope['partial_rotary_factor']} of a head is turned, GGUF export knows 1")
    return {
        **found,
        **scaled,
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.dimension_count": head,
        "rope.freq_base": _theta(rope),
        "vocab_size": _positive(config, "vocab_size"),
    }


def dropped_window(architecture: Architecture, config: Mapping[str, Any]) -> int | None:
    """A sliding window that tokens have in transformers and not in llama.cpp, None where nothing is lost."""
    window = config.get("sliding_window")
    known = "sliding_window" in architecture.numbers or "use_sliding_window" in architecture.fixed
    return None if known or not window or window >= config["max_position_embeddings"] else int(window)


def _positive(config: Mapping[str, Any], key: str) -> float:
    """In the type that llama.cpp takes alone: a float for fractions, else an int. Raises ValueError."""
    value = config.get(key)
    whole = key not in _FRACTIONS
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not 0 < value < 2**31:
        raise ValueError(f"{key} is {value!r}, {'a whole number' if whole else 'a number'} above 0 is needed")
    return value if whole else float(value)


def _rope_parameters(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"rope_parameters are {found!r}, an object is needed")
    return found


def _theta(rope: Mapping[str, Any]) -> float:
    return 10000.0 if rope.get("rope_theta") is None else _positive(rope, "rope_theta")


def head_dim(config: Mapping[str, Any]) -> int:
    if config.get("head_dim") is None:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return int(_positive(config, "head_dim"))


def rope_factors(config: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """rope_freqs.weight [head_dim / 2] of a config.json whose rope_type is "llama3", else None.

    Frequencies of long waves are divided by a factor, those of short ones stay, those between lie between: Llama 3.1.
    """
    rope = _rope_parameters(config)
    if (rope.get("rope_type") or rope.get("type")) != "llama3":
        return None
    return _llama3_factors(head_dim(config), _theta({**config, **rope}), rope)


def _llama3_factors(head: int, theta: float, rope: Mapping[str, Any]) -> NDArray[np.float32]:
    wave = 2 * math.pi * theta ** (np.arange(0, head, 2) / head)
    context, factor = _positive(rope, "original_max_position_embeddings"), _positive(rope, "factor")
    low, high = _positive(rope, "low_freq_factor"), _positive(rope, "high_freq_factor")
    if low >= high:
        raise ValueError(f"low_freq_factor is {low}, less than high_freq_factor is needed, which is {high}")
    smooth = (context / wave - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    return np.where(wave < context / high, 1.0, np.where(wave > context / low, factor, between)).astype(np.float32)


def _rope(
    get: Callable[[str], Any], number: Callable[..., Any], factors: NDArray[np.float32] | None, found: Mapping[str, Any]
) -> dict[str, Any]:
    theta = _shortest(number("rope.freq_base", 10000.0, whole=False))
    scaling, turned = get("rope.scaling.type") or "none", number("rope.dimension_count", found["head_dim"])
    if turned != found["head_dim"]:
        raise _core.FormatError(f"{turned} of {found['head_dim']} columns of a head are turned, all are needed")
    if scaling not in ("none", "linear"):
        raise _core.FormatError(f"positions are scaled by {scaling!r}, none and linear are known")
    if scaling == "linear":
        return {"rope_type": "linear", "rope_theta": theta, "factor": number("rope.scaling.factor", 1.0, whole=False)}
    if factors is None:
        return {"rope_type": "default", "rope_theta": theta}
    most = float(factors.max())
    rope = {"rope_type": "llama3", "rope_theta": theta, "factor": most, **_LLAMA3}
    made = _llama3_factors(found["head_dim"], theta, rope) if 0 < most < math.inf else np.zeros(0, np.float32)
    if made.shape != factors.shape or not np.allclose(made, factors, rtol=1e-5):
        raise _core.FormatError(f"{ROPE_FACTORS} is not what Llama 3.1 has: no configuration is known that gives it")
    return rope


def _gemma_scalar(config: Mapping[str, Any]) -> int:
    """What queries are divided by the root of: llama.cpp takes it from the size of the model, 46 layers being 27B."""
    if config["num_hidden_layers"] == 46:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return head_dim(config)


def _shortest(number: float) -> float:
    """The decimal that a person wrote where float32 was stored: 1e-05 for 9.999999747e-06."""
    return float(str(np.float32(number)))


def block_number(name: str) -> int:
    """The number of a tensor's block, -1 outside them."""
    found = _BLOCK.match(name)
    return int(found[2]) if found else -1


def _renamed(name: str, stems: Mapping[str, str]) -> str | None:
    stem, dot, kind = name.rpartition(".")
    number = block_number(name)
    asked = stem.replace(f".{number}.", ".{}.", 1) if number >= 0 else stem
    found = stems.get(asked)
    if found is None or kind not in ("weight", "bias") or ("{}" in found) != (number >= 0):
        return None
    return found.replace("{}", str(number)) + dot + kind
