"""The training loop: steps, evaluations, and a stop that loses nothing.

    trainer = Trainer(model, optimizer, data, steps=2000)
    for report in trainer.run():
        print(report.step, report.loss, report.val_loss)

The loop is the caller's: what to print, when to save and when to stop is decided there.

    trainer       Trainer: the order of things              steps, compiled    how one step is made:
        eager, mixed precision, compiled
    report        what there is to say after a step         metrics            a line of JSON for
    each
    memory        what a step will need                     interruption       Ctrl-C and SIGTERM as
    wishes
"""

from minigrad.train.interruption import Interruption
from minigrad.train.memory import Memory
from minigrad.train.metrics import MetricsLog
from minigrad.train.report import Report
from minigrad.train.steps import evaluate
from minigrad.train.trainer import Trainer

__all__ = ["Interruption", "Memory", "MetricsLog", "Report", "Trainer", "evaluate"]
