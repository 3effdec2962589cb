"""Which container, pod or unit of the host a process is of, by its control group."""

import pytest

from driverctr.facts import containers
from driverctr.facts.containers import Container
from driverctr.paths import Paths
from tests.unit.conftest import make_tree

ID = "3f" * 32
UID = "0a1b2c3d-0001-4002-8003-00000000000f"
STATIC_UID = "d41d8cd98f00b204e9800998ecf8427e"
UNDER = UID.replace("-", "_")
SLICE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDER}.slice"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0::/user.slice/user-0.slice/session-1.scope\n", Container()),
        ("0::/\n", Container()),
        ("", Container()),
        (f"0::/system.slice/docker-{ID}.scope\n", Container(ID, "docker")),
        (f"0::/docker/{ID}\n", Container(ID, "docker")),
        (
            f"12:pids:/docker/{ID}\n11:devices:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n",
            Container(ID, "docker"),
        ),
        (f"0::{SLICE}/cri-containerd-{ID}.scope\n", Container(ID, "containerd", UID)),
        (f"0::{SLICE}/crio-{ID}.scope/container\n", Container(ID, "cri-o", UID)),
        (f"0::{SLICE}/crio-conmon-{ID}.scope\n", Container(pod_uid=UID)),
        (f"0::/kubepods/besteffort/pod{UID}/{ID}\n", Container(ID, "", UID)),
        (f"5:devices:/kubepods/pod{UID}/{ID}\n0::/system.slice\n", Container(ID, "", UID)),
        (f"0::/kubepods/burstable/pod{STATIC_UID}/{ID}\n", Container(ID, "", STATIC_UID)),
        (
            f"1:cpu:/system.slice/containerd.service/kubepods-burstable-pod{UNDER}.slice:cri-containerd:{ID}\n",
            Container(ID, "containerd", UID),
        ),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", Container(ID, "podman")),
        (f"0::/libpod_parent/libpod-{ID}\n", Container(ID, "podman")),
        (f"0::/libpod_parent/libpod-conmon-{ID}\n", Container()),
        (f"0::/system.slice/nerdctl-{ID}.scope\n", Container(ID, "containerd")),
        (f"0::/../{ID}\n", Container(ID)),
        (f"0::/../../kubepods-pod{UNDER}.slice/cri-containerd-{ID}.scope\n", Container(ID, "containerd", UID)),
        (f"0::{SLICE}\n", Container(pod_uid=UID)),
        (f"0::/system.slice/{ID}extra.service\n0::/user/podcast\n", Container(unit=f"{ID}extra.service")),
        ("3:cpu:/\n1:name=systemd:/system.slice/train.service\n0::/\n", Container(unit="train.service")),
        ("0::/../../system.slice/train.service/workers/1\n", Container(unit="train.service")),
        ("0::/system.slice/run-u7.scope\n", Container(unit="run-u7.scope")),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope\n", Container()),
        (
            f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container\n",
            Container(ID, "podman", user="1000"),
        ),
    ],
)
def test_the_container_is_told_from_every_shape_of_a_control_group(text: str, found: Container) -> None:
    assert containers.parse(text) == found


def test_a_pod_has_its_name_where_the_logs_are_mounted_and_its_uid_otherwise(paths: Paths) -> None:
    make_tree(paths.root, {"proc/7/cgroup": f"0::{SLICE}/cri-containerd-{ID}.scope\n"})
    assert str(containers.read(paths, 7)) == f"pod uid {UID}, containerd container {ID[:12]}"
    make_tree(paths.root, {f"var/log/pods/ml_train-0_{UID}": None, "var/log/pods/ml_other_x": None})
    assert str(containers.read(paths, 7)) == f"pod ml/train-0, containerd container {ID[:12]}"
    make_tree(
        paths.root,
        {
            "proc/1/ns/mnt": "-> mnt:[host]",
            "proc/self/ns/mnt": "-> mnt:[ours]",
            "proc/1/root/lib/modules": None,
            f"proc/1/root/var/log/pods/kube-system_gpu_{STATIC_UID}": None,
        },
    )
    make_tree(paths.root, {"proc/8/cgroup": f"0::/kubepods/pod{STATIC_UID}/{ID}\n"})
    assert str(containers.read(paths, 8)) == f"pod kube-system/gpu, container {ID[:12]}"


@pytest.mark.parametrize(
    ("mounted", "runtime"),
    [
        (f"1 2 0:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 x rw\n", "docker"),
        (f"1 2 0:1 /containers/overlay-containers/{ID}/userdata/hostname /etc/hostname rw - ext4 x rw\n", ""),
        ("", ""),
    ],
)
def test_a_sibling_in_the_same_folder_of_groups_has_our_own_engine(paths: Paths, mounted: str, runtime: str) -> None:
    other = "4e" * 32
    make_tree(paths.root, {"proc/self/mountinfo": mounted, "proc/self/cgroup": "0::/\n"})
    make_tree(paths.root, {"proc/7/cgroup": f"0::/../{other}\n", "proc/8/cgroup": f"0::/../../x/{other}\n"})
    assert containers.read(paths, 7) == Container(other, runtime)
    assert containers.read(paths, 8) == Container(other)
    make_tree(paths.root, {"proc/9/cgroup": f"0::/docker/{ID}\n"})
    assert containers.read(paths, 9).own == bool(mounted)
