"""Which container and pod a process belongs to, from its control group."""

from driverctr.deferred import pattern
from driverctr.facts.hostroot import host_roots
from driverctr.files import read_text
from driverctr.paths import Paths
from driverctr.records import frozen

SHORT_ID = 12
"""How many digits of a container's id docker and crictl print."""

_CONTAINER = pattern(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?=/|$)")
_POD = pattern(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=[./:]|$)")
"""A container's id ends a part of the path. A pod's uid has dashes, underscores under the systemd driver, or for a
static pod neither: it is a digest of its manifest (Kubernetes, pkg/kubelet/cm and pkg/kubelet/config)."""

_OWN_FOLDER = pattern(r"/(?:overlay-)?containers/([0-9a-f]{64})/(?:userdata/)?(?:hostname|resolv\.conf) ")
"""As the root of a mount in mountinfo: /var/lib/docker/containers/<id>/hostname, and podman's
/containers/overlay-containers/<id>/userdata/hostname, both seen from the top of their filesystem."""

_RUNTIMES = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
    "libpod-payload": "podman",
}
"""What runtimes put before the id: docker-<id>.scope, /docker/<id>, kubepods.slice:cri-containerd:<id> and so on."""

MONITORS = ("conmon",)
"""cri-o's and podman's conmon runs beside its container, in a group with the container's id (crio-conmon-<id>)."""


@frozen
class Container:
    """What is known of a process's container; empty where it runs in none, or nothing tells."""

    id: str = ""
    runtime: str = ""
    pod_uid: str = ""
    pod_namespace: str = ""
    pod: str = ""

    def __str__(self) -> str:
        """For a sentence; "" for a process of the host."""
        pod = f"pod {self.pod_namespace}/{self.pod}" if self.pod else f"pod uid {self.pod_uid}" if self.pod_uid else ""
        container = " ".join(filter(None, (self.runtime, "container", self.id[:SHORT_ID]))) if self.id else ""
        return ", ".join(filter(None, (pod, container)))


def read(paths: Paths, pid: int) -> Container:
    """The container of a process, by /proc/<pid>/cgroup (cgroups(7), versions 1 and 2)."""
    found = parse(read_text(paths.proc / str(pid) / "cgroup") or "")
    namespace, pod = _name_pod(paths, found.pod_uid) if found.pod_uid else ("", "")
    return Container(found.id, found.runtime, found.pod_uid, namespace, pod)


def own_id(paths: Paths) -> str:
    """The id of our own container, "" where nothing tells.

    In a cgroup namespace of our own the group is "/"; then what docker and podman mount from its folder has the id.
    """
    of_group = parse(read_text(paths.proc / "self/cgroup") or "").id
    if of_group:
        return of_group
    mounted = _OWN_FOLDER.search(read_text(paths.proc / "self/mountinfo") or "")
    return mounted[1] if mounted else ""


def parse(text: str) -> Container:
    """The first line that names a container, else the first that names a pod; other controllers repeat it."""
    found = [_parse_path(line.split(":", 2)[-1]) for line in text.splitlines()]
    return next((one for one in found if one.id), next((one for one in found if one.pod_uid), Container()))


def _parse_path(path: str) -> Container:
    pod = _POD.search(path)
    uid = pod[1].replace("_", "-") if pod else ""
    ids = list(_CONTAINER.finditer(path))
    if not ids:
        return Container(pod_uid=uid)
    before = path[: ids[-1].start() + 1].rstrip("/:-").rpartition("/")[2].rpartition(":")[2]
    if before.endswith(MONITORS):
        return Container(pod_uid=uid)
    return Container(ids[-1][1], _RUNTIMES.get(before, ""), uid)


def _name_pod(paths: Paths, uid: str) -> tuple[str, str]:
    """Namespace and name of a pod, which the kubelet puts into the name of its folder of logs: neither has a "_"."""
    for place in host_roots(paths.root):
        for folder in (place.path / "var/log/pods").glob(f"*_*_{uid}"):
            namespace, _, rest = folder.name.partition("_")
            return namespace, rest.partition("_")[0]
    return "", ""
