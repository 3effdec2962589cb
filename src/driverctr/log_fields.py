"""The table of what a log line in JSON has: docs/logs.md is made of it, and a test reads lines by it."""

from driverctr.records import frozen


@frozen
class LogField:
    """A field: its type in JSON, when a line has it, and what it means."""

    name: str
    kind: str
    when: str
    meaning: str


FIELDS = (
    LogField("time", "string", "always", "When, in UTC: RFC 3339 with microseconds."),
    LogField("level", "string", "always", "`debug`, `info`, `warning` or `error`."),
    LogField("message", "string", "always", "For people; its wording may change. The text format has the same."),
    LogField(
        "code",
        "string",
        "where a failure or a difference is told",
        "A code of the table of failures, the same as in the status and the termination message.",
    ),
    LogField(
        "step",
        "string",
        "at a step's start and end",
        "A step of the plan (`driverctr plan`), `undo` and such a step, or a part that takes its time: `headers`, "
        "`build`, `remote`, `push`.",
    ),
    LogField("event", "string", "with `step`", "`start`, `done` or `failed`."),
    LogField("seconds", "number", "with `event` `done` or `failed`", "How long the step took."),
    LogField("done", "number", "while modules are built, at most once a second", "Objects compiled so far."),
    LogField("total", "number", "with `done`, where the source tells", "Objects there are to compile."),
    LogField("rate", "number", "with `done`, from the second object on", "Objects compiled in a second."),
    LogField("left", "number", "with `rate` and `total`", "Seconds to the last object, at this rate."),
    LogField("attempt", "number", "where something that failed is tried again", "Which try it was, from 1."),
    LogField("next_try", "number", "with `attempt`", "When the next one comes, in seconds since the epoch."),
    LogField(
        "kernel",
        "string",
        "where modules are made for a kernel that has not run yet",
        "That kernel's release; the line is of the program that makes them, and its other fields are that program's.",
    ),
)
"""In the order of the page; no field is ever given another meaning."""
