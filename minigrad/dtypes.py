"""The dtypes of tensors: names, promotion, and the two 16-bit floats that are stored but not
computed in.

A Tensor's dtype is its array's numpy dtype. bfloat16, which numpy lacks, is a numpy structured
dtype with one 16-bit field: it is a dtype of its own, every copy, view and gather works on it, and
arithmetic on it by accident raises instead of adding bit patterns.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from minigrad.errors import ConfigError, DTypeError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
DType: TypeAlias = np.dtype[Any]

bool_ = np.dtype(np.bool_)
uint8, int8 = np.dtype(np.uint8), np.dtype(np.int8)
uint16, int16 = np.dtype(np.uint16), np.dtype(np.int16)
uint32, int32 = np.dtype(np.uint32), np.dtype(np.int32)
uint64, int64 = np.dtype(np.uint64), np.dtype(np.int64)
float16, float32, float64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
bfloat16 = np.dtype([("bfloat16", np.uint16)])

_INTEGERS = (uint8, int8, uint16, int16, uint32, int32, uint64, int64)
_ALLOWED = (bool_, *_INTEGERS, float16, float32, float64, bfloat16)
_NAMED: dict[Any, DType] = {float: float32, "float": float32, int: int64, "int": int32}
_NAMED |= {"long": int64, "bfloat16": bfloat16}  # the rest is as numpy has it


def as_dtype(dtype: Any, call: str = "dtype") -> DType:
    """The dtype meant by a name ("float32", "bfloat16"), a Python type or a numpy dtype. Raises
    DTypeError for any other.
    """
    try:
        found = _NAMED.get(dtype)
        if found is None and dtype is not None:  # numpy takes None for float64
            found = np.dtype(dtype).newbyteorder("=")
    except (TypeError, ValueError, SyntaxError):
        found = None
    if found is None or found not in _ALLOWED:  # None == float64 is True, too
        names = ", ".join(map(name, _ALLOWED))
        raise DTypeError(call, f"dtype {dtype!r} is not supported", dtype, names, f"one of {names}")
    return found


def on_cpu(device: Any, call: str) -> None:
    """Raise ConfigError unless `device` is the CPU, the only one there is, or None."""
    if device is not None and str(device).split(":")[0] != "cpu":
        problem = f"no device {device!r}: minigrad runs on the CPU"
        raise ConfigError(call, problem, got=device, wanted="cpu", hint='"cpu" is the only device')


def asked_of_to(wanted: tuple[Any, ...], options: dict[str, Any], call: str) -> DType | None:
    """The dtype that `to(dtype)`, `to(device)` or `to(device, dtype)` asks for; None if it names
    but the device.

    Raises ConfigError for a device other than the CPU, DTypeError for an unknown dtype.
    """
    if unknown := options.keys() - {"dtype", "device"}:
        problem, allowed = f"no option {', '.join(sorted(unknown))}", ("dtype", "device")
        raise ConfigError(call, problem, got=tuple(unknown), wanted=allowed)
    if not wanted and not options:
        raise ConfigError(call, "nothing asked for", wanted="a dtype", hint='.to("float16")')
    on_cpu(options.get("device"), call)
    found = None if (dtype := options.get("dtype")) is None else as_dtype(dtype, call)
    for x in wanted:
        if str(x).split(":")[0] in ("cpu", "cuda", "mps", "xpu", "gpu", "meta"):
            on_cpu(x, call)
        else:
            found = as_dtype(x, call)
    return found


def name(dtype: DType) -> str:
    """The dtype's name: "float32", "int64", "bool", "bfloat16"."""
    return "bfloat16" if dtype == bfloat16 else dtype.name


def is_float(dtype: DType) -> bool:
    """True for the floating dtypes, bfloat16 among them: those that can carry gradients."""
    return dtype.kind == "f" or (dtype.kind == "V" and dtype == bfloat16)


def is_half(dtype: DType) -> bool:
    """True for the storage-only floats, float16 and bfloat16, whose arithmetic runs in float32."""
    return dtype.itemsize == 2 and (dtype == float16 or dtype == bfloat16)


def cast(array: Array, dtype: DType) -> Array:
    """`array` with the given dtype; the array itself if it has it already. To bfloat16, rounds to
    nearest, ties to even.
    """
    if array.dtype == dtype:
        return array
    if array.dtype == bfloat16:
        bits = array["bfloat16"].astype(np.uint32) << np.uint32(16)
        # numpy makes a scalar of a 0-d array
        return np.asarray(bits.view(np.float32).astype(dtype, copy=False))
    if dtype == bfloat16:
        return _round_to_bfloat16(array)
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def _round_to_bfloat16(array: Array) -> Array:
    wide = np.ascontiguousarray(array, dtype=np.float32)
    bits = wide.view(np.uint32)
    # Adding 0x7FFF plus the lowest kept bit carries exactly when the dropped half is above the tie,
    # or on it with an odd neighbour.
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    rounded = np.where(np.isnan(wide), (bits >> np.uint32(16)) | np.uint32(0x40), rounded)
    return rounded.astype(np.uint16).view(bfloat16).reshape(array.shape)


def as_elements(value: Any, dtype: DType) -> Any:
    """`value`, an array or a number, as it may be written into an array of `dtype`: bfloat16, which
    numpy lacks, takes its own bits only.
    """
    if isinstance(value, np.ndarray) or dtype == bfloat16:
        return cast(np.asarray(value), dtype)
    return value


def adding(dtype: DType) -> DType:
    """The dtype that numbers are added and multiplied up in: int64 for bools and integers but
    uint64, as in PyTorch; floats stay what they are.
    """
    return dtype if dtype.kind == "f" or dtype == uint64 else int64


def limits(dtype: DType) -> tuple[float, float]:
    """The least and the largest number of a dtype: infinities for floats, integers for integers, 0
    and 1 for bool.
    """
    if is_float(dtype):
        return -np.inf, np.inf
    return (False, True) if dtype == bool_ else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def computing(dtype: DType) -> DType:
    """The dtype that arithmetic on `dtype` runs in: float32 for the 16-bit floats, else itself."""
    return float32 if is_half(dtype) else dtype


def promote(*dtypes: DType) -> DType:
    """The common dtype of tensors in one op: floats win over integers, integers over bool; no width
    is gained by mixing kinds.

    PyTorch's rule, except that a tensor without axes counts like any other: what gives way to a
    tensor is a Python or numpy number.

    promote(int64, float32) = float32 (numpy says float64);  promote(float16, bfloat16) = float32.
    """
    floats = {d for d in dtypes if is_float(d)}
    if not floats:
        return np.result_type(*dtypes)
    if len(floats) == 1:
        return floats.pop()
    return np.result_type(*(computing(d) for d in floats))
