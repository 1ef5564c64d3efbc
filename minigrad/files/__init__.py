"""Files of weights and checkpoints: the MGRD 1 format, and the formats of others.

Knows names and arrays; no Tensor, no Module. `save` and `load` are for weights, `peek` for a look at the header. No
pickle, no code, ever.
"""

from minigrad.files.durable import write_durably
from minigrad.files.layout import FileInfo, TensorInfo
from minigrad.files.reader import StateDict, load, peek
from minigrad.files.writer import save

__all__ = ["FileInfo", "StateDict", "TensorInfo", "load", "peek", "save", "write_durably"]
