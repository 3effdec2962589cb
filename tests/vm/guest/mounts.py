"""On the host in the virtual machine: containers publish the driver root, and the host's view of it is checked."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, "/mnt/src")

from driverctr.facts import mounttable

RUN = Path("/run/nvidia")
DRIVER = RUN / "driver"
SOCKETS = Path("/run/agents")
VERSION = "999.99.99"
SEARCH_PATH = Path("/sys/module/firmware_class/parameters/path")
MOFED = Path("/run/mellanox/drivers")
SHARED = (f"{RUN}:{RUN}:rshared",)
WATCH = """
import os, sys
fails = tries = 0
while not os.path.exists(sys.argv[1]):
    tries += 1
    try: os.stat("/run/nvidia/driver/usr/bin/python3")
    except OSError: fails += 1
    if tries == 1: print("looking", flush=True)
print(fails, tries)
"""


class Container:
    """A container with an agent in it."""

    def __init__(self, runtime: str, name: str, volumes: tuple[str, ...] = SHARED, *options: str) -> None:
        self.runtime, self.name = runtime, name
        shared = ("/mnt/src:/src:ro", "/mnt/guest:/guest:ro", f"{SOCKETS}:{SOCKETS}", f"{MOFED}:{MOFED}:rslave")
        all_volumes = (*volumes, *shared)
        words = [word for volume in all_volumes for word in ("-v", volume)]
        image = "small" if runtime == "docker" else "/images/small"
        place = SOCKETS / name
        place.unlink(missing_ok=True)
        self.shell(
            f"run_container {runtime} {name} {image} {' '.join(words)} {' '.join(options)} --stop-timeout=0 "
            f"-e PYTHONPATH=/src -e PYTHONPYCACHEPREFIX={SOCKETS}/pycache -- python3 -u /guest/agent.py {place}"
        )
        self.connection = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 120
        while self.connection.connect_ex(str(place)):
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} does not answer:\n" + self.shell(f"container {runtime} logs {name} 2>&1"))
            time.sleep(0.1)
        self.stream = self.connection.makefile("rw")

    @staticmethod
    def shell(command: str) -> str:
        """Run a line with the helpers of the VM host."""
        done = subprocess.run(
            ["bash", "-c", f". /usr/lib/vm-host/lib.sh; {command}"], stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    def ask(self, *words: Any) -> Any:
        """Have something done; returns the result, or the error as a dict where one is expected."""
        self.stream.write(json.dumps(words) + "\n")
        self.stream.flush()
        line = self.stream.readline()
        answer = json.loads(line) if line else {"error": "the agent ended", "code": ""}
        return answer.get("result", answer)

    def do(self, *words: Any) -> None:
        """Have something done that must work."""
        answer = self.ask(*words)
        assert answer is None, f"{self.name} {words}: {answer}"

    def kill(self) -> None:
        """Its process is gone, what the runtime keeps of it stays."""
        self.connection.close()
        self.shell(f"container {self.runtime} kill {self.name} >/dev/null")

    def remove(self) -> None:
        """By force, as after a crash."""
        self.connection.close()
        self.shell(f"container {self.runtime} rm -f {self.name} >/dev/null")


def host_layers() -> int:
    """How many trees the host sees."""
    return len(mounttable.layers(mounttable.read(), DRIVER))


# Reads a file of the root it runs from, and imports from it, when it is told to end.
FROM_THE_ROOT = """
import signal, sys
def end(*_):
    import json
    open("/etc/debian_version").read()
    print("went on", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("running", flush=True)
while True:
    signal.pause()
"""


def leftovers() -> list[str]:
    """Mounts below /run/nvidia, as the host sees them."""
    return [mount.target for mount in mounttable.read() if mount.target.startswith(f"{RUN}/")]


@contextlib.contextmanager
def watched(what: str) -> Iterator[None]:
    """Look for the tree all the time, on the host and in a receiving namespace; it must always be there."""
    stop = Path("/run/stop-watching")
    stop.unlink(missing_ok=True)
    words = ["python3", "-c", WATCH, str(stop)]
    watchers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for command in (words, ["unshare", "-m", "--propagation", "slave", *words])
    ]
    for watcher in watchers:
        assert watcher.stdout is not None and watcher.stdout.readline() == "looking\n"
    try:
        yield
    finally:
        time.sleep(0.5)  # they look at what is left, too
        stop.touch()
        counts = [watcher.communicate()[0].split() for watcher in watchers]
    print(f"  {what}: failures/looks {counts}")
    for fails, tries in counts:
        assert int(fails) == 0 and int(tries) > 100, (what, counts)


def check_tree(container: Container) -> None:
    """One tree, with what neighbours need and nothing they must not see."""
    assert host_layers() == 1, leftovers()
    for needed in (
        "proc/1/status",
        "dev/null",
        "sys/module",
        "usr/bin/python3",
        f"lib/firmware/nvidia/{VERSION}/gsp_test.bin",
    ):
        assert (DRIVER / needed).exists(), needed
    for hidden in ("drivers", "run/secrets", "run/nvidia", "run/mellanox/drivers", "src", "guest"):
        assert not (DRIVER / hidden).is_dir() or not list((DRIVER / hidden).iterdir()), hidden
    assert (DRIVER / "etc/resolv.conf").read_text() == container.ask("read", "/etc/resolv.conf")
    own = container.ask("own")
    assert own == {"proc": True, "dev": True, "sys": True, "staging": [], "root": "private", "ours": True}, own


def check_nothing_left(*containers: Container) -> None:
    """The host as it was, and the containers with mounts of their own intact."""
    assert leftovers() == [], leftovers()
    assert host_layers() == 0
    for container in containers:
        own = container.ask("own")
        assert own["proc"] and own["dev"] and own["sys"] and not own["staging"] and not own["ours"], own


def firmware_below_a_mount(a: Container) -> None:
    """The operator's mount over /lib/firmware hides the image's: copied there, and the search path set and blanked."""
    placed = a.ask("firmware", VERSION)
    assert placed == {"path_set": True, "placed": [f"/lib/firmware/nvidia/{VERSION}/gsp_test.bin"]}, placed
    assert (DRIVER / f"lib/firmware/nvidia/{VERSION}/gsp_test.bin").is_file()
    assert SEARCH_PATH.read_text().strip() == "/run/nvidia/driver/lib/firmware"
    a.do("firmware-undo", placed)
    assert SEARCH_PATH.read_bytes() in (b"", b"\n"), SEARCH_PATH.read_bytes()
    assert not (DRIVER / f"lib/firmware/nvidia/{VERSION}").exists()


def succession(a: Container, b: Container) -> None:
    """A publishes again and again; B takes over while A lives; what A does then harms nothing; B goes.

    Who runs from the root of before the swaps goes on.
    """
    a.do("export")
    check_tree(a)
    user = subprocess.Popen(["chroot", str(DRIVER), "python3", "-c", FROM_THE_ROOT], stdout=subprocess.PIPE, text=True)
    assert user.stdout is not None and user.stdout.readline() == "running\n"
    with watched("100 swaps, then another container"):
        a.do("export", 100)
        check_tree(a)
        b.do("export")
        check_tree(b)
        a.do("withdraw")
        check_tree(b)
    user.terminate()
    assert (user.stdout.read(), user.wait()) == ("went on\n", 0)
    (MOFED / "later").mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "later", str(MOFED / "later")], check=True)
    (MOFED / "later/file").touch()
    assert b.ask("exists", f"{MOFED}/later/file") is True
    subprocess.run(["umount", str(MOFED / "later")], check=True)
    for _ in range(2):
        b.do("withdraw")
        check_nothing_left(a, b)


def killed_and_kept(a: Container, b: Container) -> None:
    """The other container was killed, and is removed only when its tree has long been replaced."""
    a.do("export")
    a.kill()
    assert host_layers() == 1, leftovers()
    with watched("replacing the tree of one that was killed"):
        b.do("export")
        check_tree(b)
        a.remove()
        check_tree(b)
    b.do("withdraw")
    check_nothing_left(b)


def inheritance(a: Container, b: Container) -> None:
    """Whatever another container left is replaced without a gap, and gone in the end; the last left by dying."""
    for deeds in (["export"], ["nvidia"], ["nvidia", "nvidia"], ["export", "crash"]):
        for deed in deeds:
            a.ask(deed)
        if "crash" in deeds:
            a.remove()
        layers = host_layers()
        assert layers > 0, deeds
        with watched(f"replacing {'+'.join(deeds)}, {layers} layers"):
            b.do("export")
            check_tree(b)
        b.do("withdraw")
        check_nothing_left(b)


def refusals(runtime: str) -> None:
    """Not shared with the host: said, with the flag to give."""
    private = Container(runtime, "private", (f"{RUN}:{RUN}",))
    answer = private.ask("export")
    assert answer["code"] == "not-shared" and "-v /run/nvidia:/run/nvidia:rshared" in answer["error"], answer
    private.remove()
    assert leftovers() == []


def main(runtime: str) -> None:
    """Run all under one runtime."""
    SOCKETS.mkdir()
    MOFED.mkdir(parents=True)
    (DRIVER / "lib/firmware").mkdir(parents=True)
    if runtime == "docker":
        Container.shell("start_docker && docker import /mnt/root/root.tar small >/dev/null")
    a = Container(runtime, "former", (*SHARED, f"{DRIVER}/lib/firmware:/lib/firmware"))
    b = Container(runtime, "latter", SHARED, "--pid=host")
    passed(firmware_below_a_mount, a)
    passed(succession, a, b)
    passed(inheritance, a, b)
    passed(killed_and_kept, Container(runtime, "killed"), b)
    b.remove()
    passed(refusals, runtime)


def passed(scenario: Callable[..., None], *arguments: Any) -> None:
    """Run a scenario and say how long it took."""
    started = time.monotonic()
    scenario(*arguments)
    print(f"{scenario.__name__} passed in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1])
