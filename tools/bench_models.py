"""A published model from a GGUF file: seconds to load, prefill and decode in tokens per second, and
peak memory in MB; minigrad in float32 and with int8 products, and llama.cpp where
`llama-cpp-python` is installed.

    python tools/bench_models.py FILE.gguf [--threads 1 2] [--prompt 512] [--tokens 64]
    [--rounds 3]

Each contender lives in a process of its own; their turns are interleaved, and the median of the
rounds is printed. Decoding starts after the prompt.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CONTENDERS = ["minigrad int8", "minigrad float32", "llama.cpp"]
Turn = Callable[[list[int], int], tuple[float, float]]  # seconds of prefill, seconds of decoding


def minigrad(file: str, int8: bool, room: int) -> Turn:
    """minigrad: eager prefill, then compiled steps for groups of tokens."""
    from minigrad.models.decoding import use_int8
    from minigrad.models.published import load

    model, _ = load(file)
    if int8:
        use_int8(model)

    def turn(prompt: list[int], count: int) -> tuple[float, float]:
        tokens = model.generate(prompt, count + 1, temperature=0, jit=True)
        started = time.perf_counter()
        next(tokens)
        prefill = time.perf_counter() - started
        started = time.perf_counter()
        assert len(list(tokens)) == count
        return prefill, time.perf_counter() - started

    return turn


def llama(file: str, threads: int, room: int) -> Turn:
    """llama.cpp, by llama-cpp-python."""
    from llama_cpp import Llama

    model = Llama(file, n_ctx=room, n_threads=threads, n_threads_batch=threads, verbose=False)

    def turn(prompt: list[int], count: int) -> tuple[float, float]:
        model.reset()
        started = time.perf_counter()
        model.eval(prompt)
        prefill = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(count):
            model.eval([int(model.sample(temp=0.0))])
        return prefill, time.perf_counter() - started

    return turn


def work(contender: str, options: argparse.Namespace) -> None:
    """A contender's process: a turn for each line of input."""
    started, room = time.perf_counter(), options.prompt + options.tokens + 8
    if contender == "llama.cpp":
        turn = llama(options.file, options.threads[0], room)
    else:
        turn = minigrad(options.file, contender.endswith("int8"), room)
    loaded = time.perf_counter() - started
    prompt = np.random.default_rng(0).integers(0, 1000, options.prompt).tolist()
    turn(prompt, 4)  # compiles
    print(loaded, flush=True)
    for _ in sys.stdin:
        prefill, decode = turn(prompt, options.tokens)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps([options.prompt / prefill, options.tokens / decode, memory]), flush=True)


def compare(options: argparse.Namespace, threads: int) -> None:
    """Print the medians of all contenders on so many threads."""
    variables = dict.fromkeys(("MINIGRAD_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    words = ["--threads", str(threads), "--prompt", str(options.prompt)]
    words += ["--tokens", str(options.tokens)]
    processes = {
        name: subprocess.Popen(
            [sys.executable, __file__, options.file, "--contender", name, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        )
        for name in CONTENDERS
    }
    found: dict[str, list[list[float]]] = {}
    loaded = {name: p.stdout.readline() for name, p in processes.items()}  # type: ignore[union-attr]
    for _ in range(options.rounds):
        for name, p in processes.items():
            if loaded[name] and p.stdin and p.stdout:
                p.stdin.write("\n")
                p.stdin.flush()
                found.setdefault(name, []).append(json.loads(p.stdout.readline()))
    for name, p in processes.items():
        p.communicate()
        if name in found:
            prefill, decode, memory = map(statistics.median, zip(*found[name], strict=True))
            print(
                f"{threads} threads  {name:<17} load {float(loaded[name]):5.2f} s   "
                f"prefill {prefill:7.1f}   decode {decode:6.1f} tokens/s   {memory:5.0f} MB"
            )
        else:
            print(f"{threads} threads  {name:<17} is missing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        work(options.contender, options)
    else:
        for threads in options.threads:
            compare(options, threads)


if __name__ == "__main__":
    main()
