"""The labels of Node Feature Discovery: while the driver serves, of the driver that serves, and never longer."""

import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import driver_files
import pytest

from driverctr import config as settings
from driverctr import features, lifecycle, markers, pidlock, verbs
from driverctr.errors import Code
from driverctr.features import EXPIRY, FRESH, LIFE, Features
from driverctr.lifecycle import Start
from driverctr.log import Log
from driverctr.modules.former import Former
from driverctr.modules.loaded import Build
from driverctr.paths import FEATURES_DIR, Paths
from driverctr.plan import PlannedStep, StepName
from driverctr.steps import Gained, Tools
from driverctr.steps.markers import Publish, Withdraw
from driverctr.userspace.image import Image
from driverctr.userspace.listing import Listing
from driverctr.versions import DriverVersion
from tests.unit.conftest import FakeBin
from tests.unit.fake_life import Life
from tests.unit.fake_life import life as life
from tests.unit.good_node import ON_DISK, facts
from tests.unit.test_health import LOST, Host
from tests.unit.test_health import node as node

IMAGE = Image(DriverVersion("535.309.01"), (), "debian", "amd64", cuda_version="12.2")
PUBLISH, WITHDRAW = PlannedStep(StepName.PUBLISH, ""), PlannedStep(StepName.WITHDRAW, "")
VALUE = r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?"
"""What Kubernetes takes for a label's value."""


@pytest.fixture
def file(paths: Paths) -> Path:
    """Where the file is to be, in a folder that somebody mounted."""
    folder = paths.root / FEATURES_DIR[1:]
    folder.mkdir(parents=True)
    return folder / "driverctr"


def labels(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_labels_are_those_of_gpu_feature_discovery_and_ours_for_the_rest(file: Path, log: Log) -> None:
    features.of_driver("535.309.01", "open", "6.1.0-56-amd64", "12.2", file).publish(log)
    assert labels(file) == {
        "nvidia.com/cuda.driver-version.full": "535.309.01",
        "nvidia.com/cuda.driver-version.major": "535",
        "nvidia.com/cuda.driver-version.minor": "309",
        "nvidia.com/cuda.driver-version.revision": "01",
        "nvidia.com/cuda.driver.major": "535",
        "nvidia.com/cuda.driver.minor": "309",
        "nvidia.com/cuda.driver.rev": "01",
        "nvidia.com/cuda.runtime-version.full": "12.2",
        "nvidia.com/cuda.runtime-version.major": "12",
        "nvidia.com/cuda.runtime-version.minor": "2",
        "nvidia.com/cuda.runtime.major": "12",
        "nvidia.com/cuda.runtime.minor": "2",
        "feature.node.kubernetes.io/nvidia-driver.branch": "535",
        "feature.node.kubernetes.io/nvidia-driver.module-type": "open",
        "feature.node.kubernetes.io/nvidia-driver.kernel": "6.1.0-56-amd64",
    }
    assert file.stat().st_mode & 0o777 == 0o644 and [*file.parent.iterdir()] == [file]


def test_a_version_of_two_numbers_has_an_empty_revision_and_an_unknown_cuda_no_label() -> None:
    made = features.of_driver("550.120", "open", "6.8.0", "", None).labels
    assert made["nvidia.com/cuda.driver-version.revision"] == made["nvidia.com/cuda.driver.rev"] == ""
    assert not [name for name in made if "runtime" in name]
    assert features.of_driver("535.1-grid", "open", "6.8.0", "", None).labels["nvidia.com/cuda.driver.minor"] == "1"


@pytest.mark.parametrize("release", ["6.1.0-custom+", "5.14.0-570.el9~1.x86_64", "6.1." + "9" * 80, "6.1.0-+"])
def test_every_value_is_one_that_kubernetes_takes(release: str) -> None:
    made = features.of_driver("535.309.01", "open", release, "12.2", None).labels
    assert all(re.fullmatch(VALUE, value) for value in made.values()), made
    assert made["feature.node.kubernetes.io/nvidia-driver.kernel"].startswith("6.1." if release[0] == "6" else "5.14")


def test_the_file_expires_by_itself_and_says_when_as_nfd_reads_it(file: Path, log: Log) -> None:
    features.of_driver("535.1", "open", "6.1.0", "", file).publish(log)
    said = next(line for line in file.read_text().splitlines() if line.startswith(EXPIRY))
    moment = time.strptime(said.removeprefix("# +expiry-time="), "%Y-%m-%dT%H:%M:%SZ")
    assert abs(time.mktime(moment) - time.timezone - time.time() - LIFE) < 5
    assert abs(features.expiry(file) - time.time() - LIFE) < 5


@pytest.mark.parametrize("offset", [0.0, FRESH, LIFE * 2])
def test_it_is_written_anew_before_its_time_and_where_the_clock_was_set_back(
    file: Path, log: Log, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = features.of_driver("535.1", "open", "6.1.0", "", file)
    made.publish(log)
    written = file.stat().st_ino
    made.refresh(log)
    assert file.stat().st_ino == written, "what is fresh is left"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600 if offset > LIFE else now + offset)
    made.refresh(log)
    assert (file.stat().st_ino != written) is (offset > 0)
    assert features.expiry(file) >= time.time() + FRESH


@pytest.mark.parametrize("content", ["", "# +expiry-time=tomorrow\n", "\xff"])
def test_what_does_not_tell_its_time_is_written_anew(file: Path, log: Log, content: str) -> None:
    file.write_text(content)
    features.of_driver("535.1", "open", "6.1.0", "", file).refresh(log)
    assert labels(file)["nvidia.com/cuda.driver.major"] == "535"


def test_nobody_finds_a_part_of_it_and_what_a_killed_start_left_goes(
    file: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed: list[str] = []
    rename = Path.replace
    monkeypatch.setattr(Path, "replace", lambda part, to: renamed.append(part.name) or rename(part, to))  # type: ignore[func-returns-value]  # for its side effect
    features.of_driver("535.1", "open", "6.1.0", "", file).publish(log)
    assert renamed and all(name.startswith(".") for name in renamed), "NFD leaves out what begins with a dot"
    (file.parent / ".driverctr.7-0.partial").write_text("nvidia.com/")
    (file.parent / ".other.7-0.partial").touch()
    features.withdraw(file, log)
    assert [path.name for path in file.parent.iterdir()] == [".other.7-0.partial"]


def test_what_cannot_be_written_or_removed_is_told_and_fails_nothing(file: Path, log: Log) -> None:
    file.mkdir()
    features.of_driver("535.1", "open", "6.1.0", "", file).publish(log)
    features.withdraw(file, log)
    said = log.stream.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert f"{file} could not be written" in said and f"{file} could not be removed" in said


def with_(life: Life, **environment: str) -> Tools:
    return replace(life.start.tools, config=settings.load(environment))


def test_without_the_folder_there_are_no_labels_and_who_named_it_is_told(life: Life, paths: Paths) -> None:
    gained = Publish().apply(life.start.tools, PUBLISH, facts(image=IMAGE), Gained(Build(ON_DISK))).gained
    assert gained.features.file is None and not (paths.root / "etc").exists()
    assert "NFD_FEATURES_DIR" not in life.log
    Publish().apply(with_(life, NFD_FEATURES_DIR="/features"), PUBLISH, facts(), Gained(Build(ON_DISK)))
    assert "no labels: NFD_FEATURES_DIR=/features is no folder here" in life.log


def test_labels_come_with_ready_and_go_with_it(life: Life, file: Path) -> None:
    tools = life.start.tools
    done = Publish().apply(tools, PUBLISH, facts(image=IMAGE), Gained(Build(ON_DISK)))
    assert done.gained.features.file == file and done.undo is not None
    assert labels(file)["nvidia.com/cuda.runtime-version.full"] == "12.2"
    Publish().undo(tools, done.undo)
    assert not file.exists()
    file.touch()
    Withdraw().apply(tools, WITHDRAW, facts(), Gained())
    assert not file.exists()


def test_another_folder_may_be_named(life: Life, paths: Paths, file: Path) -> None:
    (paths.root / "features").mkdir()
    Publish().apply(with_(life, NFD_FEATURES_DIR="/features"), PUBLISH, facts(), Gained(Build(ON_DISK)))
    assert labels(paths.root / "features/driverctr") and not file.exists()


def test_what_was_rolled_back_to_is_labelled_by_its_own_versions(life: Life, file: Path) -> None:
    old = Build(replace(ON_DISK, driver_version="470.1"))
    kept = Listing("470.1", "debian-amd64", (), cuda_version="11.4")
    known = facts(image=IMAGE, supply=replace(facts().supply, former=Former(userspace=kept)))
    Publish().apply(life.start.tools, PUBLISH, known, Gained(old, substitutes={"usr/bin": Path("/x")}))
    assert labels(file)["nvidia.com/cuda.driver-version.full"] == "470.1"
    assert labels(file)["nvidia.com/cuda.runtime-version.full"] == "11.4"
    Publish().apply(life.start.tools, PUBLISH, facts(image=IMAGE), Gained(old))
    assert not [name for name in labels(file) if "runtime" in name], "our image's CUDA is not that of another driver"


def test_a_driver_that_does_not_serve_has_no_labels_until_it_does_again(node: Host) -> None:
    file = node.paths.root / "features"
    node.health.features = Features({"nvidia.com/cuda.driver.major": "535"}, file)
    node.health.look()
    assert labels(file) == {"nvidia.com/cuda.driver.major": "535"}
    node.wrong = [LOST]
    node.health.look()
    assert not file.exists() and not node.marked
    node.wrong = []
    node.health.look()
    assert file.exists() and node.marked


def test_a_start_takes_away_first_what_a_killed_one_left(
    life: Life, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.touch()
    there: list[bool] = []
    monkeypatch.setattr(Start, "run", lambda self: there.append(file.exists()))
    monkeypatch.setattr(lifecycle, "become_subreaper", lambda: None)
    monkeypatch.setattr(life.start.tools.signals, "install", lambda: None, raising=False)
    lifecycle.init(life.start.tools)
    assert there == [False]


def test_a_start_that_is_refused_before_the_lock_takes_them_away_too(
    paths: Paths, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "Paths", lambda: paths)
    file.touch()
    monkeypatch.setenv("VERIFY_DEPTH", "deep")
    with pidlock.held(paths.pid_file):
        assert verbs.run(["init"]) == Code.BAD_SETTING.exit_status
        assert file.exists(), "they are of the container that lives"
    assert verbs.run(["init"]) == Code.BAD_SETTING.exit_status
    assert not file.exists() and not (paths.run / markers.CONTAINER).exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo 12020", "12.2"), ("echo 13000", "13.0"), ("echo 0", ""), ("exit 1", ""), ("echo no", "")],
)
def test_the_library_itself_tells_its_cuda_when_the_image_is_built(
    tmp_path: Path, fake_bin: FakeBin, script: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "root/usr/lib/x86_64-linux-gnu/libcuda.so.535.309.01"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"\x7fELF")
    monkeypatch.setattr(sys, "executable", os.fspath(fake_bin.add("python3", script)))
    assert driver_files.cuda_version(tmp_path / "root", "535.309.01") == said
    assert driver_files.cuda_version(tmp_path / "root", "535.1") == "", "another version's library is not ours"
    assert len(fake_bin.calls) > 0 and str(library) in fake_bin.log.read_text()
