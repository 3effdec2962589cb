"""Secrets planted wherever one may lie: whole starts and verbs run, and none is told anywhere."""

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr import bringup, lifecycle, status, stopping, survey, verbs
from driverctr import config as settings
from driverctr.build import COMPILED
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts import holders, processes
from driverctr.facts.holders import Holder
from driverctr.lifecycle import Start
from driverctr.log import Format, Log
from driverctr.modules.built import Built
from driverctr.packages import ubuntupro
from driverctr.packages.apt import Apt
from driverctr.packages.repofiles import gather
from driverctr.paths import Paths
from driverctr.plan import StepName
from driverctr.signals import Signals
from driverctr.survey import Observation
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.fake_apt import HEADERS, add, apt, pauses, root
from tests.unit.fake_life import FakeStep
from tests.unit.good_node import facts
from tests.unit.test_built import WISH, built
from tests.unit.test_lifecycle import core

__all__ = ["add", "apt", "built", "pauses", "root"]

PLANTED = (
    "C1planted0token",
    "planted1password",
    "planted2proxy",
    "planted3apikey",
    "planted4header",
    "planted5body",
    "planted6option",
    "planted7signature",
    "planted8key",
    "planted9netrc",
    "plantedAdatabase",
)
(PRO, REMOTE, PROXY, API, HEADER, BODY, OPTION, SIGNATURE, KEY, NETRC, DATABASE) = PLANTED
PEM = f"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0{KEY}\n-----END PRIVATE KEY-----"

ENVIRONMENT = {
    "UBUNTU_PRO_TOKEN": PRO,
    "REMOTE_URL": f"https://joe:{REMOTE}@modules.example/driverctr",
    "https_proxy": f"http://joe:{PROXY}@proxy.example:3128",
    "NGC_API_KEY": API,
    "DATABASE_URL": f"postgres://joe:{DATABASE}@db.example/x",
    "RETRY": "never",
}

WORDS = {
    "a tool's words, with an address": f"Err https://joe:{REMOTE}@deb.example/x 401",
    "the body of an answer": json.dumps({"error": "denied", "access_token": BODY}),
    "headers": f"> Authorization: Bearer {HEADER}\n> Proxy-Authorization: Basic {HEADER}",
    "a signed address": f"https://s3.example/k?X-Amz-Signature={SIGNATURE}&x=1 failed",
    "a command line": f"`tool --password {OPTION} --api-key={OPTION}` failed",
    "a private key": PEM,
    "what was given, alone": f"{PRO}, {PROXY}; {API}! {DATABASE}",
    "netrc": f"machine deb.example login joe password {NETRC}",
}


def found_in(text: str) -> list[str]:
    return [secret for secret in PLANTED if secret in text]


@pytest.fixture
def holder(paths: Paths) -> Holder:
    """A process that uses the GPU, with secrets in its command line."""
    words = ["train.py", "--api-key", f"first {OPTION}", f"DB_PASSWORD={OPTION}", f"https://joe:{REMOTE}@x.example"]
    stat = "42 (train.py) S " + " ".join(["0"] * 18) + " 7"
    make_tree(paths.root, {"proc/42/cmdline": "\0".join(words) + "\0", "proc/42/stat": stat})
    process = processes.read(paths, 42)
    assert process is not None
    return Holder(42, processes.read_command(paths, process), 0.0, (("nvidia", 2),))


@pytest.fixture
def node(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    """Verbs run on it, with secrets in the environment; what is surveyed is to be patched."""
    make_tree(paths.root, {"dev/termination-log": "", "run/nvidia": None, "proc/self/mountinfo": ""})
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(verbs, "Paths", lambda: paths)
    monkeypatch.setattr(Signals, "install", lambda self: None)
    monkeypatch.setattr(lifecycle, "become_subreaper", lambda: None)
    monkeypatch.setattr(stopping, "check_free", lambda tools: None)
    monkeypatch.setattr(stopping, "BUSY_WAIT", 0.0)
    monkeypatch.setattr(survey, "survey", lambda *_: facts())
    yield paths


def everything(paths: Paths) -> str:
    """All that was written on the node, but for the command lines that it has of others."""
    files = (file for file in paths.root.rglob("*") if file.is_file() and not file.is_relative_to(paths.proc))
    return "\n".join(f"{file}: {file.read_text(errors='replace')}" for file in files)


def steps(monkeypatch: pytest.MonkeyPatch) -> dict[StepName, FakeStep]:
    made = {name: FakeStep(name, []) for name in StepName}
    monkeypatch.setattr(bringup, "STEPS", tuple(made.values()))
    return made


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("end", ["failure", "bug", "degraded", "undo"])
def test_a_whole_start_tells_none(
    node: Paths, kind: str, form: Format, end: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_FORMAT", form.value)
    made, words = steps(monkeypatch), WORDS[kind]

    def wait(start: Start) -> None:
        start.tell(degraded=(words,), problems=({"code": "not-ready", "message": words, "kernel_log": words},))
        assert not found_in(node.status_file.read_text())
        raise Stopped(signal.SIGTERM) if end != "bug" else ValueError(words)

    monkeypatch.setattr(Start, "wait", wait)
    if end in ("failure", "undo"):
        made[StepName.VERIFY].failures[""] = DriverError(Code.GPU_INIT_FAILED, words, f"Do not {words}")
    if end == "undo":
        made[StepName.LOAD].failures["undo"] = DriverError(Code.UNLOAD_FAILED, words)
    status_of_exit = verbs.run(["init"])
    said = capsys.readouterr()
    told = said.out + said.err + everything(node)
    assert status_of_exit == {"failure": 31, "undo": 31, "bug": 70, "degraded": 0}[end]
    assert "verify: " in said.err and not found_in(told), told
    if end != "degraded":
        assert json.loads(node.termination_log.read_text())["message"]
        document = status.read(node)
        assert document is not None and document["failure"]["message"]


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize(
    "words",
    [
        ["plan"],
        ["plan", "--json"],
        ["doctor"],
        ["doctor", "--json"],
        ["status"],
        ["status", "--json"],
        ["who"],
        ["who", "--json"],
        ["init"],
    ],
    ids=" ".join,
)
def test_no_verb_tells_one_of_who_uses_the_gpu_or_of_what_was_set_aside(
    node: Paths,
    holder: Holder,
    words: list[str],
    form: Format,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOG_FORMAT", form.value)
    aside = [
        Observation(StepName.MODULES, source, DriverError(Code.NO_MODULES, text))
        for source, text in zip(("store", "on-disk", "remote", "build"), WORDS.values(), strict=False)
    ]
    seen = facts(stack={"nvidia": core(2)}, holders=(holder,), observations=tuple(aside))
    monkeypatch.setattr(survey, "survey", lambda *_: seen)
    monkeypatch.setattr("driverctr.facts.modules.read_stack", lambda *_: seen.stack)
    monkeypatch.setattr(holders, "read", lambda *_: seen.holders)
    steps(monkeypatch)
    make_tree(node.root, {"run/nvidia/validations/.driver-ctr-ready": f"GDS_ENABLED=false\nX_TOKEN={BODY}\n"})
    verbs.run(words)
    said = capsys.readouterr()
    told = said.out + said.err + everything(node).replace(f"X_TOKEN={BODY}", "")
    assert "train.py --api-key ..." in told and not found_in(told), told
    if "--json" in words:
        assert json.loads(said.out)


@pytest.mark.parametrize("variable", ["REMOTE_URL", "ARCHIVE_URL", "UBUNTU_PRO_TOKEN", "LOG_LEVEL", "MODULES_DIR"])
def test_a_setting_that_is_refused_does_not_tell_it(
    node: Paths, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scheme = "" if variable == "ARCHIVE_URL" else "x://"
    monkeypatch.setenv(variable, f"{scheme}joe:{REMOTE}@y z?token={BODY} --password {OPTION}")
    assert verbs.run(["init"]) == Code.BAD_SETTING.exit_status
    told = capsys.readouterr().err + everything(node)
    assert variable in told and not found_in(told)


def test_what_apt_reads_does_not_come_back_in_its_words(
    tmp_path: Path, fake_bin: FakeBin, apt: Apt, root: Path, add: Callable[..., None], log: Log
) -> None:
    make_tree(
        root,
        {
            "etc/apt/auth.conf.d/a.conf": f"machine deb.example\nlogin joe\npassword {NETRC}\n",
            "etc/apt/apt.conf.d/proxy": f'Acquire::http::Proxy "http://joe:{PROXY}@proxy.example:3128";\n',
            "etc/apt/sources.list.d/own.list": f"deb https://joe:{REMOTE}@deb.example/debian stable main\n",
        },
    )
    words = f"E: 401 for joe with {NETRC} by {PROXY} and then {REMOTE}"
    fake_bin.add("apt-get", f"echo '{words}' >&2; exit 100")
    fake_bin.add("apt-cache", "exit 1")
    with pytest.raises(DriverError) as failed:
        apt.fetch(HEADERS, tmp_path / "into")
    told = f"{failed.value} {log.stream.getvalue()}"  # type: ignore[attr-defined]  # a StringIO
    assert "401 for joe with ..." in told and not found_in(told)


def test_what_dnf_reads_does_not_come_back(tmp_path: Path, log: Log) -> None:
    from driverctr.packages import Sources, credentials
    from driverctr.packages.repofiles import read_sections
    from tests.unit.fake_apt import CERTIFICATES

    make_tree(
        tmp_path,
        {
            "etc/yum.repos.d/own.repo": f"[own]\nbaseurl=https://rpm.example\nusername=joe\npassword={REMOTE}\n",
            "etc/dnf/dnf.conf": f"[main]\nproxy_password = {PROXY}\n",
            "etc/dnf/vars/repo_token": f"{BODY}\n",
        },
    )
    gather(Sources(CERTIFICATES, root=tmp_path), tmp_path / "repos", log)
    credentials.learn(tmp_path)
    assert not found_in(str(DriverError(Code.PACKAGES_FAILED, f"Curl error: {REMOTE} {PROXY} {BODY}")))
    assert list(read_sections("[a]\n", own=True))


def test_a_token_of_ubuntu_pro_does_not_come_back(fake_bin: FakeBin, runner: object, tmp_path: Path, log: Log) -> None:
    from driverctr.run import Runner

    assert isinstance(runner, Runner)
    settings.load(ENVIRONMENT)
    fake_bin.add("pro", f'echo "Invalid token {PRO} of $1" >&2; exit 1')
    with pytest.raises(DriverError) as failed, ubuntupro.attached(runner, PRO, "fips", tmp_path):
        pass
    assert "Invalid token ..." in str(failed.value) and not found_in(str(failed.value))


def test_the_log_of_a_build_that_is_kept_has_none(built: Built, fake_bin: FakeBin) -> None:
    settings.load(ENVIRONMENT)
    copy = f"/bin/cp {built.root.parent}/made/*.ko ."
    fake_bin.add("make", f"echo '  CC [M]  x.o'; echo 'fetch https://joe:{REMOTE}@x.example {API}'; {copy}")
    kept = (built.find(WISH).folder / "build.log").read_text()
    assert any(map(COMPILED.match, kept.splitlines())) and "fetch https://...@x.example ..." in kept
    assert not found_in(kept)


def test_a_line_of_debug_has_the_words_of_a_command_and_no_secret(fake_bin: FakeBin, runner: object, log: Log) -> None:
    from driverctr.run import Runner

    assert isinstance(runner, Runner)
    settings.load(ENVIRONMENT)
    fake_bin.add("tool")
    replace(runner, log=log).run(["tool", "--password", f"a {OPTION}", f"https://joe:{REMOTE}@x", API, "--set", "a=b"])
    said = log.stream.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "+ tool --password ... https://...@x ... --set a=b" in said and not found_in(said)


def test_a_password_of_the_command_line_does_not_come_back(
    node: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def init(*_: object, **__: object) -> None:
        raise DriverError(Code.REMOTE_FAILED, f"the server says {REMOTE} is wrong")

    monkeypatch.delenv("REMOTE_URL")
    monkeypatch.setattr(lifecycle, "unload", init)
    assert verbs.run(["unload", f"https://joe:{REMOTE}@modules.example"]) == Code.BAD_USAGE.exit_status
    assert verbs.run(["unload"]) == Code.REMOTE_FAILED.exit_status
    assert "the server says ... is wrong" in capsys.readouterr().err
