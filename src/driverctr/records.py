"""Dataclasses that cost little to define: every start pays for the definition of a hundred.

`dataclass` compiles up to six methods for each class, which was two thirds of what our own imports took, and looks long
at each field (Python 3.11); these share their methods. `fields`, `replace` and `asdict` of dataclasses take them.
"""

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field
from typing import Any, TypeVar, dataclass_transform

Class = TypeVar("Class", bound=type)


@dataclass(init=False, repr=False, eq=False)
class _Pattern:
    """Of which the rest is taken; without these words dataclasses would ask inspect for some."""

    of: Any


_PARAMETERS = vars(_Pattern)["__dataclass_params__"]
_KIND = vars(_Pattern)["__dataclass_fields__"]["of"]._field_type
"""What tells a field from other annotated names, as dataclasses wants to find it."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(made: Class) -> Class:
    """Make a class what `dataclass(frozen=True)` makes it."""
    _complete(made, (__init__, __repr__, __eq__, __hash__, __setattr__, __delattr__))
    return made


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def mutable(made: Class) -> Class:
    """Make a class what `dataclass(eq=False, repr=False)` makes it; fields that begin unset (init=False) come last."""
    _complete(made, (__init__,))
    return made


def _complete(made: Any, methods: tuple[Any, ...]) -> None:
    fields: dict[str, Field[Any]] = {}
    for base in made.__mro__[:0:-1]:
        fields.update(vars(base).get("__dataclass_fields__", {}))
    for name, kind in vars(made).get("__annotations__", {}).items():
        fields[name] = _make_field(made, name, kind)
    made.__dataclass_fields__, made.__dataclass_params__ = fields, _PARAMETERS
    for method in methods:
        if method.__name__ not in vars(made):
            setattr(made, method.__name__, method)


def _make_field(made: Any, name: str, kind: Any) -> Field[Any]:
    default = vars(made).get(name, MISSING)
    one: Any = default if isinstance(default, Field) else field(default=default)
    one.name, one.type, one._field_type = name, kind, _KIND
    if one is default:
        if one.default is MISSING:
            delattr(made, name)
        else:
            setattr(made, name, one.default)
    return one  # type: ignore[no-any-return]  # dataclasses knows more of a field than its type tells


def __init__(self: Any, *values: Any, **named: Any) -> None:
    fields: dict[str, Field[Any]] = self.__dataclass_fields__
    given = dict(zip(fields, values, strict=False))
    given.update(named)
    if len(given) < len(values) + len(named):
        raise TypeError(f"{type(self).__name__} takes {', '.join(fields)}, each once")
    if given.keys() != fields.keys():
        _fill(type(self).__name__, given, fields)
    self.__dict__.update(given)
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _fill(owner: str, given: dict[str, Any], fields: dict[str, Field[Any]]) -> None:
    for name, wanted in fields.items():
        if name not in given:
            if wanted.default is not MISSING:
                given[name] = wanted.default
            elif wanted.default_factory is not MISSING:
                given[name] = wanted.default_factory()
            elif wanted.init:
                raise TypeError(f"{owner} lacks {name}")
    if unknown := given.keys() - fields.keys():
        raise TypeError(f"{owner} has no {', '.join(unknown)}")


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
