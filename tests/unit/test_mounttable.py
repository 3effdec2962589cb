"""mountinfo: every field, and what a path look-up sees of stacks."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driverctr.facts import mounttable
from driverctr.facts.mounttable import Mount
from tests.unit.fake_mounts import mountinfo_line

LINE = (
    r"36 35 98:0 /mnt1 /mnt\0402\011x\134y rw,noatime master:1 shared:7 propagate_from:2 - ext3 /dev/r\040t rw,errors"
)


def mount(number: int, parent: int, target: str, shared: int | None = None) -> Mount:
    """A mount of which only its place matters."""
    return Mount(number, parent, 5, "/", target, "rw", shared, None, False, "tmpfs", "t")


def test_every_field_is_read() -> None:
    found = mounttable.parse_line(LINE)
    assert found.target == "/mnt 2\tx\\y" and found.source == "/dev/r t" and found.root == "/mnt1"
    assert (found.id, found.parent, found.st_dev) == (36, 35, 98 << 8)
    assert (found.shared, found.master, found.unbindable, found.fstype) == (7, 1, False, "ext3")
    assert found.propagation == "shared and slave"


@pytest.mark.parametrize(
    ("optional", "words"),
    [("", "private"), ("shared:1 ", "shared"), ("master:2 ", "slave"), ("unbindable ", "unbindable")],
)
def test_propagation_is_named(optional: str, words: str) -> None:
    assert mounttable.parse_line(f"1 0 0:1 / / rw {optional}- tmpfs t rw").propagation == words


@given(st.text(st.characters(blacklist_characters=" \t\n\\", blacklist_categories=["Cs", "Cc", "Z"]), min_size=1))
def test_any_name_survives(name: str) -> None:
    before = mount(2, 1, f"/{name}")
    assert mounttable.parse_line(mountinfo_line(before)) == before


def test_a_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_bytes(b"1 0 0:1 / /\xff rw - tmpfs t rw\n")
    assert mounttable.read(tmp_path)[0].target == "/\udcff"


def test_layers_go_from_the_lowest_up_whatever_the_order_of_lines() -> None:
    table = [mount(9, 4, "/a"), mount(1, 0, "/"), mount(4, 7, "/a"), mount(7, 1, "/a")]
    assert [m.id for m in mounttable.layers(table, Path("/a"))] == [7, 4, 9]
    assert mounttable.layers(table, Path("/a/b")) == ()


def test_what_a_mount_hides_is_not_seen() -> None:
    table = [mount(1, 0, "/"), mount(2, 1, "/run/a"), mount(3, 1, "/run", shared=4)]
    found = mounttable.visible(table, Path("/run/a"))
    assert found is not None and found.id == 3
    assert mounttable.below(table, Path("/run")) == ()


def test_below_is_the_content_of_the_uppermost_layer() -> None:
    table = [
        *(mount(1, 0, "/"), mount(2, 1, "/d"), mount(3, 2, "/d/proc"), mount(4, 2, "/d")),
        *(mount(5, 4, "/d/proc"), mount(6, 5, "/d/proc/x"), mount(7, 1, "/dd")),
    ]
    assert [m.id for m in mounttable.below(table, Path("/d"))] == [5, 6]
    assert {m.id for m in mounttable.below(table, Path("/"))} == {5, 6, 7, 2, 3, 4}


def test_an_empty_table_has_nothing() -> None:
    assert mounttable.visible([], Path("/a")) is None
    assert mounttable.below([], Path("/a")) == ()


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from(["", "/run", "/run/nvidia", "/runner", "/a b"])), max_size=12
    )
)
def test_what_is_near_a_path_tells_of_it_what_the_whole_table_does(
    tmp_path_factory: pytest.TempPathFactory, placed: list[tuple[int, str]]
) -> None:
    table = [mount(1, 0, "/")]
    for number, (parent, below) in enumerate(placed, start=2):
        carrier = table[parent % len(table)]
        table.append(mount(number, carrier.id, carrier.target.rstrip("/") + below or "/"))
    file = tmp_path_factory.mktemp("table") / "mountinfo"
    file.write_text("".join(f"{mountinfo_line(one)}\n" for one in table))
    path = Path("/run/nvidia")
    whole, near = mounttable.read_file(file), mounttable.read_file(file, path)
    for look in (mounttable.visible, mounttable.layers, mounttable.below):
        assert look(near, path) == look(whole, path)
    assert mounttable.visible(near, Path("/run")) == mounttable.visible(whole, Path("/run"))
    assert len(near) <= len(whole) and (len(near) < len(whole) or "/runner" not in {one.target for one in whole})
