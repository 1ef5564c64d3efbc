"""Files of weights and checkpoints: the MGRD 1 format, and the formats of others.

Knows names and arrays; no Tensor, no Module. `save` and `load` are for weights, `save_checkpoint`
and `load_checkpoint` for a run that is to go on, `peek` for a look at the header. No pickle, no
code, ever.
"""

from minigrad.files.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from minigrad.files.durable import write_durably
from minigrad.files.folder import CheckpointFolder
from minigrad.files.formats import load, save
from minigrad.files.layout import FileInfo, TensorInfo
from minigrad.files.reader import StateDict, peek, verify

__all__ = [
    "Checkpoint",
    "CheckpointFolder",
    "FileInfo",
    "StateDict",
    "TensorInfo",
    "load",
    "load_checkpoint",
    "peek",
    "save",
    "save_checkpoint",
    "verify",
    "write_durably",
]
