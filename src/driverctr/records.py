"""Dataclasses that cost little to define: every start pays for the definition of a hundred.

`dataclass` compiles up to six methods for each class, which was two thirds of what our own imports took, and looks long
at each field (Python 3.11); these share their methods. `fields`, `replace` and `asdict` of dataclasses take them, and
not before one of them does is dataclasses imported. `field_names`, `replace` and `asdict` of this module do without:
that import, with what it brings along, takes as long as a bare interpreter.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import dataclasses
    from collections.abc import Callable
    from dataclasses import field as their_field
    from typing import Any, TypeVar, dataclass_transform

    Class = TypeVar("Class", bound=type)
    Record = TypeVar("Record")
else:
    # For type checkers only: to say it takes the import of both modules.
    their_field = None

    def dataclass_transform(**told):
        return lambda function: function


class _Missing:
    """Stands for no default."""


MISSING = _Missing()


class Slot:
    """What a field begins with, if it is not given; `init` tells whether it must be."""

    __slots__ = ("default", "default_factory", "init")

    def __init__(self, default: Any = MISSING, default_factory: Any = MISSING, init: bool = True) -> None:
        """As dataclasses.field takes them."""
        self.default, self.default_factory, self.init = default, default_factory, init


def field(*, default: Any = MISSING, default_factory: Callable[[], Any] | _Missing = MISSING, init: bool = True) -> Any:
    """What dataclasses.field makes, for records alone; they take that of dataclasses too."""
    return Slot(default, default_factory, init)


@dataclass_transform(frozen_default=True, field_specifiers=(field, their_field))
def frozen(made: Class) -> Class:
    """Make a class what `dataclass(frozen=True)` makes it."""
    _complete(made, (__init__, __repr__, __eq__, __hash__, __setattr__, __delattr__))
    return made


@dataclass_transform(eq_default=False, field_specifiers=(field, their_field))
def mutable(made: Class) -> Class:
    """Make a class what `dataclass(eq=False, repr=False)` makes it; fields that begin unset (init=False) come last."""
    _complete(made, (__init__,))
    return made


def field_names(record: Any) -> tuple[str, ...]:
    """The names of the fields of a record or of its class, in their order."""
    return tuple(record.__record_slots__)


def replace(record: Record, /, **changes: Any) -> Record:
    """The same record with other values; raises TypeError for what is no field of it."""
    return type(record)(**{**dict(_pairs(record)), **changes})


def asdict(record: Any) -> dict[str, Any]:
    """A record as a dictionary, and all records in it, in lists, tuples and dictionaries too."""
    return {name: _plain(value) for name, value in _pairs(record)}


def _plain(value: Any) -> Any:
    if hasattr(value, "__record_slots__"):
        return asdict(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, dict) else value


def _pairs(record: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(record, name)) for name in record.__record_slots__]


def _complete(made: Any, methods: tuple[Any, ...]) -> None:
    slots: dict[str, Slot] = {}
    for base in made.__mro__[:0:-1]:
        slots.update(vars(base).get("__record_slots__", {}))
    for name in vars(made).get("__annotations__", {}):
        slots[name] = _make_slot(made, name)
    made.__record_slots__ = slots
    made.__dataclass_fields__, made.__dataclass_params__ = _FIELDS, _PARAMETERS
    for method in methods:
        if method.__name__ not in vars(made):
            setattr(made, method.__name__, method)


def _make_slot(made: Any, name: str) -> Slot:
    default = vars(made).get(name, MISSING)
    if isinstance(default, Slot):
        slot = default
    elif type(default).__name__ == "Field" and type(default).__module__ == "dataclasses":
        slot = _slot_of(default)
    else:
        return Slot(default)
    if slot.default is MISSING:
        delattr(made, name)
    else:
        setattr(made, name, slot.default)
    return slot


def _slot_of(given: dataclasses.Field[Any]) -> Slot:
    import dataclasses

    default, factory = (
        MISSING if one is dataclasses.MISSING else one for one in (given.default, given.default_factory)
    )
    return Slot(default, factory, given.init)


class _OfDataclasses:
    """Made when dataclasses asks for it, as what it looks for in a class; kept for each class."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: Any) -> Any:
        import dataclasses

        kinds: dict[str, Any] = {}
        for base in owner.__mro__[::-1]:
            kinds |= vars(base).get("__annotations__", {})
        words = [
            (
                name,
                kinds[name],
                dataclasses.field(
                    default=dataclasses.MISSING if slot.default is MISSING else slot.default,
                    default_factory=dataclasses.MISSING if slot.default_factory is MISSING else slot.default_factory,
                    init=slot.init,
                ),
            )
            for name, slot in owner.__record_slots__.items()
        ]
        like = dataclasses.make_dataclass(owner.__name__, words, init=False, repr=False, eq=False)
        owner.__dataclass_fields__ = vars(like)["__dataclass_fields__"]
        owner.__dataclass_params__ = vars(like)["__dataclass_params__"]
        return getattr(owner, self._name)


_FIELDS, _PARAMETERS = _OfDataclasses("__dataclass_fields__"), _OfDataclasses("__dataclass_params__")


def __init__(self: Any, *values: Any, **named: Any) -> None:
    fields: dict[str, Slot] = self.__record_slots__
    given = dict(zip(fields, values, strict=False))
    given.update(named)
    if len(given) < len(values) + len(named):
        raise TypeError(f"{type(self).__name__} takes {', '.join(fields)}, each once")
    if given.keys() != fields.keys():
        _fill(type(self).__name__, given, fields)
    self.__dict__.update(given)
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _fill(owner: str, given: dict[str, Any], fields: dict[str, Slot]) -> None:
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
    pairs = (f"{name}={getattr(self, name)!r}" for name in self.__record_slots__)
    return f"{type(self).__qualname__}({', '.join(pairs)})"


def __eq__(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def __hash__(self: Any) -> int:
    return hash(_values(self))


def __setattr__(self: Any, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to {type(self).__name__}.{name}")


def __delattr__(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete {type(self).__name__}.{name}")


def _values(one: Any) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in one.__record_slots__)
