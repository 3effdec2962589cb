"""docs/status.md: what `driverctr status` prints, and what each property of its document means, from its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = REPOSITORY / "src/driverctr/status.schema.json"
# Of a run in a virtual machine, as the test of the scenario `status` leaves it.
EXAMPLE = Path(__file__).with_name("status_example.txt")

HEAD = """# driverctr status

Generated from `src/driverctr/status.schema.json` by `./dev docs`.

    driverctr status [--json] [--wait ready [--timeout S]]

prints what is so: what the last start told, beside what the kernel says at this moment. It changes nothing, takes no
lock, and exits with 0 if the driver is ready, else with 30 (`not-ready`). Colours are for terminals; `NO_COLOR` has
none of them.

| from | how |
|---|---|
| beside the driver container | `docker exec CONTAINER driverctr status`, `kubectl exec POD -- driverctr status` |
| the host, through the mounted driver root | `chroot /run/nvidia/driver driverctr status` |
| after a crash | either of them: the phase is `crashed` where the process is dead that wrote the document |

From the host, what lies in the container alone (the store) is found through its process, and its settings are taken
from there; after a crash the store is not seen. A container that sees neither the host's processes (`--pid=host`) nor
its own start cannot tell whether that lives: `process.alive` is null, and it is not ready.

`--wait ready` prints it once the driver is ready, also where no start has begun yet. Nothing is looked at now and then:
the kernel tells when the document, a marker or the process changes. After `--timeout` seconds (300) it prints what is
so, says in one line on stderr why it is not ready (phase, step, attempt, failure), and exits with 30.

## For people

```text
{example}```

A step that took half as long again as its median, and a second more, is marked with `!`. The median is of earlier
starts that had their modules from the same place, as far as the store remembers them (`driverctr history`).

## For programs

`--json` prints one object, version {version} (`schema`). Every property is always there. The version is raised where a
property goes or means something else, not where one comes: readers should pass over what they do not know. `start` is
`/run/nvidia/driverctr/status.json` as it was written, which has a version of its own ({inner}).

"""


def markdown() -> str:
    """The page."""
    schema = json.loads(SCHEMA.read_text())
    properties = schema["properties"]
    head = HEAD.format(
        example=EXAMPLE.read_text(),
        version=properties["schema"]["const"],
        inner=properties["start"]["properties"]["schema"]["const"],
    )
    rows = "".join(f"| `{name}` | {kind} | {text} |\n" for name, kind, text in _rows(schema, ""))
    return f"{head}| property | type | what it is |\n|---|---|---|\n{rows}"


def _rows(schema: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Name, type and description of each property, with those inside it below it."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{prefix}{name}", _kind(inner), _text(inner)
        yield from _inside(inner, f"{prefix}{name}")


def _inside(schema: dict[str, Any], name: str) -> Iterator[tuple[str, str, str]]:
    yield from _rows(schema, f"{name}.")
    for mark, inner in ((f"{name}[]", schema.get("items")), (f"{name}.*", schema.get("additionalProperties"))):
        if isinstance(inner, dict) and "properties" in inner:
            yield mark, _kind(inner), _text(inner)
            yield from _inside(inner, mark)


def _kind(schema: dict[str, Any]) -> str:
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return " or ".join(kinds)


def _text(schema: dict[str, Any]) -> str:
    words = ", ".join(f"`{word}`" if word else "empty" for word in schema.get("enum", ()))
    return str(schema["description"]) + (f" One of {words}." if words else "")
