"""How to call dnf: state, lists and packages lie in a folder of ours, the image's own stay as they are.

`dnf download` fetches a package without what it depends on, by the repositories' proxies, client certificates and
mirrors; it compares the package with the index, and looks at no signature.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from driverctr.addresses import without_credentials
from driverctr.distros import HeaderPackages, Repositories, Rung
from driverctr.errors import Code, DriverError
from driverctr.files import write_atomic
from driverctr.log import Log
from driverctr.packages import Sources, credentials
from driverctr.packages.authorities import bundle
from driverctr.packages.dnfwords import NOWHERE, complaints, may_pass, refusal
from driverctr.packages.repofiles import VARIABLES, Repository, RepositoryFiles, filled, gather, key_files
from driverctr.packages.rpm import Keyring, unpack
from driverctr.records import frozen, replace
from driverctr.retry import retry
from driverctr.run import Runner

ATTEMPTS = 3
FIRST_PAUSE = 5.0
"""Seconds before the second attempt."""
DOWNLOAD_LIMIT = 600.0
KEY_LIMIT = 60.0
"""Seconds."""
SILENCE = 15
"""Seconds without a byte after which dnf gives a server up."""
TRIES = 2
"""How often dnf itself asks each mirror."""

KERNELS = Path("usr/src/kernels")
"""Where kernel-devel lies; only the kernel's own package has the link lib/modules/<release>/build to it."""


@frozen
class Dnf:
    """dnf and rpm below a scratch folder; `pause` waits between attempts.

    A kernel's headers are one package in these distributions: companions are not looked for.
    """

    runner: Runner
    scratch: Path
    pause: Callable[[float], object]
    log: Log
    sources: Sources
    repositories: Repositories

    def fetch(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """From the repositories, by the first rung of the ladder that has the package (see PackageTool)."""
        files = gather(self.sources, self.scratch / "repositories", self.log)
        return self._from_ladder(wanted, into, files, self.repositories.ladder)

    def from_folder(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """From the user's folder, wherever in it the package lies: an index is not needed, the signature tells all."""
        folder, name = self.sources.folder, f"{wanted.package}.rpm"
        if not folder.is_dir():
            raise DriverError(Code.HEADERS_MISSING, f"there is no folder {folder}", NOWHERE)
        found = sorted(folder.rglob(name))
        if not found:
            raise DriverError(Code.HEADERS_MISSING, f"{folder} has no {name}", "Put it there")
        keys = (*key_files(self.sources.root), *sorted(folder.rglob("RPM-GPG-KEY*")))
        self._keyring(keys).check(found[0])
        return self._unpacked(wanted, found[0], into)

    def from_archive(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """From the archive: repositories with $releasever and $basearch in their addresses, spaces between."""
        folder = self.scratch / "archive"
        folder.mkdir(parents=True, exist_ok=True)
        named = {f"archive-{number}": url for number, url in enumerate(self.sources.archive.split(), start=1)}
        for name, url in named.items():
            (folder / f"{name}.repo").write_text(f"[{name}]\nname=ARCHIVE_URL\nbaseurl={url}\n")
        files = RepositoryFiles(folder, tuple(Repository(name, True, True, (), True) for name in named))
        versions = self.repositories.releasevers
        if "$releasever" not in self.sources.archive:
            versions = versions[:1]
        return self._from_ladder(wanted, into, files, [Rung(version) for version in versions])

    def _from_ladder(
        self, wanted: HeaderPackages, into: Path, files: RepositoryFiles, ladder: Sequence[Rung]
    ) -> tuple[str, ...]:
        """Climb until a rung has the package; all of it again, a few times, while a failure may pass."""
        credentials.learn(self.sources.root)
        rungs = distinct(files, ladder)
        if not any(files.used(rung.enable) for rung in rungs):
            left_out = "" if self.sources.defaults else f", and the image's own are left out: {self.sources.reason}"
            raise DriverError(
                Code.PACKAGES_FAILED,
                f"no repository is enabled{left_out}",
                "Mount repository files into /etc/yum.repos.d, or on RHEL the host's entitlement at /run/secrets "
                "(etc-pki-entitlement, redhat.repo, rhsm)",
            )
        authorities = bundle(self.sources, self.scratch / "authorities.pem", self.log)

        def attempt() -> tuple[Rung, Path] | DriverError:
            refusals: list[tuple[str, DriverError]] = []
            for rung in rungs:
                try:
                    return rung, self._download(wanted.package, files, rung, authorities)
                except DriverError as error:
                    if error.code is Code.COMMAND_FAILED:  # no dnf, or one without an end: no other rung fares better
                        return error
                    where = self._asked(files, rung)
                    refusals.append((where, error))
                    self.log.info(f"dnf: {where}: {error.message}", code=error.code.value)
            final = joined(refusals)
            if may_pass(final.message):
                raise final
            return final

        got = retry(attempt, attempts=ATTEMPTS, first_pause=FIRST_PAUSE, pause=self.pause, log=self.log)
        if isinstance(got, DriverError):
            raise got
        rung, package = got
        return self._unpacked(wanted, self._trusted(wanted.package, package, files, rung, authorities), into)

    def _download(self, package: str, files: RepositoryFiles, rung: Rung, authorities: Path | None) -> Path:
        """Fetch one package by one rung; raises DriverError in dnf's words."""
        folder = self.scratch / "packages"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        enabled = (f"--enablerepo={one.name}" for one in files.used(rung.enable))
        options = self._options(files.folder, rung.releasever, authorities)
        argv = ["dnf", *options, *enabled, "download", f"--destdir={folder}", package]
        result = self.runner.run(argv, limit=DOWNLOAD_LIMIT, check=False, extra_env=self._proxies())
        found = sorted(folder.glob("*.rpm"))
        if result.status != 0 or not found:
            raise refusal(complaints(result))
        return found[0]

    def _asked(self, files: RepositoryFiles, rung: Rung) -> str:
        names = ", ".join(one.name for one in files.used(rung.enable))
        return f"releasever {rung.releasever or 'of the image'} of {names}"

    def _options(self, folder: Path, releasever: str, authorities: Path | None) -> list[str]:
        """Of all plugins only `download`: subscription-manager's would write into /etc and wants to be registered.

        With a root of its own dnf reads no rpm database of the image, which may be damaged; it then cannot tell the
        release itself. One repository that does not answer is no reason not to ask the others.
        """
        root = self.sources.root
        settings = {
            "cachedir": self.scratch / "cache",
            "persistdir": self.scratch / "state",
            "logdir": self.scratch / "log",
            "reposdir": folder,
            "varsdir": ",".join(str(root / name) for name in VARIABLES),
            "timeout": SILENCE,
            "retries": TRIES,
            "*.skip_if_unavailable": 1,
            **({"sslcacert": authorities} if authorities else {}),
        }
        (self.scratch / "log").mkdir(parents=True, exist_ok=True)
        own_root = [f"--installroot={self.scratch / 'root'}", f"--releasever={releasever}"] if releasever else []
        return [
            "--assumeyes",
            "--refresh",
            *own_root,
            *(f"--setopt={name}={value}" for name, value in settings.items()),
            "--disableplugin=*",
            "--enableplugin=download",
            "--disablerepo=*",
        ]

    def _proxies(self) -> dict[str, str]:
        """The proxies in small letters too: curl reads HTTP_PROXY in no other way (curl(1), environment)."""
        given = self.runner.environment
        names = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
        return {name: given[name.upper()] for name in names if name.upper() in given and name not in given}

    def _trusted(self, name: str, package: Path, files: RepositoryFiles, rung: Rung, authorities: Path | None) -> Path:
        """The package, or where it is not trusted the one of the repositories that are not to be checked.

        dnf does not say which repository a package is from. Raises DriverError (packages-untrusted).
        """
        used = files.used(rung.enable)
        unchecked = tuple(replace(one, enabled=True) for one in used if not one.checked)
        if len(unchecked) < len(used):
            try:
                self._keyring(self._keys(used, rung.releasever, authorities)).check(package)
            except DriverError as error:
                if error.code is not Code.PACKAGES_UNTRUSTED or not unchecked:
                    raise
                try:
                    theirs = RepositoryFiles(files.folder, unchecked)
                    package = self._download(name, theirs, Rung(rung.releasever), authorities)
                except DriverError:
                    raise error from None
            else:
                return package
        names = ", ".join(one.name for one in unchecked)
        self.log.warning(f"signatures are not checked: {names} has gpgcheck=0")
        return package

    def _keyring(self, keys: Sequence[Path]) -> Keyring:
        folder = self.scratch / "keyring"
        shutil.rmtree(folder, ignore_errors=True)
        keyring = Keyring(self.runner, folder, self.log)
        keyring.add(keys)
        return keyring

    def _keys(self, used: Sequence[Repository], releasever: str, authorities: Path | None) -> list[Path]:
        """The keys that the repositories name, fetched where they are not at hand; the distribution's for the rest."""
        root, found = self.sources.root, dict[Path, None]()
        for repository in used:
            if not repository.keys:
                found |= dict.fromkeys(key_files(root))
            for address in (filled(key, releasever, root) for key in repository.keys):
                place = address.removeprefix("file://")
                if place.startswith("/"):
                    found[root / place.lstrip("/")] = None
                else:
                    found[self._fetched(place, self.scratch / "keys" / str(len(found)), authorities)] = None
        return list(found)

    def _fetched(self, address: str, folder: Path, authorities: Path | None) -> Path:
        """A key from a server; where it cannot be had, the file is missing, and rpmkeys says so.

        The address, which may hold a password, goes by a file (curl(1), --config); the folder is this key's alone.
        """
        shown = without_credentials(address)
        file, config = folder / shown.rsplit("/", 1)[-1], folder / "address"
        quoted = address.replace("\\", "\\\\").replace('"', '\\"')
        write_atomic(config, f'url = "{quoted}"\n', mode=0o600)
        trust: list[str | Path] = ["--cacert", authorities] if authorities else []
        argv = ["curl", "--fail", "--silent", "--show-error", "--location", *trust, "--output", file]
        result = self.runner.run([*argv, "--config", config], limit=KEY_LIMIT, check=False, extra_env=self._proxies())
        if result.status != 0:
            self.log.warning(f"the key {shown} could not be fetched: {result.words.replace(address, shown)}")
        return file

    def _unpacked(self, wanted: HeaderPackages, package: Path, into: Path) -> tuple[str, ...]:
        unpack(self.runner, package, into)
        for tree in (into / KERNELS).glob("*"):
            link = into / "lib/modules" / tree.name / "build"
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(Path("../../..") / KERNELS / tree.name)
        return (wanted.package,)


def distinct(files: RepositoryFiles, ladder: Sequence[Rung]) -> list[Rung]:
    """The rungs that ask something else than those before: names that no file has make them alike."""
    asked: dict[tuple[str, tuple[Repository, ...]], Rung] = {}
    for rung in ladder:
        asked.setdefault((rung.releasever, files.used(rung.enable)), rung)
    return list(asked.values())


def joined(refusals: Sequence[tuple[str, DriverError]]) -> DriverError:
    """What all rungs came to: no such package only if each says so, else what the first says that failed otherwise."""
    errors = [error for _, error in refusals]
    worst = next((error for error in errors if error.code is not Code.HEADERS_MISSING), errors[0])
    places: dict[str, list[str]] = {}
    for where, error in refusals:
        places.setdefault(error.message, []).append(where)
    words = "; ".join(f"{', '.join(asked)}: {message}" for message, asked in places.items())
    return DriverError(worst.code, words, worst.remedy)
