"""Greedy decoding with a KV cache, in microseconds per token: minigrad eager and compiled, PyTorch
eager with a preallocated cache, and the floor.

    python tools/bench_decode.py [--widths 128 384] [--batch 1 8] [--rounds 5] [--threads 2]
    [--write]

Each contender lives in a process of its own with the same weights; the tokens of a whole context
are compared before anything is timed, and turns are interleaved. The floor is the time to read all
weights once, by dot products of their halves.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pages import PERFORMANCE, machine

ROOT = Path(__file__).resolve().parents[1]
CONTENDERS = ["minigrad compiled", "minigrad eager", "PyTorch eager", "floor"]
LAYERS, CONTEXT, VOCABULARY = 6, 256, 65
Decode = Callable[
    [int, int], list[list[int]]
]  # (batch, tokens) -> what follows token 0, row by row


def heads(width: int) -> int:
    """Of 64 numbers each, where the width allows four."""
    return max(4, width // 64)


def minigrad(jit: bool) -> Callable[[dict[str, Any], int], Decode]:
    """minigrad, by `model.generate`."""

    def make(arrays: dict[str, Any], width: int) -> Decode:
        from minigrad import Tensor
        from minigrad.models import GPT, GPTConfig

        model = GPT(GPTConfig.gpt2(VOCABULARY, CONTEXT, LAYERS, heads(width), width)).eval()
        model.load_state_dict({k: Tensor(v) for k, v in arrays.items()})
        return lambda batch, count: np.array(
            list(model.generate([[0]] * batch, count, temperature=0.0, jit=jit))
        ).T.tolist()

    return make


def torch(arrays: dict[str, Any], width: int) -> Decode:
    """PyTorch in inference mode; keys and values are written into buffers of the whole context."""
    import torch
    import torch.nn.functional as F

    w, C, H = {k: torch.from_numpy(v) for k, v in arrays.items()}, width, heads(width)

    def step(tokens: Any, caches: list[Any], n: int) -> Any:
        h = w["wte.weight"][tokens] + w["wpe.weight"][n : n + 1]  # (B, 1, C)
        for i, (keys, values) in enumerate(caches):
            p = f"h.{i}."
            z = F.layer_norm(h, (C,), w[p + "ln_1.weight"], w[p + "ln_1.bias"])
            qkv = F.linear(z, w[p + "attn.in_proj_weight"], w[p + "attn.in_proj_bias"]).split(C, 2)
            q, k, v = (t.unflatten(2, (H, C // H)).transpose(1, 2) for t in qkv)
            keys[:, :, n : n + 1], values[:, :, n : n + 1] = k, v
            z = (
                F.scaled_dot_product_attention(q, keys[:, :, : n + 1], values[:, :, : n + 1])
                .transpose(1, 2)
                .flatten(2)
            )
            h = h + F.linear(z, w[p + "attn.out_proj.weight"], w[p + "attn.out_proj.bias"])
            z = F.layer_norm(h, (C,), w[p + "ln_2.weight"], w[p + "ln_2.bias"])
            z = F.gelu(
                F.linear(z, w[p + "mlp.c_fc.weight"], w[p + "mlp.c_fc.bias"]), approximate="tanh"
            )
            h = h + F.linear(z, w[p + "mlp.c_proj.weight"], w[p + "mlp.c_proj.bias"])
        return F.linear(F.layer_norm(h, (C,), w["ln_f.weight"], w["ln_f.bias"]), w["wte.weight"])[
            :, -1
        ]

    @torch.inference_mode()  # type: ignore[no-untyped-call,untyped-decorator,unused-ignore]
    def decode(batch: int, count: int) -> list[list[int]]:
        caches = [
            (torch.zeros(batch, H, CONTEXT, C // H), torch.zeros(batch, H, CONTEXT, C // H))
            for _ in range(LAYERS)
        ]
        tokens, rows = torch.zeros(batch, 1, dtype=torch.int64), []
        for n in range(count):
            tokens = step(tokens, caches, n).argmax(-1, keepdim=True)
            rows.append(tokens.flatten().tolist())
        return [list(row) for row in zip(*rows, strict=True)]

    return decode


def floor(arrays: dict[str, Any], width: int) -> Decode:
    """Every weight is read once for each token, by as many threads as read fastest."""
    flat = np.concatenate([a.ravel() for name, a in arrays.items() if name != "wpe.weight"])
    pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1))

    def read(parts: int) -> None:
        pieces = [
            np.array_split(piece, 2) for piece in np.array_split(flat[: len(flat) // 8 * 8], parts)
        ]
        others = [pool.submit(np.dot, *piece) for piece in pieces[1:]]
        np.dot(*pieces[0])
        for other in others:
            other.result()

    def seconds(parts: int) -> float:
        began = time.perf_counter()
        read(parts)
        return time.perf_counter() - began

    best = min(
        (1, os.cpu_count() or 1),
        key=lambda parts: statistics.median(seconds(parts) for _ in range(20)),
    )

    def decode(_batch: int, count: int) -> list[list[int]]:
        for _ in range(count):
            read(best)
        return []

    return decode


MAKERS = {
    "minigrad compiled": minigrad(True),
    "minigrad eager": minigrad(False),
    "PyTorch eager": torch,
    "floor": floor,
}


def weights_of(width: int, path: Path) -> Path:
    """Random weights, large enough for logits that differ by more than rounding."""
    rng = np.random.default_rng(0)

    def normal(*size: int) -> Any:
        return rng.normal(0, 0.08, size).astype(np.float32)

    C, arrays = (
        width,
        {"wte.weight": normal(VOCABULARY, width), "wpe.weight": normal(CONTEXT, width)},
    )
    for name in ["ln_f.", *(f"h.{i}.{ln}." for i in range(LAYERS) for ln in ("ln_1", "ln_2"))]:
        arrays[name + "weight"], arrays[name + "bias"] = (
            np.ones(C, np.float32),
            np.zeros(C, np.float32),
        )
    for i in range(LAYERS):
        for name, rows, columns in (
            ("attn.in_proj_", 3 * C, C),
            ("attn.out_proj.", C, C),
            ("mlp.c_fc.", 4 * C, C),
            ("mlp.c_proj.", C, 4 * C),
        ):
            arrays[f"h.{i}.{name}weight"], arrays[f"h.{i}.{name}bias"] = (
                normal(rows, columns),
                normal(rows),
            )
    np.savez(path, **arrays)
    return path


def work(name: str, path: str, width: int, batch: int) -> None:
    """The process of one contender: reads numbers of tokens, answers with the seconds they took,
    the last ones and the seconds to get ready.
    """
    began = time.perf_counter()
    with np.load(path) as file:
        decode = MAKERS[name](dict(file), width)
    decode(batch, 8)
    ready = time.perf_counter() - began
    for line in sys.stdin:
        began = time.perf_counter()
        tokens = decode(batch, int(line))
        print(
            json.dumps({"seconds": time.perf_counter() - began, "tokens": tokens, "ready": ready}),
            flush=True,
        )


class Contender:
    """A worker process."""

    def __init__(self, name: str, path: Path, width: int, batch: int, threads: int) -> None:
        one = {
            k: str(threads) for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        }
        # minigrad chooses its threads itself, up to the cores there are; BLAS in one thread is
        # faster for its eager products of one row.
        own = {"OPENBLAS_NUM_THREADS": "1"} | ({"MINIGRAD_THREADS": "1"} if threads == 1 else {})
        environment = {
            **os.environ,
            **one,
            **own,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        }
        command = [sys.executable, __file__, "--work", name, str(path), str(width), str(batch)]
        self.name = name
        self.times: list[float] = []
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def turn(self, count: int) -> dict[str, Any] | None:
        """One answer; None if the contender is not here."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            print(count, file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            return None
        return dict(json.loads(line)) if line else None


def compare(width: int, batch: int, rounds: int, threads: int, folder: Path) -> str:
    """Tokens first, then interleaved turns: a table in Markdown."""
    path = weights_of(width, folder / f"{width}.npz")
    everyone = [Contender(name, path, width, batch, threads) for name in CONTENDERS]
    first = {c.name: c.turn(CONTEXT - 1) for c in everyone}
    here = [c for c in everyone if first[c.name] is not None]
    known = {
        json.dumps(answer["tokens"]) for answer in first.values() if answer and answer["tokens"]
    }
    if len(known) != 1:
        raise SystemExit("the tokens differ, so nothing is timed")
    for _ in range(rounds):
        for c in here:
            time.sleep(0.4)  # until threads of the one before, which spin, are asleep
            c.turn(CONTEXT - 1)  # brings its weights into the caches again
            answer = c.turn(CONTEXT - 1)
            assert answer is not None
            c.times.append(1e6 * answer["seconds"] / (CONTEXT - 1))
    for c in everyone:
        c.process.communicate(None)
    ours = next(c for c in here if c.name == "minigrad compiled")
    text = [
        (
            f"### Decoding, {LAYERS} layers of {width}, {heads(width)} heads, batch {batch}, "
            "context "
            f"{CONTEXT}"
        ),
        "",
        "| | us per token, median | fastest | times minigrad compiled | ready after, s |",
        "|---|---|---|---|---|",
    ]
    for c in here:
        ratio = statistics.median(c.times) / statistics.median(ours.times)
        ready = (first[c.name] or {})["ready"]
        text.append(
            f"| {c.name} | {statistics.median(c.times):.0f} | {min(c.times):.0f} | {ratio:.2f} | "
            f"{ready:.1f} |"
        )
    return "\n".join(
        [
            *text,
            *(f"\nNot measured: {c.name} (not installed)." for c in everyone if c not in here),
            "",
        ]
    )


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        name, path, width, batch = sys.argv[2:6]
        return work(name, path, int(width), int(batch))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 384])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    load = ", ".join(f"{x:.2f}" for x in os.getloadavg())
    lines = [
        "## Decoding",
        "",
        f"`tools/bench_decode.py`. {machine()}, {options.threads} threads, load average {load}.",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for width in options.widths:
            for batch in options.batch:
                lines.append(compare(width, batch, options.rounds, options.threads, Path(folder)))
                print(lines[-1], flush=True)
    if options.write:
        PERFORMANCE.write("bench_decode", lines)
    return None


if __name__ == "__main__":
    main()
