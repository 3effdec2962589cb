"""Filling a remote folder: a folder or HTTP PUT, and the two verbs."""

import base64
import errno
import fcntl
import gzip
import os
import subprocess
import sys
import tempfile
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import driverctr
from driverctr import config as settings
from driverctr import files
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules import signing
from driverctr.modules.push import Folder, is_whole, push, target_of
from driverctr.modules.remote import configured
from driverctr.modules.store import Store
from tests.unit.remote_entries import KEY, Pushed, make_private, make_set, node, other_key
from tests.unit.remote_server import Behaviour, Handler, answer, serve, served
from tests.unit.stored import make_draft
from tests.unit.test_store_crash import killed_before, raising

SOURCE = Path(driverctr.__file__).parents[1]
PYTHON = Path(sys.executable).name


def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user would."""
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from driverctr.cli import main; sys.exit(main())"
    argv = [sys.executable, "-c", code, *words]
    return subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def times(folder: Path) -> dict[str, int]:
    """When each file below a folder was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_what_is_pushed_to_a_folder_is_whole_and_open_to_its_web_server(tmp_path: Path, log: Log) -> None:
    pushed = Pushed(tmp_path, log)
    names = {"key.json", "manifest.json", "signature.json", "nvidia.ko.gz", "nvidia-uvm.ko.gz"}
    assert {path.name for path in pushed.entry.iterdir()} == names
    assert [path.name for path in pushed.folder.iterdir()] == [KEY.digest]
    assert {path.stat().st_mode & 0o777 for path in pushed.entry.iterdir()} == {0o644}
    assert pushed.entry.stat().st_mode & 0o777 == 0o755
    assert (pushed.entry / "key.json").read_text() == KEY.document
    unpacked = gzip.decompress((pushed.entry / "nvidia.ko.gz").read_bytes())
    assert unpacked == pushed.module_set.modules["nvidia"].file.read_bytes()


def test_what_is_there_and_whole_is_not_sent_again(tmp_path: Path, log: Log) -> None:
    pushed = Pushed(tmp_path, log)
    before = times(pushed.folder)
    target = Folder(pushed.folder)
    assert not push(KEY, pushed.module_set, target, pushed.private, log, scratch=tmp_path)
    assert times(pushed.folder) == before
    other_build = make_set(tmp_path / "again", b"another build")
    assert not push(KEY, other_build, target, pushed.private, log, scratch=tmp_path), "nodes may be reading this one"
    assert times(pushed.folder) == before


@pytest.mark.parametrize("damage", ["module", "signature", "document", "signer"])
def test_what_is_there_and_damaged_is_replaced(tmp_path: Path, log: Log, damage: str) -> None:
    pushed = Pushed(tmp_path, log)
    private = pushed.private
    match damage:
        case "module":
            (pushed.entry / "nvidia.ko.gz").write_bytes(b"half")
        case "signature":
            (pushed.entry / "signature.json").unlink()
        case "document":
            (pushed.entry / "manifest.json").write_text("{}")
        case "signer":
            private = make_private(tmp_path / "new")
    assert push(KEY, pushed.module_set, Folder(pushed.folder), private, log, scratch=tmp_path)
    assert not push(KEY, pushed.module_set, Folder(pushed.folder), private, log, scratch=tmp_path)
    assert [path.name for path in pushed.folder.iterdir()] == [KEY.digest]


def test_a_file_that_is_not_the_one_described_is_not_pushed(tmp_path: Path, log: Log) -> None:
    pushed = Pushed(tmp_path, log)
    file = pushed.module_set.modules["nvidia"].file
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    before = times(pushed.folder)
    with pytest.raises(DriverError, match=r"nvidia\.ko is not the file its manifest describes") as error:
        push(other_key(), pushed.module_set, Folder(pushed.folder), pushed.private, log, scratch=tmp_path)
    assert error.value.code is Code.NO_MODULES and times(pushed.folder) == before


@pytest.mark.parametrize("name", ["exchange", "copy_atomic"])
def test_a_push_that_breaks_off_leaves_what_was_there(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pushed = Pushed(tmp_path, log)
    (pushed.entry / "nvidia.ko.gz").write_bytes(b"damaged")
    monkeypatch.setattr(files, name, raising(errno.EROFS, instead=getattr(files, name)))
    with pytest.raises(DriverError, match=f"^{pushed.folder} cannot be written: Read-only") as refused:
        push(KEY, pushed.module_set, Folder(pushed.folder), pushed.private, log, scratch=tmp_path)
    assert refused.value.code is Code.NODE_FILE
    assert (pushed.entry / "nvidia.ko.gz").read_bytes() == b"damaged"
    assert [path.name for path in pushed.folder.iterdir()] == [KEY.digest]


def test_a_target_that_cannot_be_written_is_blamed_itself(tmp_path: Path, log: Log) -> None:
    private, module_set = make_private(tmp_path / "keys"), make_set(tmp_path / "built")
    (tmp_path / "file").touch()
    with pytest.raises(DriverError, match=f"^{tmp_path}/file/remote cannot be written: Not a directory"):
        push(KEY, module_set, Folder(tmp_path / "file/remote"), private, log, scratch=tmp_path)
    with pytest.raises(DriverError, match=f"^{tmp_path}/file/scratch cannot be written"):
        push(KEY, module_set, Folder(tmp_path / "remote"), private, log, scratch=tmp_path / "file/scratch")


def test_where_two_names_cannot_be_exchanged_the_former_goes_first(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed, private = Pushed(tmp_path, log), make_private(tmp_path / "new")
    monkeypatch.setattr(files, "exchange", raising(errno.EINVAL, instead=files.exchange))
    target = Folder(pushed.folder)
    assert push(KEY, pushed.module_set, target, private, log, scratch=tmp_path)
    assert not push(KEY, pushed.module_set, target, private, log, scratch=tmp_path)
    assert [path.name for path in pushed.folder.iterdir()] == [KEY.digest]


def test_a_push_killed_at_any_moment_leaves_a_whole_entry_and_the_next_ones_clean_up(tmp_path: Path, log: Log) -> None:
    pushed, keys = Pushed(tmp_path, log), [make_private(tmp_path / f"new-{number}") for number in range(2)]
    target, number, killed = Folder(pushed.folder), 0, True
    former = pushed.private
    (tmp_path / "judged").mkdir()

    def push_new() -> object:
        return push(KEY, pushed.module_set, target, new, log, scratch=tmp_path / "scratch")

    while killed:
        number += 1
        new = keys[number % 2]
        killed = killed_before(number, push_new)
        whole = [private for private in (former, new) if is_whole(target, KEY, private, tmp_path / "judged")]
        assert len(whole) == 1, f"killed before change {number}"
        push_new()
        former = new
        assert list((tmp_path / "scratch").iterdir()) == []
        assert len(list(pushed.folder.iterdir())) <= 2, "the former goes with the next entry that is sent"
    assert number > 15 and [path.name for path in pushed.folder.iterdir()] == [KEY.digest]


def test_no_other_who_pushes_takes_a_stage_for_abandoned(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = Pushed(tmp_path, log)
    made: list[Path] = []
    mkdtemp, copy = tempfile.mkdtemp, files.copy_atomic

    def make(**named: Any) -> str:
        folder = str(mkdtemp(**named))
        if Path(named["dir"]) == pushed.folder:
            handle = os.open(pushed.folder, os.O_RDONLY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(handle)
            made.append(Path(folder))
        return folder

    def copy_beside_another(source: Path, target: Path) -> None:
        files.remove_abandoned(pushed.folder.glob(".*.stage-*"))
        copy(source, target)

    monkeypatch.setattr(tempfile, "mkdtemp", make)
    monkeypatch.setattr(files, "copy_atomic", copy_beside_another)
    assert push(other_key(), pushed.module_set, Folder(pushed.folder), pushed.private, log, scratch=tmp_path)
    assert len(made) == 1 and {path.name for path in pushed.folder.iterdir()} == {KEY.digest, other_key().digest}


def test_while_a_server_gets_other_files_nodes_see_nothing_there(tmp_path: Path, log: Log) -> None:
    private, module_set = make_private(tmp_path / "keys"), make_set(tmp_path / "built")
    new, names = make_private(tmp_path / "new"), ["nvidia.ko.gz", "nvidia-uvm.ko.gz", "key.json", "manifest.json"]
    (tmp_path / "remote").mkdir()
    with served(tmp_path / "remote") as server:
        target = target_of(server.url, {}, log, lambda seconds: None)
        for public, name in ((public, name) for public in ("keys", "new") for name in [*names, "signature.json"][1:]):
            server.behaviour = serve
            push(KEY, module_set, target, private, log, scratch=tmp_path)
            server.behaviour = refuse_from(name)
            with pytest.raises(DriverError, match="the server answers 403"):
                push(KEY, module_set, target, new, log, scratch=tmp_path)
            with pytest.raises(DriverError) as missed:
                node(server.url, str(tmp_path / public / "public.pem"), log).find(KEY)
            assert missed.value.code is Code.NO_MODULES, name
        server.behaviour = serve
        server.asked.clear()
        private, new = new, private
        push(KEY, module_set, target, private, log, scratch=tmp_path)
        push(KEY, module_set, target, new, log, scratch=tmp_path)
        sent = [line.rpartition("/")[2] for line in server.asked if line.startswith("PUT")]
        assert sent[6:] == ["signature.json", *names, "signature.json"]
        assert node(server.url, str(tmp_path / "keys/public.pem"), log).find(KEY).key == KEY


def refuse_from(name: str) -> Behaviour:
    """Take files until that one comes; a signature is taken once, as the first."""
    taken: list[str] = []

    def act(handler: Handler) -> None:
        sent = handler.path.rpartition("/")[2]
        if handler.command == "PUT" and sent == name and (name != "signature.json" or taken):
            handler.say(403)
        else:
            taken.extend([sent] if handler.command == "PUT" else [])
            serve(handler)

    return act


def test_a_server_gets_the_signature_last_and_nothing_twice(tmp_path: Path, log: Log) -> None:
    private, module_set = make_private(tmp_path / "keys"), make_set(tmp_path / "built")
    (tmp_path / "remote").mkdir()
    with served(tmp_path / "remote") as server:
        target = target_of(f"{server.url}/", {}, log, lambda seconds: None)
        assert push(KEY, module_set, target, private, log, scratch=tmp_path)
        sent = [line.rpartition("/")[2] for line in server.asked if line.startswith("PUT")]
        assert sent == ["nvidia.ko.gz", "nvidia-uvm.ko.gz", "key.json", "manifest.json", "signature.json"]
        assert not push(KEY, module_set, target, private, log, scratch=tmp_path)
        assert [line for line in server.asked if line.startswith("PUT")][5:] == []
        assert node(server.url, str(tmp_path / "keys/public.pem"), log).find(KEY).key == KEY


def test_a_server_that_falters_is_tried_again_and_one_that_refuses_is_told(tmp_path: Path, log: Log) -> None:
    private, module_set = make_private(tmp_path / "keys"), make_set(tmp_path / "built")
    pauses: list[float] = []

    def falter(handler: Handler) -> None:
        failing = handler.command == "PUT" and not pauses
        (answer(503) if failing else serve)(handler)

    (tmp_path / "remote").mkdir()
    with served(tmp_path / "remote") as server:
        server.behaviour = falter
        target = target_of(server.url, {}, log, pauses.append)
        assert push(KEY, module_set, target, private, log, scratch=tmp_path) and len(pauses) == 1
        server.behaviour = answer(405)
        with pytest.raises(DriverError, match="the server answers 405") as error:
            push(other_key(), module_set, target, private, log, scratch=tmp_path)
        assert error.value.code is Code.REMOTE_FAILED


@pytest.mark.parametrize(
    "address", ["ftp://x/y", "http://", "https://h/?sig=planted-secret", "http://u:planted-secret@"]
)
def test_an_address_that_is_none_is_refused_without_its_secrets(address: str, log: Log) -> None:
    with pytest.raises(DriverError, match="--to=") as error:
        target_of(address, {}, log, lambda seconds: None)
    assert error.value.code is Code.BAD_SETTING and "planted-secret" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "http:/u:planted-secret@h",
        "u:planted-secret@h",
        "HTTPS://u:planted-secret@h",
        "https://u:plan/planted-secret@h",
        "https://u:p@planted-secret@h/\udcff",
        "https://h/x?token=planted-secret",
        "https://u\n:planted-secret@h",
    ],
)
def test_an_address_of_the_settings_that_is_none_is_refused_without_its_secrets(address: str) -> None:
    with pytest.raises(DriverError, match="REMOTE_URL=") as error:
        settings.load({"REMOTE_URL": address})
    assert error.value.code is Code.BAD_SETTING and "planted-secret" not in str(error.value)


def test_without_the_settings_there_is_no_remote_folder(log: Log) -> None:
    with pytest.raises(DriverError, match="REMOTE_URL is not set") as error:
        configured(settings.load({}), log, lambda seconds: None)
    assert error.value.code is Code.NO_MODULES
    remote = configured(settings.load({"REMOTE_URL": "http://127.0.0.1:9/"}), log, lambda seconds: None)
    with pytest.raises(DriverError, match="REMOTE_PUBLIC_KEY is not") as error:
        remote.find(KEY)
    assert error.value.code is Code.BAD_SETTING


@pytest.mark.allow_process(PYTHON)
def test_the_rooms_that_every_start_imports_leave_the_libraries_alone() -> None:
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import driverctr.verbs, driverctr.modules.remote; "
    code += "print([name for name in ('requests', 'urllib3', 'cryptography') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def stored(tmp_path: Path, log: Log) -> Path:
    """A store with entries for two kernels."""
    store = Store.open(tmp_path / "lib/store", log)
    for key in (KEY, replace(KEY, kernel_release="6.12.0-1-amd64")):
        folder = tmp_path / f"draft-{key.digest}"
        store.publish(key, make_draft(folder, key), folder / "log", {})
    return store.folder


@pytest.mark.allow_process(PYTHON)
def test_the_verbs_make_keys_and_push_what_was_chosen(tmp_path: Path, stored: Path) -> None:
    made = call("store", "keygen", str(tmp_path / "keys"))
    assert made.returncode == 0 and len(base64.b64decode(made.stdout.strip())) == 32
    environment = {"STORE_DIR": str(stored)}
    words = ["store", "push", "--private-key", str(tmp_path / "keys/private.pem"), "--to", str(tmp_path / "remote")]
    done = call(*words, "--kernel", KEY.kernel_release, **environment)
    assert (done.returncode, done.stdout) == (0, f"pushed: {KEY.digest[:12]} ({KEY.wish})\n"), done.stderr
    done = call(*words, **environment)
    assert sorted(line.partition(": ")[0] for line in done.stdout.splitlines()) == ["pushed", "there already"]
    done = call(*words, KEY.digest[:12], **environment)
    assert (done.returncode, done.stdout) == (0, f"there already: {KEY.digest[:12]} ({KEY.wish})\n")
    for more, says in (
        (["f" * 12], "'ffffffffffff' names 0 entries"),
        (["--kernel", "5.10.0"], "no entry for 5.10.0"),
    ):
        done = call(*words, *more, **environment)
        assert done.returncode == Code.NO_MODULES.exit_status and says in done.stderr
    done = call("store", "push", "--private-key", str(tmp_path / "keys/private.pem"), **environment)
    assert done.returncode == Code.BAD_USAGE.exit_status and "REMOTE_URL" in done.stderr
    assert call("store", "keygen", str(tmp_path / "keys")).returncode == Code.NODE_FILE.exit_status
    assert call("store", "keygen", "/proc/keys-of-mine").returncode == Code.NODE_FILE.exit_status


@pytest.mark.allow_process(PYTHON)
def test_no_verb_shows_name_and_password_of_the_address(tmp_path: Path, stored: Path) -> None:
    signing.make_pair(tmp_path / "keys")
    (tmp_path / "remote").mkdir()
    secrets = ("pla:nted", b64encode(b"somebody:pla:nted").decode(), "somebody", "pla%3Anted")
    with served(tmp_path / "remote") as server:
        server.login = f"Basic {secrets[1]}"
        environment = {
            "STORE_DIR": str(stored),
            "REMOTE_URL": server.url.replace("//", "//somebody:pla%3Anted@"),
            "REMOTE_PUBLIC_KEY": str(tmp_path / "keys/public.pem"),
            "LOG_LEVEL": "debug",
            "no_proxy": "*",
        }
        words = ["store", "push", "--private-key", str(tmp_path / "keys/private.pem")]
        good = call(*words, **environment)
        server.login = "Basic another"
        bad = call(*words, **environment)
        rest = [call(*verb, **environment) for verb in (["plan", "--json"], ["status", "--json"])]
    assert good.returncode == 0, good.stderr
    assert bad.returncode == Code.REMOTE_FAILED.exit_status and "answers 401" in bad.stderr
    for done in (good, bad, *rest):
        assert not [secret for secret in secrets if secret in done.stdout + done.stderr]
