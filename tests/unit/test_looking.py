"""Verbs that only look: they work when things are bad, above all when a setting is what is wrong."""

import json
from argparse import Namespace
from dataclasses import replace

import pytest

from driverctr import bundle, bundleparts, conceal, doctor, doctorverb, history, parser, survey, verbs, wishes
from driverctr.config import Config
from driverctr.errors import Code, DriverError
from driverctr.history import Outcome, Start
from driverctr.paths import Paths
from driverctr.plan import Plan
from driverctr.run import Runner
from driverctr.steps import Tools
from driverctr.survey import Facts
from tests.unit import status_nodes
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.good_node import facts
from tests.unit.status_nodes import PID
from tests.unit.test_bundle import with_environment

WRONG = "RETRY='perhaps' is not one of auto, always, never"
TOKEN = "C0ntr4ctT0ken42"


@pytest.fixture
def node(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A node with a store, and a setting that is not valid."""
    make_tree(status_nodes.bare(paths).root, {"srv/store/entries": None, "proc/sys/kernel/ostype": "Linux"})
    monkeypatch.setattr(verbs, "Paths", lambda: paths)
    monkeypatch.setattr(conceal, "KNOWN", conceal.Known())
    monkeypatch.setenv("RETRY", "perhaps")
    monkeypatch.setenv("STORE_DIR", "/srv/store")
    return paths


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["status", "--wait", "ready", "--timeout", "0"], Code.NOT_READY.exit_status),
        (["who"], 0),
        (["who", "--json"], 0),
        (["history"], 0),
        (["explain", "in-use"], 0),
        (["store", "list"], 0),
    ],
)
def test_who_looks_gets_an_answer_whatever_the_settings_are(
    node: Paths, words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verbs.run(words) == code
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["init"],
        ["load"],
        ["build"],
        ["update"],
        ["plan"],
        ["unload"],
        ["reload_nvidia_peermem"],
        ["store", "prune"],
        ["store", "verify"],
    ],
)
def test_who_acts_or_plans_is_refused(node: Paths, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert verbs.run(words) == Code.BAD_SETTING.exit_status
    assert WRONG in capsys.readouterr().err


def test_the_settings_that_are_valid_count_and_what_does_not_is_said(
    node: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    history.record(node.root / "srv/store", Start(1000.0, 9, Outcome.READY, kernel_release="6.1.0-56-amd64"))
    assert verbs.run(["history"]) == 0
    told = capsys.readouterr()
    assert "6.1.0-56-amd64" in told.out
    assert f"{WRONG}: here it counts as not given. Set RETRY to one of" in told.err
    assert verbs.run(["who"]) == 0
    assert not capsys.readouterr().err, "it asks for no setting"


def checks_of(text: str) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(text)["checks"]}


def test_doctor_makes_its_checks_and_that_of_the_settings_is_the_first(
    node: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(survey, "survey", lambda *_: facts())
    assert verbs.run(["doctor", "--json"]) == Code.BAD_SETTING.exit_status
    found = checks_of(capsys.readouterr().out)
    assert list(found)[:2] == ["settings", "privilege"]
    assert (found["settings"]["result"], found["settings"]["code"]) == ("refused", "bad-setting")
    assert WRONG in found["settings"]["evidence"] and "Set RETRY to" in found["settings"]["remedy"]
    assert verbs.run(["doctor"]) == Code.BAD_SETTING.exit_status
    assert capsys.readouterr().out.splitlines()[-1].startswith("Refused: settings; `init` would end with exit status 3")
    monkeypatch.delenv("RETRY")
    assert verbs.run(["doctor", "--json"]) == 0
    assert checks_of(capsys.readouterr().out)["settings"]["result"] == "ok"


def test_a_driver_version_that_the_image_does_not_hold_is_a_finding_of_doctor(
    node: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(paths: Paths, config: Config) -> Facts:
        known = facts()
        wishes.make_wish(config, known.image, "6.1.0")
        return known

    monkeypatch.setattr(survey, "survey", look)
    monkeypatch.setenv("DRIVER_VERSION", "470.1")
    assert verbs.run(["doctor", "--json"]) == Code.BAD_SETTING.exit_status
    settings = checks_of(capsys.readouterr().out)["settings"]
    assert WRONG in settings["evidence"] and "DRIVER_VERSION=470.1, but this image holds" in settings["evidence"]


@pytest.fixture
def tools(paths: Paths, runner: Runner, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """Of who was chrooted into the driver root: the container's own environment has a secret that ours has not."""
    monkeypatch.setattr(conceal, "KNOWN", conceal.Known())
    container = Paths(status_nodes.in_driver_root(paths).root.parent / "container")
    environ = f"STORE_DIR=/srv/store\0RETRY=always\0MIRROR_TOKEN={TOKEN}\0"
    make_tree(container.root, {f"proc/{PID}/environ": environ, "proc/sys/kernel/ostype": "Linux"})
    make_tree(paths.root, {f"proc/{PID}/environ": environ})
    (container.run / "note").write_text(f"fetched with {TOKEN}\n")
    return with_environment(paths, runner, fake_bin, RETRY="never")


def doctor_arguments(*words: str) -> Namespace:
    return Namespace(**vars(parser.make_parser().parse_args(["doctor", *words])), refused={}, given={"RETRY": "never"})


def test_from_the_driver_root_doctor_looks_where_the_container_is_and_takes_its_settings(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[Paths, str]] = []

    def look(paths: Paths, config: Config) -> Facts:
        seen.append((paths, config.retry))
        return facts()

    monkeypatch.setattr(survey, "survey", look)
    assert doctorverb.run(tools, doctor_arguments()) == 0
    ((paths, retry),) = seen
    assert paths.root == tools.paths.proc / str(PID) / "root" and paths.mounts is not None
    assert paths.pid_file.exists() and retry == "always"


def test_from_the_driver_root_the_bundle_has_what_the_container_has_and_none_of_its_secrets(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "survey", lambda *_: facts())
    arguments = doctor_arguments("--bundle", "-")
    tools = doctorverb.take_vantage(tools, arguments)
    scene = bundleparts.Scene(tools, (), arguments.given)
    found = {member.name: member.content.decode() for member in bundle.gather(bundleparts.PARTS, scene)}
    assert json.loads(found["status.json"])["ready"] is True and "ready" in found["status.txt"]
    assert '"phase": "ready"' in found["status-file.json"]
    assert "fetched with ..." in found["markers.txt"] and not [name for name in found if TOKEN in found[name]]
    assert json.loads(found["settings.json"])["given"]["STORE_DIR"] == "/srv/store"
    assert json.loads(found["settings-running.json"]) == {"RETRY": "always", "STORE_DIR": "/srv/store"}


def test_from_the_driver_root_of_a_dead_container_its_folder_is_found_and_our_settings_have_to_do(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tools.paths.proc / f"{PID}/root").unlink()
    (tools.paths.proc / "locks").write_text("")
    seen = doctorverb.take_vantage(tools, doctor_arguments())
    assert seen.paths.beside == tools.paths.proc / "1/root" and seen.paths.status_file.is_file()
    assert seen.config.retry == "never"


def test_another_container_judges_its_own_image_and_conceals_what_the_one_that_runs_was_given(
    paths: Paths, runner: Runner, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conceal, "KNOWN", conceal.Known())
    status_nodes.hold(status_nodes.bare(paths))
    other = paths.root.parent / "other"
    make_tree(paths.root, {f"proc/{PID}/environ": f"MIRROR_TOKEN={TOKEN}\0", f"proc/{PID}/root": f"-> {other}"})
    other.mkdir()
    tools = with_environment(paths, runner, fake_bin)
    assert doctorverb.take_vantage(tools, doctor_arguments()) == replace(tools, paths=paths)
    assert conceal.conceal(f"with {TOKEN}") == "with ..."


def test_an_error_without_a_remedy_has_that_of_its_code() -> None:
    refused = [DriverError(Code.BAD_SETTING, "A", "B"), DriverError(Code.BAD_SETTING, "C")]
    (check,) = doctor.with_settings(Plan("driver 1", ()), refused).checks
    assert check.evidence == "A; C" and check.remedy.startswith("B; ") and len(check.remedy) > len("B; ")
