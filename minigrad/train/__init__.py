"""The training loop: steps, evaluations, and a stop that loses nothing.

    trainer = Trainer(model, optimizer, data, steps=2000)
    for report in trainer.run():
        print(report.step, report.loss, report.val_loss)

The loop is the caller's: it decides what to print, when to save and when to stop.

    trainer            Trainer: the loop itself
    steps, compiled    how one step is made: eagerly, in mixed precision, compiled
    metrics            the facts of a step, and a line of JSON for each
    memory             what a step will need
    interruption       Ctrl-C, SIGTERM and SIGHUP as requests to stop after the step
"""

from minigrad.train.interruption import Interruption
from minigrad.train.memory import Memory
from minigrad.train.metrics import MetricsLog, Report
from minigrad.train.steps import evaluate
from minigrad.train.trainer import Trainer

__all__ = ["Interruption", "Memory", "MetricsLog", "Report", "Trainer", "evaluate"]
