"""The files in deploy/: compose, systemd and a pod start the same container as the `docker run` of the documents."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from driverctr import config as settings
from driverctr.settings import SETTINGS

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
OPERATING = (REPOSITORY / "docs/operating.md").read_text()
KUBERNETES = "1.30"
"""An old version that is still in use: what it knows, later ones know."""


def flags(command: str) -> set[str]:
    """The flags of a `docker run`, each as one word, in the long form; but those of name and restart."""
    command = command.replace("\\\n", " ").replace(" -v ", " --volume=").replace("--volume ", "--volume=")
    return {
        word for word in command.split() if word.startswith("--") and not re.match("--(name|restart|rm|detach)", word)
    }


def documented() -> set[str]:
    """The flags of the first `docker run` in the document."""
    (command, *_) = re.findall(r"docker run -d ((?:.*\\\n)*.*TAG)", OPERATING)
    return flags(f" {command}")


def pod() -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes/daemonset.yaml").read_text())
    (daemonset,) = [document for document in documents if document["kind"] == "DaemonSet"]
    found: dict[str, Any] = daemonset["spec"]["template"]["spec"]
    return found


def test_readme_and_the_document_start_the_same_container() -> None:
    (command,) = re.findall(r"docker run -d ((?:.*\\\n)*.*TAG)", (REPOSITORY / "README.md").read_text())
    assert (
        flags(f" {command}")
        == documented()
        == {
            "--privileged",
            "--pid=host",
            "--volume=/run/nvidia:/run/nvidia:rshared",
            "--volume=/var/lib/driverctr:/var/lib/driverctr",
        }
    )


def test_compose_starts_the_same_container() -> None:
    (service,) = yaml.safe_load((DEPLOY / "docker/compose.yaml").read_text())["services"].values()
    volumes = {f"--volume={volume}" for volume in service["volumes"]}
    assert volumes | {"--privileged", f"--pid={service['pid']}"} == documented() and service["privileged"] is True
    assert service["restart"] == "unless-stopped"
    assert int(service["stop_grace_period"].removesuffix("s")) > settings.load({}).stop_timeout


def test_the_unit_starts_the_same_container() -> None:
    unit = (DEPLOY / "systemd/nvidia-driver.service").read_text()
    (command,) = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", unit, re.MULTILINE)
    assert flags(command) == documented()
    stop, kill = (int(found) for found in re.findall(r"(?:stop --time |TimeoutStopSec=)(\d+)", unit))
    assert settings.load({}).stop_timeout < stop < kill
    named = set(re.findall(r"\$\{?(DRIVER_\w+)", unit))
    assert named == set(re.findall(r"^(\w+)=", (DEPLOY / "systemd/nvidia-driver.default").read_text(), re.MULTILINE))


def test_the_objects_are_what_kubernetes_expects() -> None:
    files = sorted(DEPLOY.glob("kubernetes/*.yaml"))
    assert files
    for file in files:
        for document in yaml.safe_load_all(file.read_text()):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_a_wrong_object_would_be_seen() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"nam": "x"}}, KUBERNETES, strict=True
        )


def test_the_pod_has_what_the_container_needs() -> None:
    (container,) = pod()["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert pod()["hostPID"] is True and container["securityContext"]["privileged"] is True
    assert set(mounts) == set(volumes)
    for flag in documented():
        found = re.fullmatch(r"--volume=([^:]+):([^:]+)(:rshared)?", flag)
        if found:
            host, path, shared = found.groups()
            (name,) = [name for name, mount in mounts.items() if mount["mountPath"] == path]
            assert volumes[name]["hostPath"]["path"] == host
            assert mounts[name].get("mountPropagation") == ("Bidirectional" if shared else None)


def test_the_pods_settings_are_valid_and_its_stop_ends_in_time() -> None:
    (container,) = pod()["containers"]
    given = {row["name"]: row["value"] for row in container["env"]}
    assert set(given) <= {row.variable for row in SETTINGS}
    config = settings.load(given)
    assert config.stop_timeout < pod()["terminationGracePeriodSeconds"]


def test_probes_ask_the_port_of_the_metrics() -> None:
    (container,) = pod()["containers"]
    (port,) = container["ports"]
    address = next(row["value"] for row in container["env"] if row["name"] == "METRICS_ADDRESS")
    assert address.rpartition(":")[2] == str(port["containerPort"])
    probes = [container[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")]
    assert [(probe["path"], probe["port"]) for probe in probes] == [
        ("/healthz", port["name"]),
        ("/readyz", port["name"]),
    ]
    assert "startupProbe" not in container, "it would cut a build off"


def test_the_pod_is_found_by_prometheus() -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes/daemonset.yaml").read_text()))
    (labels,) = [d["spec"]["template"]["metadata"]["labels"] for d in documents if d["kind"] == "DaemonSet"]
    monitor = yaml.safe_load((DEPLOY / "monitoring/podmonitor.yaml").read_text())["spec"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    (container,) = pod()["containers"]
    assert {end["port"] for end in monitor["podMetricsEndpoints"]} == {port["name"] for port in container["ports"]}
