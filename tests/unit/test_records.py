"""`records.frozen` makes what `dataclass(frozen=True)` makes."""

import dataclasses
from dataclasses import FrozenInstanceError, asdict, field, fields, replace
from typing import Any

import pytest

from driverctr.records import frozen, mutable


def annotate(decorator: Any) -> Any:
    """The same class, made by either."""

    @decorator
    class Part:
        """Some of each."""

        name: str
        size: int = 1
        tags: tuple[str, ...] = ()
        more: dict[str, int] = field(default_factory=dict)

        def __post_init__(self) -> None:
            if self.size < 0:
                raise ValueError(self.size)

        @property
        def twice(self) -> int:
            """Derived."""
            return 2 * self.size

        def __str__(self) -> str:
            return f"part {self.name}"

    return Part


OURS, THEIRS = annotate(frozen), annotate(dataclasses.dataclass(frozen=True))
WAYS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (("a",), {}),
    (("a", 2), {}),
    (("a", 2, ("x",), {"y": 1}), {}),
    (("a",), {"tags": ("x",), "size": 3}),
    ((), {"more": {}, "name": "a"}),
    ((), {}),
    (("a", 2, (), {}, 5), {}),
    (("a",), {"name": "b"}),
    (("a",), {"colour": "red"}),
    ((), {"size": 2}),
]


@pytest.mark.parametrize(("values", "named"), WAYS)
def test_is_made_and_refused_alike(values: Any, named: Any) -> None:
    try:
        theirs = THEIRS(*values, **named)
    except TypeError:
        with pytest.raises(TypeError, match="Part"):
            OURS(*values, **named)
        return
    ours = OURS(*values, **named)
    assert asdict(ours) == asdict(theirs)
    assert [one.name for one in fields(ours)] == [one.name for one in fields(theirs)]
    assert (repr(ours), str(ours), ours.twice) == (repr(theirs), str(theirs), theirs.twice)
    assert asdict(replace(ours, size=9)) == asdict(replace(theirs, size=9))


def test_what_the_class_checks_is_checked() -> None:
    with pytest.raises(ValueError, match="-1"):
        OURS("a", -1)


def test_equality_and_hash_are_those_of_the_values() -> None:
    assert OURS("a", 2) == OURS("a", size=2) != OURS("a", 3)
    assert OURS("a") != THEIRS("a")

    @frozen
    class Pair:
        """Hashable throughout."""

        one: str
        two: int = 0

    assert {Pair("a"), Pair("a", 0), Pair("b")} == {Pair("a"), Pair("b")}
    with pytest.raises(TypeError, match="unhashable"):
        hash(OURS("a"))


def test_a_default_made_for_each_is_not_shared() -> None:
    assert OURS("a").more is not OURS("a").more


@pytest.mark.parametrize("name", ["size", "colour"])
def test_nothing_can_be_assigned_or_deleted(name: str) -> None:
    part = OURS("a")
    with pytest.raises(FrozenInstanceError, match=name):
        setattr(part, name, 5)
    with pytest.raises(FrozenInstanceError, match=name):
        delattr(part, name)
    assert part == OURS("a")


def test_a_mutable_one_is_itself_and_may_begin_unset() -> None:
    @mutable
    class Life:
        """With a default for each, and a field that is set later."""

        name: str
        done: list[str] = field(default_factory=list)
        facts: str = field(init=False)

        def __post_init__(self) -> None:
            self.name = self.name.upper()

    one, other = Life("a"), Life("a")
    one.facts = "seen"
    one.done.append("x")
    assert (one.name, one.facts, other.done) == ("A", "seen", [])
    assert one == one and one != other and not hasattr(other, "facts")
    with pytest.raises(TypeError, match="Life lacks name"):
        Life()  # type: ignore[call-arg]  # on purpose
