"""`driverctr status` for people: one screen, a fact a line, aligned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from driverctr import daemons, truth
from driverctr.conceal import conceal
from driverctr.log import utc
from driverctr.status import Phase
from driverctr.terminal import BOLD, GREEN, RED, YELLOW, Paint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    View = Mapping[str, Any]
    Line = tuple[str, str, str]

WIDTH = 14
"""Columns of the names; the longest is `modules from:`."""

COLOURS = {
    Phase.READY.value: GREEN,
    Phase.NOT_READY.value: RED,
    Phase.FAILED.value: RED,
    Phase.STUCK.value: RED,
    truth.CRASHED: RED,
    Phase.RETRYING.value: YELLOW,
    Phase.WAITING_FOR_GPU.value: YELLOW,
}
SERVES = (Phase.READY.value, Phase.NOT_READY.value)
"""Phases in which daemons should run, and GPUs are looked after."""

UNSEEN = "the driver container's process is not visible from here: look with --pid=host (hostPID), or inside it"
LEAST_WIDTH = 20
"""Columns for what is told; in fewer it would be a word a line."""

SLOW = 1.5
"""A step that takes so many times its median, and a second more, is pointed at."""


def render(view: View, paint: Paint, width: int | None = None) -> str:
    """The screen; what is longer than so many columns goes on below its beginning."""
    facts = [*_life(view), *_driver(view), *_hardware(view), *_published(view), *_ahead(view), *_trouble(view)]
    room = (width or 0) - WIDTH
    lines: list[str] = []
    for name, text, colour in facts:
        first, *others = fold(_in_a_line(text), room if room >= LEAST_WIDTH else None)
        lines.append(f"{paint(f'{name}:', BOLD)}{'':{WIDTH - len(name) - 1}}{paint(first, colour)}\n")
        lines += [f"{'':{WIDTH}}{paint(line, colour)}\n" for line in others]
    return "".join(lines)


def fold(text: str, room: int | None) -> list[str]:
    """A text in lines of so many columns, a longer word in one of its own; None: in one line. textwrap takes long."""
    if room is None or len(text) <= room:
        return [text]
    lines: list[str] = []
    for word in conceal(text).split(" "):  # before: what tells a secret may come to stand in another line
        if lines and len(lines[-1]) + 1 + len(word) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _in_a_line(text: str) -> str:
    """A fact as one line: other programs' words may have more, or would steer the terminal."""
    if text.isprintable():
        return text
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def describe_phase(view: View) -> str:
    """Phase, step, attempt and times in a few words."""
    parts = [view["phase"]]
    if view["step"] and view["phase"] != Phase.READY:
        parts.append(f"at step {view['step']}")
    if view["attempt"] > 1 or view["next_try"]:
        parts.append(f"attempt {view['attempt']}")
    if view["since"]:
        parts.append(f"since {utc(view['since'])} ({span(view['time'] - view['since'])})")
    if view["next_try"]:
        parts.append(f"next try in {span(view['next_try'] - view['time'])}")
    return ", ".join(parts)


def span(seconds: float) -> str:
    """A time for people: `42 s`, `3 min`, `5 h`, `2 days`."""
    seconds = max(0.0, seconds)
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def _life(view: View) -> Iterator[Line]:
    is_so = view["ready"] or view["phase"] != Phase.READY
    yield "phase", describe_phase(view), COLOURS.get(view["phase"], "") if is_so else RED
    yield "ready", "yes" if view["ready"] else "no", GREEN if view["ready"] else RED
    if view["process"]["alive"] is None:
        yield "process", UNSEEN, YELLOW
    elif view["phase"] == truth.CRASHED:
        left = view["start"]
        since = f", since {utc(left['since'])}"
        yield "process", f"pid {left['pid']} is dead, and left phase {left['phase']}{since}", RED


def _driver(view: View) -> Iterator[Line]:
    wanted, loaded, start = view["driver"]["wanted"], view["driver"]["loaded"], view["start"]
    if wanted["version"]:
        made_for = f" for {wanted['kernel_release']}" if wanted["kernel_release"] else ""
        yield "driver", f"{wanted['version']} ({wanted['module_type']}){made_for}", ""
    if loaded:
        kind = f" ({loaded['module_type']})" if loaded["module_type"] else ""
        build = f", build {loaded['build_id'][:12]}" if loaded["build_id"] else ""
        verdict = {True: ", the one checked", False: ", another one", None: ""}[loaded["ours"]]
        yield "loaded", f"{loaded['version']}{kind}{build}{verdict}", RED if loaded["ours"] is False else ""
    elif start or view["gpus"]:
        yield "loaded", "nothing", ""
    if start:
        yield "modules from", wanted["modules_from"] or "-", ""
    if text := _store(view["store"]):
        yield "store", text, ""
    if any(view["kernel"].values()):
        yield "running", " ".join(filter(None, view["kernel"].values())), ""


def _store(store: View) -> str:
    parts = []
    if store["result"]:
        parts.append(f"{store['result']}, {store['reason']}" if store["reason"] else store["result"])
    elif store["reason"]:
        parts.append(store["reason"])
    if store["folder"]:
        count = store["entries"] or 0
        size = f", {store['bytes'] / 1e6:.0f} MB" if store["bytes"] else ""
        parts.append(f"{store['folder']}: {count} {'entry' if count == 1 else 'entries'}{size}")
    return "; ".join(parts)


def _hardware(view: View) -> Iterator[Line]:
    for name, module in view["modules"].items():
        by = f", held by {' '.join(module['holders'])}" if module["holders"] else ""
        yield "module", f"{name} {module['version']} {module['state']}, refcnt {module['refcnt']}{by}", ""
    if view["stuck"]:
        yield "stuck", view["stuck"], RED
    for gpu in view["gpus"]:
        name = f"{gpu['name']} " if gpu["name"] else ""
        answered = ", answers" if view["phase"] in SERVES else ""  # what nobody looks after may be so no more
        answer = {True: answered, False: ", does not answer", None: ""}[gpu["answers"]]
        text = f"{gpu['address']} {name}[{gpu['id']}] bound to {gpu['driver'] or 'nothing'}{answer}"
        yield "gpu", text, RED if gpu["answers"] is False else ""
    if not view["gpus"]:
        yield "gpu", "none on the PCI bus", YELLOW


def _published(view: View) -> Iterator[Line]:
    for name, pid in view["daemons"].items():
        yield "daemon", f"{name} (pid {pid})", ""
    for daemon in daemons.DAEMONS:
        if daemon.name not in view["daemons"] and (view["start"] or view["driver"]["loaded"]):
            yield "daemon", f"{daemon.name} does not run", YELLOW if view["phase"] in SERVES else ""
    for use in view["in_use"]:
        yield "in use", use["sentence"], YELLOW
        if view["pending"] or not view["ready"]:
            yield "to free it", use["remedy"], ""
    root = view["driver_root"]
    if root["layers"] is None:
        yield "driver root", "not known: the mount table cannot be read", YELLOW
    else:
        others = ", not ours" if root["layers"] and not root["ours"] else ""
        yield "driver root", f"{root['layers']} mounted{others}" if root["layers"] else "not mounted", ""
    for name, text in view["markers"].items():
        yield "marker", f"{name}: {' '.join(text.split())}", ""


def _ahead(view: View) -> Iterator[Line]:
    for row in view["kernels"]:
        from driverctr import nextkernels

        yield "kernel", nextkernels.format_row(row), "" if row["ready"] else YELLOW
    if view["last_check"]:
        yield "last check", f"{span(view['time'] - view['last_check'])} ago", ""
    if view["steps"]:
        yield "steps", ", ".join(_step(step) for step in view["steps"]), ""


def _step(step: View) -> str:
    told = f"{step['name']} {step['seconds']:.2f} s"
    usual = step["median"]
    if usual is None:
        return told
    slow = " !" if step["seconds"] > SLOW * usual + 1 else ""
    return f"{told} (median {usual:.2f}){slow}"


def _trouble(view: View) -> Iterator[Line]:
    start = view["start"] or {}
    for refused in view["refused_settings"]:
        yield "setting", f"{refused['code']}: {refused['message']}", YELLOW
        yield "remedy", refused["remedy"], ""
    for problem in view["problems"]:
        yield "problem", f"{problem['code']}: {problem['message']}", RED
    for words in dict.fromkeys(problem.get("kernel_log", "") for problem in start.get("problems", ())):
        if words:
            yield "kernel log", words, ""
    for reason in view["degraded"]:
        yield "degraded", reason, YELLOW
    for name in ("pending", "rollback"):
        if view[name] and view[name] not in view["degraded"]:
            yield name, view[name], YELLOW
    for state in start.get("lost", ()):
        yield "lost", state, YELLOW
    if start.get("kept"):
        yield "kept", ", ".join(start["kept"]), ""
    if view["failure"]:
        yield from _failure("failure", view["failure"], RED)
    elif view["last_failure"]:
        yield from _failure("last failure", view["last_failure"], "")


def _failure(name: str, failure: View, colour: str) -> Iterator[Line]:
    at = f" ({utc(failure['at'])})" if failure.get("at") else ""
    yield name, f"{failure['code']}: {failure['message']}{at}", colour
    yield "remedy", failure["remedy"] or "-", ""
