"""Views of runs and models: curves, TensorBoard events, a model as a tree, and attention maps.

    plot(find_runs(["runs"])).save("plot.svg")           # loss, learning rate, gradient norm, speed
    print(describe(model))                               # modules, shapes, parameters, FLOPs, bytes
    attention_maps(model, tokens).save("attention.svg")     # a heat map per layer and head

Pictures are drawn by matplotlib (the extra `plot`), events are written by tensorboardX (the extra
`tensorboard`). Training needs none of this.
"""

from minigrad.viz.attention import AttentionMaps, attention_maps
from minigrad.viz.curves import Chart, plot
from minigrad.viz.events import EventWriter, export_runs
from minigrad.viz.metrics import Run, find_runs, read_run, summary
from minigrad.viz.tree import Description, describe

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
