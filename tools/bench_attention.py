"""What attention costs: the five benchmarks of the self-attention notes, time and memory against
length, decoding, 16-bit storage.

    python tools/bench_attention.py            prints the tables
    python tools/bench_attention.py --write    also puts them into
    docs/self_attention_optimizations.md, with the picture beside it

"compiled" is the same layer through `minigrad.jit`. The notes' figures (another language, gradients
approximate, one sequence at a time) stand beside; so do PyTorch's eager ones, where it is
installed, all in processes of their own, turn by turn. A figure is the tenth percentile of the
processor time of many short runs with one thread, the fastest by the clock with two, and the best
of the rounds: for all alike, as others may share the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import Tensor, functional as F, jit, nn, no_grad

WIDTH, HEADS = 256, 8
LENGTHS = (8, 16, 32, 64, 128)
OLD_FORWARD = {8: 5.04, 16: 8.57, 32: 14.86, 64: 31.52, 128: 71.34}
OLD_GRADIENT = {"forward": 17.01, "backward": 99.38, "ratio": 5.84}
OLD_STABILITY = {0.001: 17.06, 1: 16.75, 100: 16.61, 1000: 17.40}
DOC = Path(__file__).resolve().parent.parent / "docs" / "self_attention_optimizations.md"


def typical_ms(run: Callable[[], Any], seconds: float = 0.15) -> float:
    """Of runs for about so many seconds, at least 10: with one thread the tenth percentile, in
    processor time; with several the fastest by the clock, since whoever else wants a core stops
    them all."""
    alone = os.environ.get("OPENBLAS_NUM_THREADS") == "1"
    clock = time.thread_time if alone else time.perf_counter
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 10 or time.perf_counter() < end:
        start = clock()
        run()
        times.append(clock() - start)
    return 1e3 * float(np.quantile(times, 0.1 if alone else 0))


# --- the contestants: each, in a process of its own, answers (task, length, scale of the input)
# with milliseconds


def layer_and_input(T: int, scale: float = 1.0) -> tuple[nn.MultiHeadAttention, Tensor]:
    rng = np.random.default_rng(0)
    x = Tensor((rng.normal(size=(1, T, WIDTH)) * scale).astype(np.float32), requires_grad=True)
    return nn.MultiHeadAttention(WIDTH, HEADS), x


def forward_and_backward(layer: nn.MultiHeadAttention, x: Tensor, g: Tensor) -> None:
    layer.zero_grad()
    x.grad = None
    layer(x).backward(g)


def compiled(task: str, T: int, scale: float) -> float:
    """The pass as `minigrad.jit` replays it, the forward one held against eager first."""
    layer, x = layer_and_input(T, scale)
    if task == "both":
        replayed, g = jit(forward_and_backward, audit=False), Tensor.ones(x.shape)
        for _ in range(3):
            replayed(layer, x, g)
        return typical_ms(lambda: replayed(layer, x, g))
    step = jit(lambda x: layer(x))
    with no_grad():
        wanted = layer(x).numpy()
        for _ in range(3):
            got = step(x)
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-4, atol=1e-5 * scale)
        return typical_ms(lambda: step(x))


def ours(task: str, T: int, scale: float) -> float:
    layer, x = layer_and_input(T, scale)
    if task == "infer":
        with no_grad():
            return typical_ms(lambda: layer(x))
    if task == "forward":
        return typical_ms(lambda: layer(x))
    g = Tensor.ones(x.shape)
    return typical_ms(lambda: forward_and_backward(layer, x, g))


def torchs(task: str, T: int, scale: float) -> float:
    import torch
    from torch.nn.functional import linear, scaled_dot_product_attention

    torch.set_num_threads(int(os.environ["OPENBLAS_NUM_THREADS"]))
    rng = np.random.default_rng(0)
    x = torch.tensor(
        rng.normal(size=(1, T, WIDTH)).astype(np.float32) * np.float32(scale), requires_grad=True
    )
    w, b, wo, bo = (
        torch.nn.Parameter(torch.randn(*s) / 16)
        for s in ((3 * WIDTH, WIDTH), (3 * WIDTH,), (WIDTH, WIDTH), (WIDTH,))
    )

    def layer() -> Any:
        q, k, v = linear(x, w, b).view(1, T, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = scaled_dot_product_attention(q, k, v, is_causal=True)
        return linear(y.transpose(1, 2).reshape(1, T, WIDTH), wo, bo)

    if task == "infer":
        with torch.no_grad():
            return typical_ms(layer)
    if task == "forward":
        return typical_ms(layer)
    g = torch.ones(x.shape)

    def both() -> None:
        x.grad = w.grad = b.grad = wo.grad = bo.grad = None
        layer().backward(g)

    return typical_ms(both)


CONTESTANTS = {"minigrad": ours, "compiled": compiled, "torch": torchs}


class Contestant:
    """One of CONTESTANTS with so many threads, idle while it is not asked; `present` is False if it
    is not installed.
    """

    def __init__(self, name: str, threads: int) -> None:
        env = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "MINIGRAD_THREADS": str(threads)}
        command = [sys.executable, __file__, "--serve", name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.present = self._answer() == "ready"

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def __call__(self, task: str, T: int, scale: float = 1.0) -> float:
        assert self.process.stdin is not None
        print(json.dumps([task, T, scale]), file=self.process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(name: str) -> None:
    if name == "torch":
        try:
            import torch  # noqa: F401
        except ImportError:
            return
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(CONTESTANTS[name](*json.loads(line))), flush=True)


def in_turns(
    task: str,
    T: int,
    threads: int,
    scale: float = 1.0,
    names: tuple[str, ...] = ("minigrad", "torch"),
) -> list[float | None]:
    """Of each contestant the best of four rounds; None for one that is not here."""
    contestants = [Contestant(name, threads) for name in names]
    try:
        times = [[c(task, T, scale) if c.present else None for c in contestants] for _ in range(4)]
    finally:
        for contestant in contestants:
            contestant.close()
    return [
        None if None in column else min(t for t in column if t is not None)
        for column in zip(*times, strict=True)
    ]


# --- tables: each yields rows of cells, the heading first


Table = Iterator[tuple[Any, ...]]


def mask_caching() -> Table:
    yield "length", "bytes of a mask, float32", "first, µs", "again, µs", "bytes held"
    for T in LENGTHS:
        cache = nn.CausalMaskCache()
        start = time.perf_counter()
        cache.get_or_create(T)
        first = time.perf_counter() - start
        again = typical_ms(lambda cache=cache, T=T: cache.get_or_create(T), 0.02)
        yield T, 4 * T * T, f"{1e6 * first:.1f}", f"{1e3 * again:.2f}", cache.info().bytes


def different_sequence_lengths(task: str = "infer") -> Table:
    parts = ("minigrad", "compiled", "PyTorch", "PyTorch / minigrad", "PyTorch / compiled")
    yield (
        "length",
        "the notes, ms",
        *(f"{part}, {cores}" for cores in ("one core", "two") for part in parts),
    )
    for T in LENGTHS:
        row: list[Any] = [T, OLD_FORWARD[T]]
        for threads in (1, 2):
            eager, replayed, theirs = in_turns(task, T, threads, names=tuple(CONTESTANTS))
            assert eager is not None and replayed is not None
            row += [
                f"{eager:.3f}",
                f"{replayed:.3f}",
                shown(theirs),
                ratio(theirs, eager),
                ratio(theirs, replayed),
            ]
        yield tuple(row)


def forward_and_backward_passes() -> Table:
    for heading, *rest in different_sequence_lengths("both"):
        yield heading, *rest[1:]  # the notes have one figure


def numerical_stability() -> Table:
    yield (
        "inputs times",
        "the notes, ms (length 32)",
        "minigrad, ms of one core",
        "output finite",
        "gradient finite",
    )
    for scale, old in OLD_STABILITY.items():
        layer, x = layer_and_input(32, scale)
        y = layer(x)
        y.backward(np.ones(y.shape, np.float32))
        finite = (
            np.isfinite(y.numpy()).all(),
            x.grad is not None and np.isfinite(x.grad.numpy()).all(),
        )
        yield (
            scale,
            old,
            f"{in_turns('infer', 32, 1, scale)[0]:.3f}",
            *("yes" if ok else "no" for ok in finite),
        )


def gradient_computation() -> Table:
    yield "length", "", "forward, ms", "backward, ms", "backward / forward"
    yield 32, "the notes", OLD_GRADIENT["forward"], OLD_GRADIENT["backward"], OLD_GRADIENT["ratio"]
    for T in (8, 32, 128):
        forward, both = (in_turns(task, T, 1) for task in ("forward", "both"))
        for who, f, fb in zip(("minigrad", "PyTorch"), forward, both, strict=True):
            if f is not None and fb is not None:
                yield T, f"{who}, one core", f"{f:.3f}", f"{fb - f:.3f}", f"{(fb - f) / f:.2f}"


def cache_hit_rate() -> Table:
    yield "requests", "hits", "misses", "hit rate", "bytes held"
    layer, _ = layer_and_input(8)
    cache = layer.causal_mask_cache
    cache.clear()
    with no_grad():
        for _ in range(20):
            for T in LENGTHS:
                layer(layer_and_input(T)[1])
    info = cache.info()
    yield (
        info.hits + info.misses,
        info.hits,
        info.misses,
        f"{info.hits / (info.hits + info.misses):.3f}",
        info.bytes,
    )


SCALING = (128, 256, 512, 1024, 2048, 4096, 8192)


def measure_scaling(method: str, T: int) -> None:
    """One forward and backward, B=1, H=8, D=64: prints milliseconds of each, and MB above the
    inputs.
    """
    rng = np.random.default_rng(0)
    q, k, v = (
        Tensor(rng.normal(size=(1, 8, T, 64)).astype(np.float32), requires_grad=True)
        for _ in range(3)
    )
    g = np.ones((1, 8, T, 64), np.float32)
    with open("/proc/self/statm") as statm:
        before = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    times = []
    for _ in range(3 if T <= 2048 else 1):
        start = time.perf_counter()
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, method=method)
        middle = time.perf_counter()
        y.backward(g)
        times.append((middle - start, time.perf_counter() - middle))
        q.grad = k.grad = v.grad = None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    print(
        json.dumps([1e3 * min(f for f, _ in times), 1e3 * min(b for _, b in times), peak / 2**20])
    )


def scaling() -> Table:
    yield (
        "T",
        "plain forward, ms",
        "plain backward, ms",
        "plain, MB",
        "tiled forward, ms",
        "tiled backward, ms",
        "tiled, MB",
    )
    for T in SCALING:
        row: list[Any] = [T]
        for method in ("plain", "flash"):
            if method == "plain" and T > 4096:
                row += ["", "", ""]
                continue
            answer = subprocess.run(
                [sys.executable, __file__, "--scaling", method, str(T)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            row += [f"{x:.1f}" if x < 100 else f"{x:.0f}" for x in json.loads(answer)]
        yield tuple(row)


def decoding() -> Table:
    yield "position", "µs per token"
    layer = nn.MultiHeadAttention(WIDTH, HEADS)
    x = Tensor(np.random.default_rng(0).normal(size=(1, 1, WIDTH)).astype(np.float32))
    runs = np.zeros((40, 256))
    with no_grad():
        for run in runs:
            cache = layer.make_cache(256)
            for t in range(256):
                start = time.perf_counter()
                layer(x, cache=cache)
                run[t] = time.perf_counter() - start
    for t in (10, 50, 100, 150, 200, 250):
        yield t, f"{1e6 * np.median(runs[:, t - 4 : t + 5]):.0f}"


def mixed_precision() -> Table:
    yield (
        "stored as",
        "weights, KB",
        "KV cache at 512, KB",
        "activation, KB",
        "output's error",
        "gradient's error",
    )
    layer, x = layer_and_input(64)
    weights = layer.state_dict()
    answers: dict[str, list[Any]] = {}
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        layer = nn.MultiHeadAttention(WIDTH, HEADS)
        layer.load_state_dict(weights)
        layer.to(dtype)
        x = Tensor(layer_and_input(64)[1].numpy(), dtype=dtype, requires_grad=True)
        y = layer(x)
        y.backward(np.ones(y.shape, np.float32))
        assert x.grad is not None
        answers[dtype] = [y.numpy().astype(float), x.grad.numpy().astype(float)]
        if dtype == "float64":
            continue
        cache = nn.KVCache(512, fixed=True, dtype=dtype)
        with no_grad():
            layer(x, cache=cache)
        errors = [
            np.abs(a - b).max() / np.abs(b).max()
            for a, b in zip(answers[dtype], answers["float64"], strict=True)
        ]
        kb = (
            sum(p.data.nbytes for p in layer.parameters()) // 1024,
            cache.info().bytes // 1024,
            y.data.nbytes // 1024,
        )
        yield dtype, *kb, *(f"{e:.1e}" for e in errors)


TABLES = (
    mask_caching,
    different_sequence_lengths,
    forward_and_backward_passes,
    numerical_stability,
    gradient_computation,
    cache_hit_rate,
    scaling,
    decoding,
    mixed_precision,
)


def shown(ms: float | None) -> str:
    return "" if ms is None else f"{ms:.3f}"


def ratio(a: float | None, b: float) -> str:
    return "" if a is None else f"{a / b:.2f}"


def markdown(rows: list[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


# --- the picture


def picture(rows: list[tuple[Any, ...]]) -> str:
    """Time and memory against T, both axes logarithmic, as SVG."""
    number = [[float(cell) if cell != "" else None for cell in row] for row in rows[1:]]
    time_of = {
        name: [(r[0], r[i] + r[i + 1]) for r in number if r[i] is not None]
        for name, i in (("plain", 1), ("tiled", 4))
    }
    memory_of = {
        name: [(r[0], max(r[i], 1.0)) for r in number if r[i] is not None]
        for name, i in (("plain", 3), ("tiled", 6))
    }
    parts = [
        (
            '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="330" '
            'font-family="sans-serif" '
            'font-size="12">'
        ),
        '<rect width="760" height="330" fill="white"/>',
    ]
    parts += panel(60, "forward + backward, ms", time_of) + panel(
        440, "memory above the inputs, MB", memory_of
    )
    return "\n".join([*parts, "</svg>", ""])


def panel(left: float, title: str, series: dict[str, list[tuple[float, float]]]) -> list[str]:
    values = [y for points in series.values() for _, y in points]
    low, high = np.floor(np.log10(min(values))), np.ceil(np.log10(max(values)))
    width, height, top = 290.0, 230.0, 50.0

    def at(x: float, y: float) -> tuple[float, float]:
        across = np.log2(x / SCALING[0]) / np.log2(SCALING[-1] / SCALING[0])
        return left + width * across, top + height * (high - np.log10(y)) / (high - low)

    parts = [f'<text x="{left}" y="30" font-size="14">{title}, against T</text>']
    for power in range(int(low), int(high) + 1):
        y = at(SCALING[0], 10.0**power)[1]
        parts.append(
            f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        parts.append(
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    for T in SCALING:
        parts.append(
            f'<text x="{at(T, 10.0**low)[0]:.1f}" y="{top + height + 18}" '
            f'text-anchor="middle">{T}</text>'
        )
    for (name, points), colour in zip(series.items(), ("#c0392b", "#2471a3"), strict=True):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        x, y = at(*points[-1])
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{x - 8:.1f}" y="{y - 8:.1f}" fill="{colour}" text-anchor="end">{name}</text>'
        )
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the tables into the document")
    parser.add_argument(
        "--only", choices=[table.__name__ for table in TABLES], action="append", help="this table"
    )
    parser.add_argument("--serve", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    parser.add_argument("--scaling", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve)
    if options.scaling:
        return measure_scaling(options.scaling[0], int(options.scaling[1]))
    text = DOC.read_text() if options.write else ""
    for table in TABLES:
        if options.only and table.__name__ not in options.only:
            continue
        rows = list(table())
        load = (
            f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, numpy "
            f"{np.__version__}."
        )
        print(f"\n{table.__name__}\n\n{markdown(rows)}\n\n{load}", flush=True)
        if options.write:
            block = f"<!-- {table.__name__} -->\n{markdown(rows)}\n\n{load}\n<!-- end -->"
            text = re.sub(
                rf"<!-- {table.__name__} -->.*?<!-- end -->",
                lambda _, block=block: block,
                text,
                flags=re.DOTALL,
            )
            DOC.write_text(text)
            if table is scaling:
                DOC.with_name("attention_scaling.svg").write_text(picture(rows))
    return None


if __name__ == "__main__":
    main()
