"""What frees the driver of those who use it: one act for each, in words that a shell takes where one act is enough."""

from pathlib import PurePath

from driverctr.deferred import shlex
from driverctr.facts.containers import SHORT_ID, Container

STATIC_PODS = "/etc/kubernetes/manifests"
"""Where kubeadm has the kubelet look for static pods (Kubernetes, "Create static Pods"): deleted, they come back."""

ENGINES = {"docker": "docker", "podman": "podman", "containerd": "nerdctl", "cri-o": "crictl"}
"""What stops a container that is of no pod, by its runtime."""

QUIT_MPS = "echo quit | nvidia-cuda-mps-control"
NO_DISPLAY = "systemctl isolate multi-user.target"
PROGRAMS = {
    "nvidia-cuda-mps-control": QUIT_MPS,
    "nvidia-cuda-mps-server": QUIT_MPS,
    "Xorg": NO_DISPLAY,
    "X": NO_DISPLAY,
    "Xwayland": NO_DISPLAY,
    "gnome-shell": NO_DISPLAY,
    "kwin_wayland": NO_DISPLAY,
}
"""Programs of the host that somebody starts again or that end in their own way (NVIDIA, "Multi-Process Service")."""

TERMINATE, KILL = SIGNALS = "kill", "kill -KILL"

RUNTIMES_OWN = ("docker", "containerd", "crio", "kubelet", "k3s", "rke2", "snap.docker")
"""Units that run everybody's containers; what of theirs uses a GPU is a hook, and ends by itself."""

ON_KUBERNETES = "`kubectl drain` keeps pods from coming back"

UNSEEN = {
    "nvidia_drm": f"a display or the console has it: `{NO_DISPLAY}`, then `echo 0 > /sys/class/vtconsole/vtcon1/bind`",
    "nvidia_modeset": f"a display has it: `{NO_DISPLAY}`",
    "nvidia_peermem": "programs that use RDMA with GPU memory have it: stop them",
    "nvidia_fs": "programs that use GPUDirect Storage have it: stop them",
}
"""Where we see every process and none of them has the module: who uses it from within the kernel."""

NOBODY = "no process has it: the kernel itself, or a file on its way between processes; if it stays, reboot"


def how(pid: int, command: str, place: Container, *, deaf: bool = False) -> str:
    """What ends one process and keeps it from coming back: by its pod, container or unit, else by its pid.

    One that is `deaf` does not end by SIGTERM.
    """
    program = PurePath(command.partition(" ")[0]).name
    kill = f"{KILL if deaf else TERMINATE} {pid}"
    if place.own:
        return kill
    if place.pod_uid:
        return _end_pod(place)
    if place.id:
        short = place.id[:SHORT_ID]
        engine = ENGINES.get(place.runtime)
        as_user = f" (as the user with uid {place.user})" if place.user else ""
        return f"{engine} stop {short}{as_user}" if engine else f"stop container {short}"
    if place.unit and not place.unit.startswith(RUNTIMES_OWN):
        return f"systemctl stop {shlex.quote(place.unit)}"
    return PROGRAMS.get(program, kill)


def together(act: str) -> str:
    """What several acts have in common that can be one: a signal, which takes many pids."""
    return next((signal for signal in SIGNALS if act.rpartition(" ")[0] == signal), act)


def how_unseen(module: str, blind: str) -> str:
    """What to do about references to a module that nobody we see explains; `blind` is why we may not see all."""
    return blind or UNSEEN.get(module, NOBODY)


def _end_pod(place: Container) -> str:
    if "-" not in place.pod_uid:
        name = f"of {place.pod} " if place.pod else ""
        return f"take the manifest {name}out of the kubelet's folder of static pods ({STATIC_PODS})"
    if place.pod:
        return f"kubectl delete pod -n {place.pod_namespace} {place.pod}"
    return f"kubectl delete the pod that `crictl pods --label io.kubernetes.pod.uid={place.pod_uid}` names"
