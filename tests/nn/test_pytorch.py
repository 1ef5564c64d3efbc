"""Every module that PyTorch has, too, against PyTorch's, where it is installed: its weights load by
key, outputs and gradients agree, and arguments have the same names, places and defaults.
"""

import inspect

import numpy as np
import pytest

from minigrad import Tensor, nn
from tests.nn.rows import MODULES
from tests.nn.test_every_module import outputs

torch = pytest.importorskip("torch")
OURS_ALONE = {"MLP", "SwiGLU", "GeGLU", "TransformerBlock", "MultiHeadAttention"}
SHARED = [row for row in MODULES if row.name not in OURS_ALONE]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("row", SHARED, ids=lambda row: row.name)
def test_weights_load_by_key_and_give_pytorchs_numbers(row, training):
    if training and (row.options.get("dropout") or row.name.startswith("Dropout")):
        pytest.skip("other random numbers")
    theirs = made_by_pytorch(row).double().train(training)
    ours = row.made().to("float64").train(training)
    with torch.no_grad():
        for p in theirs.parameters():
            if "padding_idx" not in row.options:
                p += torch.rand(p.shape)
    ours.load_state_dict({name: t.numpy() for name, t in theirs.state_dict().items()})
    arrays = row.arrays()
    for _ in range(2):
        xs = [Tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]
        ts = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]
        got = outputs(ours(*xs))
        wanted = flat(theirs(*[t + 0 for t in ts]))  # theirs may write over its input
        assert len(got) == len(wanted)
        for y, z in zip(got, wanted, strict=True):
            assert np.allclose(y.data, z.detach().numpy(), rtol=1e-9, atol=1e-11)
        ours.zero_grad()
        theirs.zero_grad()
        if not any(y.requires_grad for y in got):
            return
        sum((y * y * (i + 1)).sum() for i, y in enumerate(got)).backward()
        sum((z * z * (i + 1)).sum() for i, z in enumerate(wanted)).backward()
        for x, t in zip(xs, ts, strict=True):
            if t.requires_grad:
                assert np.allclose(x.grad.data, t.grad.numpy(), rtol=1e-8, atol=1e-10)
        theirs_by_name = dict(theirs.named_parameters())
        for name, p in ours.named_parameters():
            wanted_grad = theirs_by_name[name].grad.numpy()
            assert np.allclose(p.grad.data, wanted_grad, rtol=1e-8, atol=1e-10), name
    for name, t in theirs.state_dict().items():
        assert np.allclose(ours.state_dict()[name].data, t.numpy(), rtol=1e-10)


def made_by_pytorch(row):
    """The same module of PyTorch's; arrays among its arguments become tensors."""
    args = [torch.tensor(x) if isinstance(x, np.ndarray) else x for x in row.args]
    options = {
        key: torch.tensor(x) if isinstance(x, np.ndarray) else x for key, x in row.options.items()
    }
    return getattr(torch.nn, row.name)(*args, **options)


def flat(result):
    return [result] if isinstance(result, torch.Tensor) else [t for p in result for t in flat(p)]


OTHER_DEFAULTS = {("RMSNorm", "eps"), ("Softmax", "dim"), ("LogSoftmax", "dim")}  # on purpose


@pytest.mark.parametrize("name", sorted({row.name for row in SHARED} - {"Identity"}))
def test_arguments_have_pytorchs_names_places_and_defaults(name):
    theirs = parameters(getattr(torch.nn, name))
    ours = parameters(getattr(nn, name))
    assert [key for key in ours if key not in theirs] in ([], ["axis"])
    for key, p in ours.items():
        if key == "axis":
            continue
        if (name, key) not in OTHER_DEFAULTS:
            assert p.default == theirs[key].default or p.default is p.empty
        if p.kind is p.POSITIONAL_OR_KEYWORD:
            assert list(ours).index(key) == list(theirs).index(key), key


def parameters(cls):
    """The arguments of a class, those of its base where it passes them on."""
    hidden = ("self", "device", "dtype", "mode")
    for base in cls.__mro__:
        if "__init__" in vars(base) and base is not object:
            found = inspect.signature(base.__init__).parameters
            if "args" not in found:
                return {key: p for key, p in found.items() if key not in hidden}
    return {}
