"""Which container, pod or unit of the host a process belongs to, from its control group."""

import re

from driverctr.deferred import pattern
from driverctr.facts.hostroot import host_roots
from driverctr.files import read_text
from driverctr.paths import Paths
from driverctr.records import frozen, replace

SHORT_ID = 12
"""How many digits of a container's id docker and crictl print."""

_CONTAINER = pattern(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?=/|$)")
_POD = pattern(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=[./:]|$)")
"""A container's id ends a part of the path. A pod's uid has dashes, underscores under the systemd driver, or for a
static pod neither: it is a digest of its manifest (Kubernetes, pkg/kubelet/cm and pkg/kubelet/config)."""

_OWN_FOLDER = pattern(r"/(?:overlay-)?containers/([0-9a-f]{64})/(?:userdata/)?(?:hostname|resolv\.conf) /etc/\S+ ")
"""As the root of a mount in mountinfo: /var/lib/docker/containers/<id>/hostname, and podman's
/containers/overlay-containers/<id>/userdata/hostname, both seen from the top of their filesystem.

Mounted where a container has it itself: the driver root of another one, below /run/nvidia/driver, has that one's."""

_SIBLING = pattern(r"^\d+:[^:]*:/\.\./[0-9a-f]{64}$", re.MULTILINE)
"""A container in the same folder of groups as our own, seen from a cgroup namespace: nothing names the runtime."""

_UNIT = pattern(r"(?:^|/)([^/]+\.(?:service|scope))(?=/|$)")
_SESSION = "user.slice"
"""What people and their own service managers run; a scope there is a session, of which one process is to end."""
_USER = pattern(r"/user-(\d+)\.slice/")

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
    """What is known of where a process runs: its container and pod, or the `unit` of the host's systemd it is of.

    `user` is the uid whose engine, without root's rights, runs the container; `own`: it is the one we run in.
    """

    id: str = ""
    runtime: str = ""
    pod_uid: str = ""
    pod_namespace: str = ""
    pod: str = ""
    unit: str = ""
    user: str = ""
    own: bool = False

    def __str__(self) -> str:
        """For a sentence; "" for a process of the host that is of no unit."""
        if self.unit:
            return f"unit {self.unit}"
        pod = f"pod {self.pod_namespace}/{self.pod}" if self.pod else f"pod uid {self.pod_uid}" if self.pod_uid else ""
        container = " ".join(filter(None, (self.runtime, "container", self.id[:SHORT_ID]))) if self.id else ""
        return ", ".join(filter(None, (pod, container)))


def read(paths: Paths, pid: int) -> Container:
    """The container of a process, by /proc/<pid>/cgroup (cgroups(7), versions 1 and 2)."""
    text = read_text(paths.proc / str(pid) / "cgroup") or ""
    found = parse(text)
    if found.pod_uid:
        namespace, pod = _name_pod(paths, found.pod_uid)
        found = replace(found, pod_namespace=namespace, pod=pod)
    if found.id and not found.runtime and _SIBLING.search(text) and _is_docker(paths):
        found = replace(found, runtime="docker")
    return replace(found, own=bool(found.id) and found.id == own_id(paths))


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
    """The first line that names a container, else the first that names a pod, else a unit; controllers repeat it."""
    found = [_parse_path(line.split(":", 2)[-1]) for line in text.splitlines()]
    telling = sorted(found, key=lambda one: (not one.id, not one.pod_uid, not one.unit))
    return telling[0] if telling else Container()


def _parse_path(path: str) -> Container:
    pod = _POD.search(path)
    uid = pod[1].replace("_", "-") if pod else ""
    ids = list(_CONTAINER.finditer(path))
    if not ids:
        return Container(pod_uid=uid, unit="" if uid else _unit(path))
    before = path[: ids[-1].start() + 1].rstrip("/:-").rpartition("/")[2].rpartition(":")[2]
    if before.endswith(MONITORS):
        return Container(pod_uid=uid)
    user = _USER.search(path)
    return Container(ids[-1][1], _RUNTIMES.get(before, ""), uid, user=user[1] if user else "")


def _unit(path: str) -> str:
    """The outermost unit; what runs within may have made groups of its own (systemd.resource-control(5), Delegate=)."""
    unit = _UNIT.search(path)
    return unit[1] if unit and _SESSION not in path.split("/") else ""


def _is_docker(paths: Paths) -> bool:
    """Whether our own container is Docker's; podman and cri-o keep these files in a folder `userdata`."""
    mounted = _OWN_FOLDER.search(read_text(paths.proc / "self/mountinfo") or "")
    return mounted is not None and "/userdata/" not in mounted[0]


def _name_pod(paths: Paths, uid: str) -> tuple[str, str]:
    """Namespace and name of a pod, which the kubelet puts into the name of its folder of logs: neither has a "_"."""
    for place in host_roots(paths.root):
        for folder in (place.path / "var/log/pods").glob(f"*_*_{uid}"):
            namespace, _, rest = folder.name.partition("_")
            return namespace, rest.partition("_")[0]
    return "", ""
