"""What the metrics are made of: the last status, what was counted, the kernel's word when asked, from any thread."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from driverctr import truth
from driverctr.health import LOOK_EVERY
from driverctr.metrics import extras, families
from driverctr.metrics.families import Counts, Extras, Registry, Truth
from driverctr.records import asdict, field, mutable, replace
from driverctr.status import Phase, Status
from driverctr.steps import Tools
from driverctr.verify import Finding

EXTRAS_LAST = 300.0
"""Seconds: what tens of files are read for is read again when it is older than that, or when the status tells of it."""

WATCHED = (Phase.READY, Phase.NOT_READY)
"""Phases in which the driver is looked at again and again."""


@mutable
class Monitor:
    """Hears every status there is (`tell`), and answers.

    Written by the thread that does the work, each field at once; read by those that serve. `extras` is None until
    somebody asks for what is in it (`refresh`).
    """

    tools: Tools
    told: Status | None = None
    told_at: float = 0.0
    counts: Counts = field(default_factory=Counts)
    extras: Extras | None = None
    extras_at: float = 0.0
    _began: float = 0.0
    _refreshing: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, status: Status) -> None:
        """A status begins to hold."""
        former = self.told
        self.counts = self._count(former, status)
        if former is not None and former.next_kernels != status.next_kernels:
            self.extras_at = -EXTRAS_LAST  # the clock may just have begun, with the node
        self.told, self.told_at = status, time.monotonic()

    def _count(self, former: Status | None, status: Status) -> Counts:
        if former is None or former.phase is not status.phase:
            begins = former is None or former.phase in (*WATCHED, Phase.WAITING_FOR_GPU)
            if status.phase is Phase.STARTING and begins:
                self._began = status.since
        counts = self.counts
        if status.phase is Phase.READY and (former is None or former.phase not in WATCHED):
            counts = replace(counts, start_seconds=max(0.0, status.since - self._began))
        if (code := _new_failure(former, status)) is not None:
            counts = replace(counts, failures=dict(Counter(counts.failures) + Counter([code])))
        if (result := _new_lookup(former, status)) is not None:
            counts = replace(counts, lookups=dict(Counter(counts.lookups) + Counter([result])))
        return counts

    def collect(self) -> Registry:
        """The metrics at this moment; raises nothing for what the kernel does not tell."""
        document = self.document()
        found = self._look(document)
        known = families.make(
            document,
            self._judge(document, found),
            self.counts,
            self.extras or Extras(),
            self.tools.config.store_max_size,
        )
        return Registry(tuple(known))

    def document(self) -> dict[str, Any]:
        """The last status, as status.json has it."""
        assert self.told is not None, "told before anybody can ask"
        return asdict(self.told)

    def _look(self, document: dict[str, Any]) -> Sequence[Finding] | None:
        """What differs now, where there is what was ready; None where that cannot be told: the kernel's trees change
        while they are read."""
        if document["phase"] not in WATCHED:
            return ()
        for _ in range(2):
            try:
                return truth.look(self.tools.paths, document)
            except OSError:
                continue
        return None

    def _judge(self, document: dict[str, Any], found: Sequence[Finding] | None) -> Truth:
        if found is None:
            return Truth()
        ready = truth.is_ready(self.tools.paths, document, found)
        problems = Counter(finding.code.value for finding in found if not finding.serves)
        return Truth(ready, any(finding.serves for finding in found), dict(problems))

    def why_not_ready(self) -> str:
        """Why the driver does not serve, in a line that shows no more than codes and names of the node; "" if it does.

        By the same look as `driverctr status`.
        """
        document = self.document()
        found = self._look(document)
        if found is None:
            return "the kernel's trees cannot be read"
        if truth.is_ready(self.tools.paths, document, found):
            return ""
        wrong = "; ".join(finding.text for finding in found if not finding.serves)
        if document["phase"] in WATCHED:
            lock = f"{self.tools.paths.pid_file} is not locked by us any more"
            return f"{Phase.NOT_READY}: {wrong or (lock if document['expected'] else 'what to check is not known yet')}"
        code = document["failure"].get("code", "")
        details = ", ".join(filter(None, (code, f"at step {document['step']}" if document["step"] else "")))
        seconds = max(0.0, time.time() - document["since"])  # the clock may have been set back
        return f"{document['phase']}{f': {details}' if details else ''}, for {seconds:.0f} s"

    def why_not_alive(self) -> str:
        """Why this process had better be replaced, "" if it works: asks nothing that could hang.

        A start and a stop have limits of their own for each act; between them the driver is looked at each minute.
        """
        assert self.told is not None, "told before anybody can ask"
        if self.told.phase is Phase.STUCK:
            return "stuck: a load or unload hangs in the kernel"
        silent = time.monotonic() - self.told_at
        if self.told.phase in WATCHED and silent > self.longest_silence:
            return f"stuck: the driver was not looked at for {silent:.0f} s"
        return ""

    @property
    def longest_silence(self) -> float:
        """Seconds between two looks at most: one may load a module that went away, and start a daemon anew."""
        return 2 * LOOK_EVERY + 2 * self.tools.config.load_timeout

    def refresh(self) -> None:
        """Read what is not read for each answer, where it is old; one thread at a time, the others go on."""
        due = self.extras is None or time.monotonic() - self.extras_at >= EXTRAS_LAST
        if not due or not self._refreshing.acquire(blocking=False):
            return
        try:
            assert self.told is not None, "told before anybody can ask"
            self.extras_at = time.monotonic()
            self.extras = extras.read(self.tools, self.told.next_kernels)
        finally:
            self._refreshing.release()


def _new_failure(former: Status | None, status: Status) -> str | None:
    if not status.failure or (former is not None and status.failure == former.failure):
        return None
    return str(status.failure["code"])


def _new_lookup(former: Status | None, status: Status) -> str | None:
    """What a look into the store came to; "" at the beginning of each attempt."""
    return status.store if status.store and (former is None or former.store != status.store) else None
