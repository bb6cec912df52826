"""tokenizer.json as the metadata of a GGUF file: vocabulary, merges, kinds of tokens, how texts are split.

Byte-level BPE is known ("gpt2" of llama.cpp), and BPE over characters with bytes for what is not in it ("llama").
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tersor.compat.exchanged import json_of

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How a text is split before merges, by llama.cpp's name of it.
_SPLITS = {
    "qwen2": _QWEN2,
    "llama-bpe": _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|"),
}
SMOLLM_SPLIT = {  # digits one by one
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
SPECIAL_TOKENS = (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))  # transformers', GGUF's


def tokenizer_metadata(folder: Path, config: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The keys "tokenizer.*" for a model's folder, none where it has no tokenizer.json; a note says so.

    config: config.json, whose vocab_size tokens the file must have. Raises ValueError (a tokenizer of another kind).
    """
    document = json_of(folder / "tokenizer.json")
    if not document:
        notes.append("there is no tokenizer.json: tools of llama.cpp's kind will not load the file")
        return {}
    model = document.get("model") or {}
    if model.get("type") != "BPE":
        raise ValueError(f"the tokenizer is {model.get('type')}, GGUF export knows BPE")
    settings = json_of(folder / "tokenizer_config.json")
    generation = json_of(folder / "generation_config.json")
    tokens, kinds = _tokens(document, int(config["vocab_size"]))
    merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
    found: dict[str, Any] = {}
    if model.get("byte_fallback"):
        found |= {"ggml.model": "llama", "ggml.pre": "default", "ggml.scores": _scores(tokens, model["merges"])}
        found["ggml.add_space_prefix"] = _adds_space(document)
    else:
        found |= {"ggml.model": "gpt2", "ggml.pre": _split_name(document, notes), "ggml.merges": merges}
    found |= {"ggml.tokens": tokens, "ggml.token_type": kinds, "ggml.add_bos_token": _adds_first(document)}
    numbers = {token: number for number, token in enumerate(tokens)}
    for ours, theirs in SPECIAL_TOKENS:
        number = _id(ours, settings, generation, config, numbers)
        if number is not None:
            found[f"ggml.{theirs}_token_id"] = number
    last = generation.get("eos_token_id", config.get("eos_token_id"))
    others = [one for one in last if one != found.get("ggml.eos_token_id")] if isinstance(last, list) else []
    for key, number in zip(("ggml.eot_token_id", "ggml.eom_token_id"), others, strict=False):
        found[key] = number
    template = folder / "chat_template.jinja"
    chat = template.read_text(encoding="utf-8") if template.is_file() else settings.get("chat_template")
    if isinstance(chat, str):
        found["chat_template"] = chat
    return {f"tokenizer.{key}": value for key, value in found.items()}


def _tokens(document: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Every token and its kind, by number; numbers without a token are unused."""
    vocabulary = document["model"]["vocab"]
    bytes_too = bool(document["model"].get("byte_fallback"))
    tokens, kinds = [f"[PAD{i}]" for i in range(size)], [_UNUSED] * size
    for token, number in vocabulary.items():
        if not 0 <= number < size:
            raise ValueError(f"token {number} ({token!r}) is beyond vocab_size, which is {size}")
        tokens[number] = token
        is_byte = bytes_too and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        kinds[number] = _BYTE if is_byte else _NORMAL
    for added in document.get("added_tokens") or []:
        if not 0 <= added["id"] < size:
            raise ValueError(f"token {added['id']} ({added['content']!r}) is beyond vocab_size, which is {size}")
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = _CONTROL if added.get("special") else _USER
    unknown = document["model"].get("unk_token")
    if bytes_too and unknown in vocabulary:
        kinds[vocabulary[unknown]] = _UNKNOWN
    return tokens, kinds


def _scores(tokens: list[str], merges: list[Any]) -> list[float]:
    """llama.cpp merges the pair whose result scores most: the earlier a merge stands, the more."""
    rank: dict[str, int] = {}
    for i, one in enumerate(merges):
        rank.setdefault("".join(one.split(" ", 1) if isinstance(one, str) else one), i)
    return [float(-rank[token]) if token in rank else float(-len(merges)) for token in tokens]


def _steps(one: Mapping[str, Any] | None, members: str) -> list[Mapping[str, Any]]:
    """A step of the tokenizer, or those of a sequence."""
    if not one:
        return []
    return list(one[members]) if one.get("type") == "Sequence" else [one]


def _split_name(document: Mapping[str, Any], notes: list[str]) -> str:
    steps = _steps(document.get("pre_tokenizer"), "pretokenizers")
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        regex = (steps[0].get("pattern") or {}).get("Regex")
        for name, one in _SPLITS.items():
            if regex == one:
                return name
    steps_named = " and ".join(map(str, kinds))
    notes.append(f"texts are split by {steps_named}, for which no name of llama.cpp's is known: it is told gpt-2")
    return "gpt-2"


def _adds_space(document: Mapping[str, Any]) -> bool:
    steps = [
        *_steps(document.get("normalizer"), "normalizers"), *_steps(document.get("pre_tokenizer"), "pretokenizers"),
    ]  # fmt: skip
    return any(step.get("type") == "Prepend" or step.get("prepend_scheme") in ("always", "first") for step in steps)


def _adds_first(document: Mapping[str, Any]) -> bool:
    """Whether a text begins with a special token that the tokenizer adds."""
    for step in _steps(document.get("post_processor"), "processors"):
        if step.get("type") == "TemplateProcessing":
            return bool(step.get("single")) and "SpecialToken" in step["single"][0]
    return False


def _id(
    name: str, settings: Mapping[str, Any], generation: Mapping[str, Any], config: Mapping[str, Any],
    numbers: Mapping[str, int],
) -> int | None:  # fmt: skip
    token = settings.get(f"{name}_token")
    token = token.get("content") if isinstance(token, Mapping) else token
    if isinstance(token, str) and token in numbers:
        return numbers[token]
    for one in generation, config:
        value = one.get(f"{name}_token_id")
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int):
            return value
    return None
