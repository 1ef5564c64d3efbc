"""The compiler: an annex that listens at the Tensor's door for one whole step and replays it, as
one piece of C where there is a compiler.

    jit         the decorator, and when a call is recorded or replayed
    record      one call, written down                 compare   two recordings -> Program
    plan        a program ready to run                 checks    a program against the eager call
    program     the typed straight line                passes    Program -> Program
    replay      numpy                                  layout, select, schedule, emit, compiled    C
    native      compiler, flags, cache

The C of ops is in c/, with a room of the same name for each file: elementwise, rows, products,
gathers, sums, attention, updates, sampling. `signatures` reads what the files say of themselves;
`lower` is what the rooms share.

It may import floors 0-4 only; the core never imports it.
"""

from minigrad.compiler.environment import environment as environment
from minigrad.compiler.export import export as export
from minigrad.compiler.jit import Step as Step, jit as jit
from minigrad.compiler.native import NativeError as NativeError
