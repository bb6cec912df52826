"""Tokens of a residual quantizer, made here from real sound, through tersor.entropy.TokenCoder.

    python bench/tokens.py DATA [--tokens build/tokens.npz] [-o bench/results/tokens.json]

DATA: a folder with audio/speech_*.flac and audio/music_*.flac. Every clip at 16 kHz and one loudness becomes frames:
the logarithm of 64 mel bands (50 ms, Hann), 75 or 50 a second, or MDCT coefficients under a square root, 50 a second
and critically sampled. Eight books are trained by k-means (a sample for a start, 25 rounds of Lloyd's) on all clips,
each on what the ones before leave. --tokens keeps the tokens, so that a second run only measures.

Rows: the coder without a model, which then travels in the stream; with a model of the other clips, a stream a clip
("prior"); zstd; and as a codec meets what it was not trained on ("other books"): every fifth of the clips by codebooks
of two other fifths, and a prior of the last two. Sizes count every byte. saving: of ceil(log2(book)) bits a token.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tersor.bench import harness, machine, peers
from tersor.entropy import TokenCoder

BOOKS, RATE, FOLDS, ROUNDS, SEED = 8, 16000, 5, 11, 0
SETS = {"mel75-64": ("mel75", 64), "mel75-256": ("mel75", 256), "mel75-1024": ("mel75", 1024)}
SETS |= {"mel50-256": ("mel50", 256), "mdct50-256": ("mdct50", 256)}
OTHER_BOOKS = ("mel75-64", "mel75-256")


def clips_of(data: Path) -> dict[str, np.ndarray]:
    """Name -> samples at 16 kHz, mean square 0.0025."""
    import soundfile

    clips = {}
    for path in sorted((data / "audio").glob("*.flac")):
        samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
        mono = samples.mean(1)
        count = len(mono) * RATE // rate
        spectrum = np.fft.rfft(mono)[: count // 2 + 1]  # what 16 kHz cannot hold is cut off
        clip = np.fft.irfft(np.pad(spectrum, (0, count // 2 + 1 - len(spectrum))), count)
        clips[path.stem] = clip * (0.05 / np.sqrt(np.mean(clip**2)))
    return clips


def framed(clip: np.ndarray, width: int, hop: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(clip, width)[::hop]


def mel(clip: np.ndarray, a_second: int) -> np.ndarray:
    """[frames, 64] logarithms of the power in 64 mel bands."""
    width, size, bands = 800, 1024, 64
    power = np.abs(np.fft.rfft(framed(clip, width, RATE // a_second) * np.hanning(width), size)) ** 2
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), bands + 2) / 2595) - 1)
    bins = np.arange(size // 2 + 1) * RATE / size
    rise = (bins[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    fall = (edges[2:] - bins[:, None]) / np.diff(edges)[1:]
    return np.log(power @ np.clip(np.minimum(rise, fall), 0, None) + 1e-4)


def mdct(clip: np.ndarray, a_second: int) -> np.ndarray:
    """[frames, hop] coefficients of a sine window, under a signed square root."""
    hop = RATE // a_second
    n, k = np.arange(2 * hop), np.arange(hop)
    window = np.sin(np.pi * (n + 0.5) / (2 * hop))
    basis = np.cos(np.pi / hop * np.outer(n + 0.5 + hop / 2, k + 0.5)) * math.sqrt(2 / hop)
    coefficients = framed(np.pad(clip, (hop, 2 * hop)), 2 * hop, hop) * window @ basis
    return np.sign(coefficients) * np.sqrt(np.abs(coefficients))


FEATURES = {
    "mel75": partial(mel, a_second=75),
    "mel50": partial(mel, a_second=50),
    "mdct50": partial(mdct, a_second=50),
}


def nearest(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return ((centers**2).sum(1) - 2 * points @ centers.T).argmin(1)


def kmeans(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    centers = points[rng.choice(len(points), count, replace=False)]
    for _ in range(25):
        own = nearest(points, centers)
        sums, sizes = np.zeros_like(centers), np.bincount(own, minlength=count)
        np.add.at(sums, own, points)
        centers = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], points[rng.integers(len(points))])
    return centers


def quantized(training: np.ndarray, frames: np.ndarray, size: int) -> tuple[np.ndarray, list[float]]:
    """Tokens [n, 8] of frames, by books of the training frames; what each book leaves of the frames' variance."""
    rng = np.random.default_rng(SEED)
    mean = training.mean(0)
    residual, rest = training - mean, frames - mean
    variance, tokens, left = (rest**2).sum(1).mean(), [], []
    for _ in range(BOOKS):
        centers = kmeans(residual, size, rng)
        residual = residual - centers[nearest(residual, centers)]
        tokens.append(nearest(rest, centers))
        rest = rest - centers[tokens[-1]]
        left.append(float((rest**2).sum(1).mean() / variance))
    return np.stack(tokens, 1).astype(np.uint16), left


def make_tokens(data: Path) -> dict[str, Any]:
    """All that is measured, as arrays for np.savez: tokens, the clips' names and frames, what each book leaves."""
    clips = clips_of(data)
    made: dict[str, Any] = {"names": np.array(list(clips))}
    for name, (feature, size) in SETS.items():
        parts = [FEATURES[feature](clip) for clip in clips.values()]
        frames = [len(part) for part in parts]
        whole = np.concatenate(parts)
        made[f"{name}/frames"] = np.array(frames)
        made[f"{name}/tokens"], left = quantized(whole, whole, size)
        made[f"{name}/left"] = np.array(left)
        print(f"{name}: {len(whole)} frames; of the variance is left " + " ".join(f"{part:.3f}" for part in left))
        for fold in range(FOLDS if name in OTHER_BOOKS else 0):
            of_books = np.isin((np.arange(len(parts)) - fold) % FOLDS, (1, 2))
            made[f"{name}/fold{fold}"] = quantized(whole[np.repeat(of_books, frames)], whole, size)[0]
    return made


KINDS = {"speech": "speech", "music": "music", "all": ""}
UNTIMED = ("encode_gbps", "decode_gbps", "best_peer", "encode_ratio", "decode_ratio", "ceiling", "share_of_ceiling")


def split(tokens: np.ndarray, frames: np.ndarray) -> list[np.ndarray]:
    return np.split(tokens, np.cumsum(frames)[:-1])


def clip_coder(coders: list[TokenCoder], ends: np.ndarray, name: str) -> harness.Codec:
    """A stream a clip, each by its own coder."""

    def encode(tokens: np.ndarray) -> list[bytes]:
        return [coder.encode(clip) for coder, clip in zip(coders, np.split(tokens, ends), strict=True)]

    def decode(streams: list[bytes], _: Any) -> np.ndarray:
        return np.concatenate([coder.decode(data) for coder, data in zip(coders, streams, strict=True)])

    return harness.Codec(
        name=name,
        encode=encode,
        decode=decode,
        size=lambda streams: sum(map(len, streams)),
        policies=("fresh",),
        ours=True,
    )


def narrow(codec: harness.Codec, size: int) -> harness.Codec:
    """A peer that is given tokens in the fewest whole bytes."""
    dtype = np.uint8 if size <= 256 else np.uint16
    return replace(
        codec,
        encode=lambda tokens: codec.encode(tokens.astype(dtype)),
        decode=lambda data, _: np.frombuffer(codec.decode(data, None), dtype).astype(np.uint16),
        policies=("fresh",),
    )


def measured(made: dict[str, Any]) -> list[harness.Row]:
    rows = []
    for name, (feature, size) in SETS.items():
        frames, second = made[f"{name}/frames"], int(feature[-2:])
        books, bits = [size] * BOOKS, math.ceil(math.log2(size))
        fit = partial(TokenCoder.fit, books=books, frames_per_chunk=second)
        clips = split(made[f"{name}/tokens"], frames)
        plain = TokenCoder(books, frames_per_chunk=second)
        priors = [fit([*clips[:i], *clips[i + 1 :]]) for i in range(len(clips))]
        for kind, start in KINDS.items():
            chosen = [i for i, clip in enumerate(made["names"]) if clip.startswith(start)]
            tokens, ends = np.concatenate([clips[i] for i in chosen]), np.cumsum(frames[chosen])[:-1]
            codecs = [
                clip_coder([plain], ends[:0], "tersor"),
                clip_coder([plain] * len(chosen), ends, "tersor, a stream a clip"),
                clip_coder([priors[i] for i in chosen], ends, "tersor, prior"),
                narrow(peers.zstd(19), size),
            ]
            case = harness.Case(
                name=f"{kind} {name}", data=tokens, about=f"{tokens.size} tokens", floor_bits=None, policies=("fresh",)
            )
            found = harness.measure(case, codecs, rounds=ROUNDS)
            rows += [finish(row, tokens.size, bits) for row in found]
        if f"{name}/fold0" in made:
            rows += other_books(made, name, fit, plain, bits)
    return rows


def other_books(made: dict[str, Any], name: str, fit: Any, plain: TokenCoder, bits: int) -> list[harness.Row]:
    """Sizes, no timing: the tokens are of the same kind."""
    coded = []  # clip, tokens, bytes without and with a prior
    for fold in range(FOLDS):
        clips = split(made[f"{name}/fold{fold}"], made[f"{name}/frames"])
        coder = fit([clip for i, clip in enumerate(clips) if (i - fold) % FOLDS > 2])
        held = [(i, clip) for i, clip in enumerate(clips) if i % FOLDS == fold]
        coded += [(i, clip.size, len(plain.encode(clip)), len(coder.encode(clip))) for i, clip in held]
    rows = []
    for kind, start in KINDS.items():
        chosen = [sizes for i, *sizes in coded if made["names"][i].startswith(start)]
        tokens, *stored = (sum(column) for column in zip(*chosen, strict=True))
        for impl, size in zip(
            ("tersor, a stream a clip, other books", "tersor, prior, other books"), stored, strict=True
        ):
            row = dict.fromkeys(UNTIMED) | {"case": f"{kind} {name}", "impl": impl, "ours": True, "threads": 1}
            rows.append(finish({**row, "bytes_in": 2 * tokens, "bytes_out": size}, tokens, bits))
    return rows


def finish(row: harness.Row, tokens: int, bits: int) -> harness.Row:
    """With what a reader compares: raw bits, what is saved of them, tokens a second."""
    row.pop("samples_gbps", None)
    raw = tokens * bits / 8
    speeds = {
        f"{operation}_mtokens": round(row[f"{operation}_gbps"] * 500, 1)  # two bytes each
        for operation in ("encode", "decode")
        if row.get(f"{operation}_gbps")
    }
    return {
        **row,
        "tokens": tokens,
        "raw_bits": bits,
        "saving_percent": round(100 * (1 - row["bytes_out"] / raw), 2),
        **speeds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tokens", type=Path, help="made where it is not there yet")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if arguments.tokens and arguments.tokens.exists():
        made = dict(np.load(arguments.tokens))
    else:
        made = make_tokens(arguments.data)
        if arguments.tokens:
            np.savez_compressed(arguments.tokens, **made)
    rows = measured(made)
    print(f"{'case':20} {'coder':36} {'saving':>8} {'encode':>8} {'decode':>8}   M tokens/s")
    for row in rows:
        speeds = [f"{row[key]:8.1f}" if key in row else f"{'':8}" for key in ("encode_mtokens", "decode_mtokens")]
        print(f"{row['case']:20} {row['impl']:36} {row['saving_percent']:7.2f}% {' '.join(speeds)}")
    if arguments.output:
        left = {name: [round(float(part), 4) for part in made[f"{name}/left"]] for name in SETS}
        result = {"bench": "tokens", "machine": machine.facts(), "variance_left": left, "rows": rows}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
