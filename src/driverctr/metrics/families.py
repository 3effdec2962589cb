"""Status document, kernel's word, extras → metric families, by the table: one pure function."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from driverctr.metrics.table import METRICS, Kind, Row
from driverctr.records import field, frozen
from driverctr.status import Phase

Samples = Mapping[tuple[str, ...], float | None]
"""Values by those of the labels; one that is None is not known, and left out."""

RESULTS = ("hit", "miss")
"""Of a look into the store (status.Status.store)."""


@frozen
class Truth:
    """What the kernel says at this moment: whether the driver serves, and how many things are wrong, by code."""

    ready: bool = False
    degraded: bool = False
    problems: Mapping[str, int] = field(default_factory=dict)


@frozen
class Counts:
    """What this process has counted: looks into the store by result, failures by code; seconds of the way to ready."""

    lookups: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    start_seconds: float | None = None


@frozen
class Extras:
    """What is looked up now and then: bytes and entries of the store (None: no store), readiness of other kernels."""

    store_bytes: int | None = None
    store_entries: int | None = None
    next_kernels: Mapping[str, bool] = field(default_factory=dict)


def make(
    document: Mapping[str, Any], truth: Truth, counts: Counts, extras: Extras, store_limit: int
) -> Iterator[Metric]:
    """Every family of the table, with the samples there are; `document` is as status.json has it."""
    told = {**_of_document(document), **_of_truth(document, truth), **_of_counts(counts), **_of_extras(extras)}
    told["driverctr_store_limit_bytes"] = one(store_limit)
    for row in METRICS:
        yield _family(row, told.pop(row.name))
    assert not told, f"not in the table: {', '.join(told)}"


def one(value: float | None) -> Samples:
    """A metric without labels."""
    return {(): value}


def by(values: Mapping[str, float]) -> Samples:
    """A metric with one label."""
    return {(name,): value for name, value in values.items()}


def _of_document(document: Mapping[str, Any]) -> dict[str, Samples]:
    failure = document["failure"]
    names = ("driver_version", "module_type", "kernel_release", "modules_from")
    used = document["in_use"]
    return {
        "driverctr_phase": by({phase.value: document["phase"] == phase for phase in Phase}),
        "driverctr_phase_since_timestamp_seconds": one(document["since"]),
        "driverctr_pending_reload": one(bool(document["pending"])),
        "driverctr_rolled_back": one(bool(document["rollback"])),
        "driverctr_last_check_timestamp_seconds": one(document["last_check"]),
        "driverctr_gpu_answering": by(document["gpus_answering"]),
        "driverctr_info": {tuple(document[name] for name in names): 1},
        "driverctr_start_timestamp_seconds": one(document["started"]),
        "driverctr_step_seconds": by({step["name"]: step["seconds"] for step in document["steps"]}),
        "driverctr_attempt": one(document["attempt"]),
        "driverctr_next_try_timestamp_seconds": one(document["next_try"]),
        "driverctr_failure": by({failure["code"]: 1}) if failure else {},
        "driverctr_daemon_restarts_total": one(document["daemon_restarts"]),
        "driverctr_holders": by({use["module"]: len(use["pids"]) for use in used}),
        "driverctr_holder_references": by({use["module"]: use["refcnt"] for use in used}),
    }


def _of_truth(document: Mapping[str, Any], truth: Truth) -> dict[str, Samples]:
    return {
        "driverctr_ready": one(truth.ready),
        "driverctr_degraded": one(truth.degraded or bool(document["degraded"])),
        "driverctr_problems": by(truth.problems),
    }


def _of_counts(counts: Counts) -> dict[str, Samples]:
    return {
        "driverctr_start_seconds": one(counts.start_seconds),
        "driverctr_failures_total": by(counts.failures),
        "driverctr_store_lookups_total": by({result: counts.lookups.get(result, 0) for result in RESULTS}),
    }


def _of_extras(extras: Extras) -> dict[str, Samples]:
    return {
        "driverctr_store_bytes": one(extras.store_bytes),
        "driverctr_store_entries": one(extras.store_entries),
        "driverctr_next_kernel_ready": by(extras.next_kernels),
    }


def _family(row: Row, samples: Samples) -> Metric:
    known = {labels: value for labels, value in samples.items() if value is not None}
    if row.kind is Kind.INFO:
        info = InfoMetricFamily(row.name.removesuffix("_info"), row.help)
        for labels in known:
            info.add_metric((), dict(zip(row.labels, labels, strict=True)))
        return info
    made = CounterMetricFamily if row.kind is Kind.COUNTER else GaugeMetricFamily
    family: CounterMetricFamily | GaugeMetricFamily = made(row.name, row.help, labels=row.labels)
    for labels, value in known.items():
        family.add_metric(labels, value)
    return family


@frozen
class Registry:
    """What prometheus_client's encoders take: families made at one moment."""

    families: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        """For the encoders (prometheus_client.registry.Collector)."""
        return self.families
