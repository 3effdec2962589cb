"""What a container of the image does: labels, commands, verbs; and what our part of it weighs."""

from __future__ import annotations

import json
from pathlib import Path

import docker
import jsonschema
import pytest

import driverctr
from harness import image
from tests.image.conftest import Run

pytestmark = pytest.mark.image

OUR_LAYERS_MAX_BYTES = 60_000_000
COMMANDS = ("sh", "bash", "cat", "mkdir", "mv", "rm", "echo", "lsmod", "modprobe", "nvidia-smi", "ldconfig", "chroot")
MORE_COMMANDS = ("mount", "umount", "gcc-12", "make", "patch", "pahole", "nvidia-driver", "driverctr", "flock")


def test_commands_of_the_contract_are_on_path(run: Run) -> None:
    wanted = [*COMMANDS, *MORE_COMMANDS]
    found = run("sh", "-c", f"for c in {' '.join(wanted)}; do command -v $c >/dev/null || echo $c; done")
    assert (found.exit_status, found.stdout) == (0, "")


def test_modprobe_and_ldconfig_lie_where_neighbours_call_them(run: Run) -> None:
    assert run("sh", "-c", "test -x /sbin/modprobe && test -x /sbin/ldconfig").exit_status == 0


def test_labels(client: docker.DockerClient, tag: str) -> None:
    labels = client.images.get(tag).labels
    oci = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    for name in ("title", "description", "version", "source", "licenses", "revision", "created"):
        assert oci[name], name
    assert image.DEFAULT_DRIVER in oci["version"]
    assert image.DEFAULT_DRIVER in oci["description"]


def test_entry_and_environment(client: docker.DockerClient, tag: str) -> None:
    config = client.images.get(tag).attrs["Config"]
    assert config["Entrypoint"] == ["nvidia-driver", "init"]
    assert not config["Cmd"]
    assert {"NVIDIA_VISIBLE_DEVICES=void", f"DRIVER_VERSION={image.DEFAULT_DRIVER}"} <= set(config["Env"])


def test_python_and_libraries_stay_small(client: docker.DockerClient, tag: str) -> None:
    whole = client.images.get(tag)
    without = client.images.get(image.build(target=image.WITHOUT_DRIVERCTR))
    shared = without.attrs["RootFS"]["Layers"]
    assert whole.attrs["RootFS"]["Layers"][: len(shared)] == shared, "the same Dockerfile, the same layers below"
    added = whole.attrs["Size"] - without.attrs["Size"]
    assert 0 < added <= OUR_LAYERS_MAX_BYTES


@pytest.mark.parametrize("program", ["nvidia-driver", "driverctr"])
def test_unknown_verb_is_refused(run: Run, program: str) -> None:
    ran = run(program, "frobnicate")
    assert ran.exit_status == 2
    assert "frobnicate" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_unknown_flag_is_refused(run: Run) -> None:
    ran = run("nvidia-driver", "init", "--frobnicate")
    assert ran.exit_status == 2
    assert "--frobnicate" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_kernels_events_can_be_heard(run: Run) -> None:
    program = "from driverctr.facts.events import listening\nwith listening() as heard: print(heard.read())"
    ran = run("env", "PYTHONPATH=/opt/driverctr/lib", "python3", "-c", program)
    assert (ran.exit_status, ran.stdout.strip()) == (0, "()"), ran.stderr


def test_plan_without_privilege(run: Run) -> None:
    ran = run("driverctr", "plan", "--json", user="65534:65534")
    assert "Traceback" not in ran.stderr
    assert ran.exit_status == 0, ran.stderr
    shown = json.loads(ran.stdout)
    assert shown["steps"] and shown["blockers"][0]["code"] == "no-privilege"


def test_status_without_privilege_is_as_its_schema_says(run: Run) -> None:
    ran = run("driverctr", "status", "--json", user="65534:65534")
    assert (ran.exit_status, ran.stderr) == (30, "")
    schema = json.loads((Path(driverctr.__file__).parent / "status.schema.json").read_text())
    jsonschema.validate(json.loads(ran.stdout), schema)
    assert run("sh", "-c", "test -e /opt/driverctr/lib/driverctr/status.schema.json").exit_status == 0


def test_gpus_are_known_by_name(run: Run) -> None:
    program = "from driverctr.facts import pciids; from driverctr.paths import Paths; "
    program += "print(pciids.names(Paths(), 0x10de, {0x20b0})[0x20b0])"
    ran = run("env", "PYTHONPATH=/opt/driverctr/lib", "python3", "-c", program)
    assert ran.stdout == "GA100 [A100 SXM4 40GB]\n", ran.stderr


def test_dropping_what_we_do_not_need_is_no_lack_of_privilege(client: docker.DockerClient, tag: str) -> None:
    command = ["driverctr", "plan", "--json"]
    shown = client.containers.run(
        tag, command, entrypoint="", cap_add=["ALL"], cap_drop=["SYS_RESOURCE"], network_mode="host", remove=True
    )
    checks = {check["name"]: check for check in json.loads(shown)["checks"]}
    assert checks["privilege"]["result"] == "ok"


def test_probe_runs_from_bytecode(run: Run) -> None:
    ran = run("python3", "-ISv", "/usr/bin/nvidia-driver", "probe_nvidia_peermem")
    assert ran.exit_status == 0
    read = [line for line in ran.stderr.splitlines() if line.startswith("# code object from '/opt/driverctr/lib/")]
    assert any(line.endswith("/cli.cpython-311.pyc'") for line in read), ran.stderr
    assert [line for line in read if not line.endswith(".cpython-311.pyc'")] == []


@pytest.mark.parametrize("program", ["nvidia-smi", "nvidia-persistenced", "nvidia-modprobe", "nvidia-cuda-mps-control"])
def test_nvidias_programs_find_their_libraries(run: Run, program: str) -> None:
    ran = run("ldd", f"/usr/bin/{program}")
    assert ran.exit_status == 0
    assert "not found" not in ran.stdout


def test_a_remote_folder_can_be_signed_for_and_asked(run: Run) -> None:
    """Compiled libraries of others, stripped, on this image's Python."""
    made = run("driverctr", "store", "keygen", "/tmp/keys")
    assert made.exit_status == 0 and len(made.stdout.strip()) == 44
    asked = "import requests; print(requests.get('http://127.0.0.1:8000/').status_code)"
    serving = f'python3 -m http.server 8000 & sleep 2; PYTHONPATH=/opt/driverctr/lib python3 -c "{asked}"'
    assert run("sh", "-c", serving).stdout.splitlines()[-1] == "200"


def test_a_certificate_that_is_mounted_can_be_trusted(run: Run) -> None:
    place = "/usr/local/share/ca-certificates/own.crt"
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout /tmp/key -subj /CN=own -days 1 -out {place} 2>/dev/null"
    trusted = f"update-ca-certificates && openssl verify {place}"
    ran = run("sh", "-c", f"{made} && {trusted}")
    assert (ran.exit_status, ran.stdout.splitlines()[-1]) == (0, f"{place}: OK"), ran.stderr
