"""Looking at runs and models: curves of what runs have written, TensorBoard's files, a model as a
tree, and where its attention goes.

    plot(find_runs(["runs"])).save("plot.svg")              # loss, learning rate, gradient norm,
    tokens per second
    print(describe(model))                                  # modules, shapes, parameters, FLOPs,
    bytes
    attention_maps(model, tokens).save("attention.svg")     # a heat map per layer and head

Charts and maps show themselves in a notebook. Nothing here is needed to train.
"""

from minigrad.looking.attention import AttentionMaps, attention_maps
from minigrad.looking.chart import Chart, plot
from minigrad.looking.events import EventWriter, export_runs
from minigrad.looking.metrics import Run, find_runs, read_run, summary
from minigrad.looking.tree import Description, describe

__all__ = [
    "AttentionMaps",
    "Chart",
    "Description",
    "EventWriter",
    "Run",
    "attention_maps",
    "describe",
    "export_runs",
    "find_runs",
    "plot",
    "read_run",
    "summary",
]
