"""The script that a host's package manager runs after a kernel was installed, and how it comes and goes."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from driverctr import kernelhook
from driverctr.log import Log
from driverctr.paths import Paths
from tests.unit.conftest import FakeBin, make_tree

PID = 4711
NEXT = "6.1.0-57-amd64"
TOOLS = ("dash", "stat", "tr", "grep", "env")


class Hook:
    """The script with a pid file and a /proc of its own, on a host with a few tools."""

    def __init__(self, folder: Path, fake_bin: FakeBin) -> None:
        self.folder, self.fake_bin = folder, fake_bin
        self.pid_file, self.proc = folder / "nvidia-driver.pid", folder / "proc"
        self.cgroups = folder / "cgroup"
        self.proc.mkdir()
        for tool in TOOLS:
            (fake_bin.folder / tool).symlink_to(str(shutil.which(tool)))
        text = kernelhook.SCRIPT.read_text()
        for name, path in (
            ("pid_file", "/run/nvidia/nvidia-driver.pid"),
            ("proc", "/proc"),
            ("cgroups", "/sys/fs/cgroup"),
        ):
            assert f"\n{name}={path}\n" in text
            text = text.replace(f"\n{name}={path}\n", f"\n{name}={getattr(self, name)}\n")
        self.script = folder / "update-nvidia-driver"
        self.script.write_text(text)

    def container(self, *command: str, listed: str | None = None) -> None:
        """A process that holds the lock on the pid file, or stands in the table of locks as `listed`."""
        self.pid_file.write_text("1\n")
        found = self.pid_file.stat()
        file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        lines = [
            "1: POSIX  ADVISORY  WRITE 17 00:19:1 0 EOF",
            f"2: FLOCK  ADVISORY  WRITE 18 00:19:{found.st_ino}9 0 EOF",
            listed if listed is not None else f"3: FLOCK  ADVISORY  WRITE {PID} {file} 0 EOF",
            f"3: -> FLOCK  ADVISORY  WRITE 19 {file} 0 EOF",
        ]
        words = command or ("/usr/bin/python3", "-IS", "/usr/bin/nvidia-driver", "init")
        make_tree(self.proc, {"locks": "\n".join(lines) + "\n", f"{PID}/cmdline": "\0".join(words) + "\0"})
        make_tree(self.folder, {f"proc/{PID}/cgroup": "0::/docker/1\n", "cgroup/docker/1/cgroup.procs": ""})

    def run(self, *arguments: str) -> str:
        """What the script says; it must exit 0 and leave stdout alone."""
        done = subprocess.run(
            [self.fake_bin.folder / "dash", self.script, *arguments],
            env={"PATH": str(self.fake_bin.folder), "DEBIAN_FRONTEND": "dialog"},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (done.returncode, done.stdout) == (0, ""), done
        return done.stderr


@pytest.fixture
def hook(tmp_path: Path, fake_bin: FakeBin) -> Iterator[Hook]:
    (tmp_path / "hook").mkdir()
    yield Hook(tmp_path / "hook", fake_bin)


@pytest.mark.allow_process(*TOOLS)
def test_it_builds_in_the_container_that_holds_the_lock_with_its_settings_alone(hook: Hook) -> None:
    hook.fake_bin.add("nsenter", f"/usr/bin/env > {hook.folder}/environment; echo said; ! read -r line")
    hook.container()
    said = hook.run(NEXT, f"/boot/vmlinuz-{NEXT}")
    assert hook.fake_bin.calls == [f"nsenter -t {PID} -m -p -- nvidia-driver update --like-running --kernel {NEXT}"]
    assert f"building the NVIDIA driver's modules for kernel {NEXT} in the driver container (pid {PID})" in said
    assert f"update-nvidia-driver: done for kernel {NEXT}" in said and "\nsaid\n" in said and "bounds" not in said
    assert "ready" not in said, "where the modules lie, and whether they last there, only the program knows"
    names = {line.split("=")[0] for line in (hook.folder / "environment").read_text().splitlines()}
    assert names <= {"PATH", "PWD", "_", "SHLVL"}


@pytest.mark.allow_process(*TOOLS)
@pytest.mark.parametrize(
    ("groups", "joined"),
    [
        ("0::/docker/1", ["docker/1"]),
        (
            "3:cpu,cpuacct:/kube:pod/1\n1:name=systemd:/kube/1\n0::/kube/1",
            ["cpu,cpuacct/kube:pod/1", "systemd/kube/1", "unified/kube/1"],
        ),
    ],
)
def test_the_build_is_in_the_containers_control_groups_before_it_begins(
    hook: Hook, groups: str, joined: list[str]
) -> None:
    hook.container()
    shutil.rmtree(hook.cgroups)
    files = [hook.cgroups / folder / "cgroup.procs" for folder in joined]
    make_tree(hook.folder, {f"proc/{PID}/cgroup": f"{groups}\n"} | {str(f.relative_to(hook.folder)): "" for f in files})
    hook.fake_bin.add("nsenter", f"/bin/cat {' '.join(map(str, files))}")
    assert hook.run(NEXT).count("\n0") == len(files)
    shutil.rmtree(hook.cgroups)
    hook.fake_bin.add("nsenter")
    assert "not all bounds of the container hold for the build" in hook.run(NEXT)


@pytest.mark.allow_process(*TOOLS)
def test_a_build_that_fails_is_said_and_fails_nobody(hook: Hook) -> None:
    hook.fake_bin.add("nsenter", "exit 13")
    hook.container()
    assert f"ERROR: the NVIDIA driver's modules for kernel {NEXT} were not built (exit status 13)" in hook.run(NEXT)


@pytest.mark.allow_process(*TOOLS)
@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ("3: POSIX  ADVISORY  WRITE 4711 00:19:1 0 EOF", "no driver container holds"),
        ("3: FLOCK  ADVISORY  WRITE 0 FILE 0 EOF", "no driver container holds"),
        ("3: FLOCK  ADVISORY  WRITE -1 FILE 0 EOF", "no driver container holds"),
        ("", "no driver container holds"),
    ],
)
def test_without_a_holder_that_is_seen_nothing_is_entered(hook: Hook, listed: str, reason: str) -> None:
    hook.fake_bin.add("nsenter")
    hook.pid_file.write_text(f"{PID}\n")
    found = hook.pid_file.stat()
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    hook.container(listed=listed.replace("FILE", file))
    assert reason in hook.run(NEXT) and hook.fake_bin.calls == []


@pytest.mark.allow_process(*TOOLS)
def test_a_dead_containers_pid_file_leads_to_no_innocent(hook: Hook) -> None:
    hook.fake_bin.add("nsenter")
    assert "no driver container runs" in hook.run(NEXT)
    hook.container("/usr/sbin/nginx", "-g", "nvidia-driver rules")
    said = hook.run(NEXT)
    assert f"pid {PID} holds {hook.pid_file} and is no driver container (/usr/sbin/nginx -g" in said
    assert hook.fake_bin.calls == []
    shutil.rmtree(hook.proc)
    assert "no driver container holds" in hook.run(NEXT) and hook.fake_bin.calls == []


@pytest.mark.allow_process(*TOOLS)
def test_what_it_lacks_is_named(hook: Hook) -> None:
    hook.container()
    assert "without a kernel release" in hook.run()
    assert "nsenter (util-linux) is missing" in hook.run(NEXT)


@pytest.mark.allow_process(*TOOLS)
def test_the_lock_of_a_real_process_is_found(hook: Hook) -> None:
    hook.fake_bin.add("nsenter")
    with hook.pid_file.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        locks = Path("/proc/locks").read_text()
        make_tree(hook.proc, {"locks": locks, f"{os.getpid()}/cmdline": "driverctr\0init\0"})
        hook.run(NEXT)
    assert hook.fake_bin.calls[0].startswith(f"nsenter -t {os.getpid()} ")


def test_the_hook_is_there_for_as_long_as_we_serve(paths: Paths, log: Log) -> None:
    paths.kernel_hook.parent.mkdir(parents=True)
    with kernelhook.installed(paths, log):
        assert paths.kernel_hook.read_text() == kernelhook.SCRIPT.read_text()
        assert paths.kernel_hook.stat().st_mode & 0o777 == 0o755
    assert list(paths.kernel_hook.parent.iterdir()) == []


def test_what_a_killed_start_left_is_replaced_and_goes(paths: Paths, log: Log) -> None:
    folder = paths.kernel_hook.parent
    partial = f".{paths.kernel_hook.name}.x1.partial"
    make_tree(folder, {paths.kernel_hook.name: "#!/bin/bash\n# NVIDIA's own\n", "other": "", partial: "#!/bin"})
    with kernelhook.installed(paths, log):
        assert kernelhook.OURS in paths.kernel_hook.read_text()
    assert [path.name for path in folder.iterdir()] == ["other"]


def test_without_its_folder_there_is_no_hook(paths: Paths, log: Log) -> None:
    with kernelhook.installed(paths, log):
        assert not paths.kernel_hook.parent.exists()
    assert not paths.kernel_hook.parent.exists()


def test_a_hook_of_somebody_else_stays(paths: Paths, log: Log) -> None:
    paths.kernel_hook.parent.mkdir(parents=True)
    with kernelhook.installed(paths, log):
        paths.kernel_hook.write_text("#!/bin/sh\necho mine\n")
    assert paths.kernel_hook.read_text() == "#!/bin/sh\necho mine\n"


def test_a_hook_that_cannot_be_written_is_said_and_keeps_nothing_from_serving(paths: Paths, log: Log) -> None:
    make_tree(paths.root, {f"{paths.kernel_hook.relative_to(paths.root)}/in the way": ""})
    with kernelhook.installed(paths, log):
        pass
    said = log.stream.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "could not be written: Is a directory" in said
