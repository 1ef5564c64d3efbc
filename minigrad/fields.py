"""Classes whose annotated attributes are the arguments of their constructors, as a dataclass has
them, for type checkers too.

    class StepLR(LRScheduler):          # StepLR(optimizer, step_size, gamma=0.1)
        step_size: Count
        gamma: Rate = 0.1

The annotation `Annotated[int, check]` of an argument has its check, a function of call, name and
value that returns the value to keep. With kw_only=True, or after `_: KW_ONLY`, they are keywords.
"""

from __future__ import annotations

import functools
from inspect import Parameter, get_annotations
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # in typing from Python 3.11

    def dataclass_transform(**_):
        return lambda cls: cls


@functools.cache
def _checks_of(cls: type) -> dict[str, tuple[Any, ...]]:
    """The checks of a class's arguments, by name."""
    hints = get_type_hints(cls, include_extras=True).items()
    return {name: hint.__metadata__ for name, hint in hints if hasattr(hint, "__metadata__")}


@dataclass_transform(eq_default=False)
class Fields:
    """The base of these classes. A class with an `__init__` of its own keeps it."""

    _fields: ClassVar[dict[str, Parameter]] = {}
    _made_by: ClassVar[Any]  # the class whose fields the constructor takes

    def __init_subclass__(cls, kw_only: bool = False, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = dict[str, Parameter]()
        how = Parameter.KEYWORD_ONLY if kw_only else Parameter.POSITIONAL_OR_KEYWORD
        for name, kind in get_annotations(cls).items():
            if "KW_ONLY" in str(kind):
                how = Parameter.KEYWORD_ONLY
                del cls.__annotations__[name]
            elif "ClassVar" not in str(kind):
                default = vars(cls).get(name, Parameter.empty)
                own[name] = Parameter(name, how, default=default, annotation=kind)
        cls._fields = {**cls._fields, **own}
        made: Any = cls
        if "__init__" not in vars(cls) and (own or made.__init__ is cls._made_by.__init__):
            cls._made_by, made.__init__ = cls, _constructor(cls)

    def _take(self, arguments: dict[str, Any]) -> None:
        """Keep the arguments of the constructor as attributes."""
        for name, value in arguments.items():
            setattr(self, name, self._checked(name, value))

    def _checked(self, name: str, value: Any) -> Any:
        """The value of an argument to keep. Raises what its check raises."""
        for check in _checks_of(self._made_by).get(name, ()):
            value = check(type(self).__name__, name, value)
        return value


Fields._made_by = Fields


def _constructor(cls: type[Fields]) -> Any:
    """An `__init__` of the fields, made from its text so that it is a function like any other."""
    given = sorted(cls._fields.values(), key=lambda field: field.kind)
    texts = ["self"]
    for f in given:
        if f.kind is f.KEYWORD_ONLY and "*" not in texts:
            texts.append("*")
        texts.append(f.name if f.default is f.empty else f"{f.name}=fields[{f.name!r}].default")
    taken = ", ".join(f"{f.name}={f.name}" for f in given)
    names: dict[str, Any] = {"fields": cls._fields, "__name__": cls.__module__}
    exec(f"def __init__({', '.join(texts)}): self._take(dict({taken}))", names)
    made = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__annotations__ = {f.name: f.annotation for f in given} | {"return": None}
    return made
