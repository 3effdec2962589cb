"""`driverctr who`: everybody who holds the driver, and what to do about each, in the words of every "in use"."""

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import driverctr
from driverctr import config as settings
from driverctr import whoverb
from driverctr.daemons import PERSISTENCED, Running
from driverctr.errors import Code, DriverError
from driverctr.facts import freeing, holders, processes
from driverctr.facts.containers import Container
from driverctr.facts.holders import LISTED, Holder, InUse
from driverctr.facts.modules import LoadedModule
from driverctr.kmod import Kmod
from driverctr.paths import Paths
from driverctr.plan import make
from driverctr.run import Runner
from driverctr.signals import Budget, Signals
from driverctr.status import TERMINATION_LIMIT, write_termination
from driverctr.steps import Tools
from driverctr.syslog import Syslog
from driverctr.whoverb import Use
from tests.unit.conftest import make_tree
from tests.unit.good_node import facts

HOST = Container()
ID = "3f" * 32
UID = "0a1b2c3d-0001-4002-8003-00000000000f"
STATIC_UID = "d41d8cd98f00b204e9800998ecf8427e"
SINCE = "since 1970-01-01 00:00:01 UTC"
PAGE = Path(driverctr.__file__).parents[2] / "docs/who.md"


def module(name: str, refcnt: int, *held_by: str) -> LoadedModule:
    return LoadedModule(name, "535.1", "", "", "live", refcnt, held_by)


def holder(pid: int, command: str = "python3 train.py", place: Container = HOST, **more: int) -> Holder:
    return Holder(pid, command, 1.0, tuple((more or {"nvidia": 2}).items()), pid, place)


@pytest.mark.parametrize(
    ("place", "act"),
    [
        (Container(), "kill 7"),
        (Container(ID, "docker"), "docker stop 3f3f3f3f3f3f"),
        (Container(ID, "docker", own=True), "kill 7"),
        (Container(ID, "podman"), "podman stop 3f3f3f3f3f3f"),
        (Container(ID, "podman", user="1000"), "podman stop 3f3f3f3f3f3f (as the user with uid 1000)"),
        (Container(ID, "containerd"), "nerdctl stop 3f3f3f3f3f3f"),
        (Container(ID, "cri-o"), "crictl stop 3f3f3f3f3f3f"),
        (Container(ID), "stop container 3f3f3f3f3f3f"),
        (Container(ID, "containerd", UID, "ml", "train-0"), "kubectl delete pod -n ml train-0"),
        (
            Container(ID, "containerd", UID),
            f"kubectl delete the pod that `crictl pods --label io.kubernetes.pod.uid={UID}` names",
        ),
        (
            Container(ID, "", STATIC_UID, "kube-system", "gpu"),
            "take the manifest of gpu out of the kubelet's folder of static pods (/etc/kubernetes/manifests)",
        ),
        (Container(unit="train.service"), "systemctl stop train.service"),
        (Container(unit="dev-\\x2d.service"), "systemctl stop 'dev-\\x2d.service'"),
        (Container(unit="docker.service"), "kill 7"),
    ],
)
def test_each_is_ended_by_what_would_start_it_again(place: Container, act: str) -> None:
    assert freeing.how(7, "python3 train.py", place) == holder(7, place=place).action == act


@pytest.mark.parametrize(
    ("command", "place", "act"),
    [
        ("/usr/lib/xorg/Xorg :0", Container(), "systemctl isolate multi-user.target"),
        ("nvidia-cuda-mps-server", Container(), "echo quit | nvidia-cuda-mps-control"),
        ("nvidia-cuda-mps-server", Container(ID, "docker"), "docker stop 3f3f3f3f3f3f"),
        ("/opt/Xorg-test", Container(), "kill 7"),
    ],
)
def test_some_programs_of_the_host_end_in_their_own_way(command: str, place: Container, act: str) -> None:
    assert freeing.how(7, command, place) == act


@pytest.mark.parametrize(
    ("status", "deaf"),
    [
        ("NSpid:\t7\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n", False),
        ("NSpid:\t7\nSigIgn:\t0000000000004000\nSigCgt:\t0000000000000000\n", True),
        ("NSpid:\t7\t1\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n", True),
        ("NSpid:\t7\t1\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000004000\n", False),
        ("NSpid:\t7\t5\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n", False),
        ("NSpid:\t1\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n", False),
        ("", False),
    ],
    ids=["hears", "ignores", "first of its namespace", "first, with a handler", "second", "process 1 of ours", "gone"],
)
def test_who_does_not_hear_sigterm_is_killed(paths: Paths, status: str, deaf: bool) -> None:
    make_tree(paths.root, {"proc/7/status": status})
    assert processes.is_deaf(paths, 7) == deaf
    assert freeing.how(7, "x", HOST, deaf=deaf) == ("kill -KILL 7" if deaf else "kill 7")


@pytest.mark.parametrize(
    ("module", "blind", "said"),
    [
        ("nvidia", "run the container with --pid=host (hostPID) to see who", "run the container with --pid=host"),
        ("nvidia_drm", "", "systemctl isolate multi-user.target"),
        ("nvidia_peermem", "", "RDMA"),
        ("nvidia", "", "the kernel itself"),
    ],
)
def test_what_no_process_explains_has_an_act_too(module: str, blind: str, said: str) -> None:
    (words, act) = InUse(module, 1, (), 0, (), 1, blind).users()[-1]
    assert said in act and "1 reference(s)" in words


TRAINS = holder(7, place=Container(ID, "docker"), nvidia=2, nvidia_uvm=2)
SLEEPS = holder(8, "sleep 9")
DAEMON = holder(9, "nvidia-persistenced")
USED = (
    InUse("nvidia", 9, ("nvidia_uvm", "nvidia_drm"), 2, (TRAINS, SLEEPS), 1),
    InUse("nvidia_uvm", 2, (), 0, (TRAINS,), 0),
)
STACK = (module("nvidia", 9, "nvidia_uvm", "nvidia_drm"), module("nvidia_uvm", 2), module("nvidia_drm", 0))
BUSY = Use(STACK, USED, (TRAINS, SLEEPS, DAEMON), (DAEMON.identity,))


def test_who_says_it_a_line_each_with_the_act_below_and_what_is_harmless_apart() -> None:
    assert (
        whoverb.describe(BUSY)
        == f"""\
the driver is in use: nvidia has refcnt 9 (2 by nvidia_uvm, nvidia_drm, 2 by our own daemons):
  pid 7 (python3 train.py) [docker container 3f3f3f3f3f3f, {SINCE}]
      docker stop 3f3f3f3f3f3f
  pid 8 (sleep 9) [{SINCE}]
      kill 8
  1 reference(s) by holders not visible from here
      {freeing.NOBODY}

nvidia_uvm has refcnt 2:
  pid 7 (python3 train.py)

Not in the way of an unload:
  pid 9 (nvidia-persistenced) [{SINCE}]: our own daemon, which is stopped before an unload
  module nvidia_drm, which holds nvidia: unloaded with the driver, and not loaded again by us
"""
    )


def test_the_words_of_who_are_those_of_every_in_use() -> None:
    lines = [line.strip() for line in whoverb.describe(BUSY).partition("\n\nNot")[0].splitlines() if line]
    said, remedy = holders.describe(USED), holders.remedy(USED)
    acts = {act for use in USED for _, act in use.users()}
    for line in lines:
        assert line in (remedy if line in acts else said), line
    assert remedy == f"Free the GPU: docker stop 3f3f3f3f3f3f (pid 7); kill 8; {freeing.NOBODY}"


def test_a_pod_comes_back_unless_the_node_is_drained() -> None:
    used = (InUse("nvidia", 2, (), 0, (holder(7, place=Container(ID, "", UID, "ml", "train-0")),), 0),)
    assert holders.remedy(used).endswith(f"kubectl delete pod -n ml train-0 (pid 7); {freeing.ON_KUBERNETES}")
    assert freeing.ON_KUBERNETES in whoverb.describe(Use(STACK, used, used[0].by, ()))
    assert freeing.ON_KUBERNETES not in whoverb.describe(BUSY)


def test_many_users_fit_into_a_termination_message(paths: Paths) -> None:
    many = tuple(holder(pid, "x" * 99, Container(f"{pid}{0:060}", "docker")) for pid in range(1000, 1040))
    many += tuple(holder(pid, "y" * 99, Container(ID, "docker")) for pid in range(2000, 2040))
    used = tuple(InUse(name, 99, (), 0, many, 3) for name in ("nvidia_modeset", "nvidia_uvm", "nvidia"))
    remedy = holders.remedy(used)
    assert remedy.count("docker stop") == LISTED and "38 more (`driverctr who` lists all)" in remedy
    assert "(pid 2000, 2001, 2002, 2003, 2004 and 35 more)" in holders.remedy(
        (InUse("nvidia", 9, (), 0, many[40:], 0),)
    )
    make_tree(paths.root, {"dev/termination-log": ""})
    error = DriverError(Code.IN_USE, holders.describe(used), remedy)
    write_termination(paths, error)
    told = json.loads(paths.termination_log.read_text())
    assert (told["message"], told["remedy"]) == (error.message, remedy), "nothing is cut off"
    assert len(paths.termination_log.read_bytes()) <= TERMINATION_LIMIT
    assert whoverb.describe(Use(STACK, used[:1], many, ())).count("docker stop") == 80


def test_one_signal_ends_many() -> None:
    plain = tuple(holder(pid) for pid in range(1, 8))
    deaf = (replace(plain[0], pid=9, ticks=9, deaf=True),)
    used = (InUse("nvidia", 9, (), 0, plain[:2] + deaf, 0), InUse("nvidia_uvm", 9, (), 0, plain[:1] + deaf, 0))
    assert holders.remedy(used) == "Free the GPU: kill 1 2; kill -KILL 9"
    many = (InUse("nvidia", 9, (), 0, plain, 0),)
    assert holders.remedy(many) == "Free the GPU: kill 1 2 3 4 5 (and 2 more: `driverctr who` lists all)"


def test_a_start_that_is_refused_names_the_acts() -> None:
    (blocker,) = make(settings.load({}), facts(stack={"nvidia": module("nvidia", 2)}, holders=(SLEEPS,))).blockers
    assert (blocker.code, blocker.remedy) == (Code.IN_USE, "Free the GPU: kill 8")


def test_nobody_is_said_as_such() -> None:
    assert whoverb.describe(Use((), (), (), ())) == "nobody uses the driver: none of its modules is loaded\n"
    idle = whoverb.describe(Use((module("nvidia", 2),), (), (DAEMON,), (DAEMON.identity,)))
    assert idle.startswith("nobody uses the driver: nvidia 535.1 is loaded, and can be unloaded\n\nNot in the way")
    assert "Stuck: the unload of nvidia" in whoverb.describe(Use((), (), (), (), "the unload of nvidia has not ended"))


def call(paths: Paths, runner: Runner, capsys: pytest.CaptureFixture[str], *, json: bool = False) -> tuple[int, str]:
    config, signals = settings.load({}), Signals()
    budget = Budget(signals, config.stop_timeout)
    tools = Tools(paths, config, runner, Kmod(), signals, Syslog(Path("/nowhere"), paths.own_run), budget)
    status = whoverb.show(tools, argparse.Namespace(json=json))
    return status, capsys.readouterr().out


def test_the_exit_status_tells_whether_somebody_is_in_the_way(
    paths: Paths, runner: Runner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(paths.root, {"proc/devices": "Character devices:\n195 nvidia\n"})
    assert call(paths, runner, capsys)[0] == 0
    make_tree(paths.root, {"sys/module/nvidia/refcnt": "2\n", "sys/module/nvidia/initstate": "live\n"})
    monkeypatch.setattr(holders, "read", lambda *_: (SLEEPS,))
    assert call(paths, runner, capsys)[0] == Code.IN_USE.exit_status
    status, text = call(paths, runner, capsys, json=True)
    told = json.loads(text)
    assert status == 6 and told["in_use"] and told["holders"][0]["action"] == "kill 8"
    ours = (Running(PERSISTENCED, SLEEPS.pid, SLEEPS.ticks),)
    monkeypatch.setattr("driverctr.daemons.find_all", lambda paths: ours)
    status, text = call(paths, runner, capsys)
    assert status == 0 and "pid 8 (sleep 9)" in text and "our own daemon" in text


def test_each_field_for_programs_is_explained() -> None:
    told = whoverb.as_dict(BUSY)
    rows = set(re.findall(r"^\| `([a-z_.\[\]]+)`", PAGE.read_text().partition("## For programs")[2], re.MULTILINE))
    fields = set(told)
    for name in ("modules", "holders"):
        fields |= {f"{name}[].{field}" for row in told[name] for field in row}
    fields |= {f"holders[].container.{field}" for field in told["holders"][0]["container"]}
    assert rows == fields
    json.dumps(told)
