"""The table of metrics: name, type, labels, help. families.py fills it, docs/metrics.md is made of it (page.py)."""

from enum import StrEnum

from driverctr.records import frozen


class Kind(StrEnum):
    """Prometheus' types (prometheus.io, "Metric types"); `info` is a gauge of value 1 whose labels tell."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"


@frozen
class Row:
    """One metric, by the name that a query has: counters end in _total, an info in _info (OpenMetrics 1.0)."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


METRICS = (
    Row("driverctr_phase", Kind.GAUGE, "1 for the phase the driver container is in, 0 for each other one.", ("phase",)),
    Row("driverctr_phase_since_timestamp_seconds", Kind.GAUGE, "When that phase began."),
    Row(
        "driverctr_ready",
        Kind.GAUGE,
        "1 if the driver serves: a start became ready, and the kernel confirms at this moment what was checked then.",
    ),
    Row("driverctr_degraded", Kind.GAUGE, "1 if the driver serves but something is not as wanted."),
    Row("driverctr_pending_reload", Kind.GAUGE, "1 if changed settings wait until nobody uses the driver."),
    Row("driverctr_rolled_back", Kind.GAUGE, "1 if the driver that served last serves in place of the one wanted."),
    Row(
        "driverctr_problems",
        Kind.GAUGE,
        "Things because of which a driver that was ready does not serve now, by code (docs/failures.md).",
        ("code",),
    ),
    Row("driverctr_last_check_timestamp_seconds", Kind.GAUGE, "When the waiting container last looked at the driver."),
    Row(
        "driverctr_gpu_answering",
        Kind.GAUGE,
        "1 if the GPU answered nvidia-smi when the start asked it (VERIFY_DEPTH=smi), 0 if not.",
        ("address",),
    ),
    Row(
        "driverctr_info",
        Kind.INFO,
        "Driver, kernel and where the modules came from, as wanted, or as they serve once they do.",
        ("driver_version", "module_type", "kernel_release", "modules_from"),
    ),
    Row("driverctr_start_timestamp_seconds", Kind.GAUGE, "When this process began its start."),
    Row(
        "driverctr_start_seconds",
        Kind.GAUGE,
        "How long the last way to ready took, with all attempts and the pauses between them, but not a wait for a GPU; "
        "absent until it is ready.",
    ),
    Row("driverctr_step_seconds", Kind.GAUGE, "How long a step of the present or last attempt took.", ("step",)),
    Row("driverctr_attempt", Kind.GAUGE, "Which attempt at the start this is, from 1 on."),
    Row("driverctr_next_try_timestamp_seconds", Kind.GAUGE, "When the next attempt begins; absent unless one waits."),
    Row(
        "driverctr_failure",
        Kind.GAUGE,
        "1 for the code of the failure that the status tells (docs/failures.md); absent where there is none.",
        ("code",),
    ),
    Row("driverctr_failures_total", Kind.COUNTER, "Failures of this process, attempts at a start too.", ("code",)),
    Row(
        "driverctr_store_lookups_total",
        Kind.COUNTER,
        "Attempts of this process that asked the store for their modules, by whether it had them.",
        ("result",),
    ),
    Row("driverctr_store_bytes", Kind.GAUGE, "Bytes of the entries in the module store; absent without a store."),
    Row("driverctr_store_entries", Kind.GAUGE, "Entries in the module store; absent without a store."),
    Row("driverctr_store_limit_bytes", Kind.GAUGE, "Bytes the module store may grow to (STORE_MAX_SIZE)."),
    Row("driverctr_daemon_restarts_total", Kind.COUNTER, "Times a daemon that ended was started again."),
    Row(
        "driverctr_holders",
        Kind.GAUGE,
        "Processes seen to hold a module while that blocks a start, a reload or a stop; absent where nothing is.",
        ("module",),
    ),
    Row(
        "driverctr_holder_references",
        Kind.GAUGE,
        "References to that module (its refcnt), of modules and of processes not seen too.",
        ("module",),
    ),
    Row(
        "driverctr_next_kernel_ready",
        Kind.GAUGE,
        "1 if a boot of this kernel, installed on the host, finds its modules in store or folder; absent if none is.",
        ("release",),
    ),
)
