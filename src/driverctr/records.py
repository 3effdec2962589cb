"""Frozen dataclasses that cost little to define: every start pays for the definition of some seventy.

`dataclass(frozen=True)` compiles six methods for each class, two thirds of what our own imports took (Python 3.11);
these share theirs.
"""

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field
from typing import Any, TypeVar, dataclass_transform

Class = TypeVar("Class", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(made: Class) -> Class:
    """Make a class what `dataclass(frozen=True)` makes it; `fields`, `replace` and `asdict` of dataclasses take it."""
    dataclass(init=False, repr=False, eq=False)(made)
    for method in (__init__, __repr__, __eq__, __hash__, __setattr__, __delattr__):
        if method.__name__ not in vars(made):
            setattr(made, method.__name__, method)
    return made


def __init__(self: Any, *values: Any, **named: Any) -> None:
    fields: dict[str, Field[Any]] = self.__dataclass_fields__
    given = {**dict(zip(fields, values, strict=False)), **named}
    if len(given) < len(values) + len(named):
        raise TypeError(f"{type(self).__name__} takes {', '.join(fields)}, each once")
    for name, wanted in fields.items():
        if name not in given:
            if wanted.default is not MISSING:
                given[name] = wanted.default
            elif wanted.default_factory is not MISSING:
                given[name] = wanted.default_factory()
            else:
                raise TypeError(f"{type(self).__name__} lacks {name}")
    if len(given) > len(fields):
        raise TypeError(f"{type(self).__name__} has no {', '.join(given.keys() - fields.keys())}")
    self.__dict__.update(given)
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def __repr__(self: Any) -> str:
    pairs = (f"{name}={getattr(self, name)!r}" for name in self.__dataclass_fields__)
    return f"{type(self).__qualname__}({', '.join(pairs)})"


def __eq__(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def __hash__(self: Any) -> int:
    return hash(_values(self))


def __setattr__(self: Any, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to {type(self).__name__}.{name}")


def __delattr__(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete {type(self).__name__}.{name}")


def _values(one: Any) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in one.__dataclass_fields__)
