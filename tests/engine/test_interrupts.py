"""Ctrl-C at any instant: gradients are on, and nobody listens, as before."""

import subprocess
import sys
from pathlib import Path

import pytest

# A signal at a random moment, thousands of times, while blocks are entered and left. `a + a` runs
# long without Python looking for signals: most of them come as soon as it does, where a block is
# left.
SIGNALS = """
import random, signal, sys, time
import numpy as np
import minigrad
from minigrad import Tensor, no_grad, enable_grad, set_grad_enabled
from minigrad.modes import MODE, Relay, listening

def grad_modes():
    with no_grad():
        a + a

def modes_within_modes():
    with no_grad(), listening(relay), enable_grad():
        a + a

def set_for_a_block():
    with listening(relay), no_grad():
        with enable_grad():
            a + a

def profiles():
    with minigrad.profile(show=False), minigrad.debug():
        a + a

def decorated():
    off()
    for _ in steps():
        pass

def recordings():
    minigrad.jit(lambda t: t + t, backend="numpy")(x)

@no_grad
def off():
    a + a

@no_grad()
def steps():
    yield a + a

def repeat():
    # Python drops an interrupt in a finalizer: then none comes. A function of its own, since in
    # Python 3.13 a `try` around the loop does not cover the jump back to its condition.
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        work()

signal.signal(signal.SIGALRM, signal.default_int_handler)
a, x, relay = np.ones(20000), Tensor([1.0]), Relay()
rng, before, caught = random.Random(0), MODE.get(), 0
work = globals()[sys.argv[1]]
for _ in range(3000):
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(5e-6, 8e-5))
        repeat()
    except KeyboardInterrupt:
        caught += 1
    assert MODE.get() == before, (caught, MODE.get())
assert caught > 2850, caught
"""


@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize(
    "work",
    ["grad_modes", "modes_within_modes", "set_for_a_block", "profiles", "decorated", "recordings"],
)
def test_an_interrupt_at_any_moment_leaves_the_mode_as_it_was(work: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS, work],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
