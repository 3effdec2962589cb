"""Ubuntu Pro's repositories for as long as something is fetched from them; the token goes by a file, never in argv."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from driverctr import files
from driverctr.deferred import shutil
from driverctr.distros import HeaderPackages
from driverctr.errors import Code, DriverError
from driverctr.packages import PackageTool
from driverctr.records import frozen, replace
from driverctr.run import Result, Runner

ATTACH_LIMIT = 120.0
ENABLE_LIMIT = 600.0
DETACH_LIMIT = 120.0
"""Seconds; `pro enable` reads the package lists anew."""

ALREADY = 2
"""Exit status of `pro attach` where the image is attached already (pro(1))."""

ENVIRONMENT = {"OPENSSL_FORCE_FIPS_MODE": "0", "DEBIAN_FRONTEND": "noninteractive"}
"""On a FIPS kernel pro's own OpenSSL would ask for a module that the image lacks (reference A.2, U24)."""

CONFIG = "attach.yaml"
"""The file with the token, removed as soon as it is read."""


@contextmanager
def attached(runner: Runner, token: str, service: str, scratch: Path) -> Iterator[None]:
    """Have a service's repositories while the block lasts; nothing of it is installed.

    Detached again whatever happens, so that no machine is left in the subscription; an image that was attached before
    stays so. `scratch` is a folder of ours. Raises DriverError (packages-failed) with pro's own words.
    """
    if shutil.which("pro", path=runner.environment.get("PATH")) is None:
        raise DriverError(Code.PACKAGES_FAILED, "`pro` is not in this image", "Put ubuntu-pro-client into the image")
    was_attached = False
    try:
        was_attached = _attach(runner, token, scratch / CONFIG)
        _require(
            runner.run(
                ["pro", "enable", "--access-only", "--assume-yes", service],
                limit=ENABLE_LIMIT,
                check=False,
                extra_env=ENVIRONMENT,
            ),
            f"the service {service} could not be enabled",
        )
        yield
    finally:
        if not was_attached:
            _detach(runner)


def describe_need(release: str, service: str) -> str:
    """Why the packages of a kernel are not to be had without a token."""
    return f"the packages of kernel {release} are in Ubuntu Pro ({service}): set UBUNTU_PRO_TOKEN"


@frozen
class WithPro:
    """A package tool whose repositories are to be had with a subscription; the folder and the archive need none."""

    tool: PackageTool
    runner: Runner
    scratch: Path
    release: str
    service: str
    token: str

    def fetch(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """With the token from the subscription's repositories; where that fails the others are asked.

        A mirror of the user's may have the packages, or a later Ubuntu has them without a subscription.
        """
        lacks = "" if self.token else describe_need(self.release, self.service)
        with ExitStack() as stack:
            if self.token:
                try:
                    stack.enter_context(attached(self.runner, self.token, self.service, self.scratch))
                except DriverError as error:
                    self.runner.log.warning(error.message, code=error.code.value)
                    lacks = error.message
            try:
                return self.tool.fetch(wanted, into)
            except DriverError as error:
                raise DriverError(error.code, "; ".join(filter(None, (lacks, error.message))), error.remedy) from error

    def from_folder(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """As the tool itself."""
        return self.tool.from_folder(wanted, into)

    def from_archive(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        """As the tool itself."""
        return self.tool.from_archive(wanted, into)


def _attach(runner: Runner, token: str, config: Path) -> bool:
    """Attach with no service enabled; whether the image was attached before. JSON is YAML too, and quotes the token."""
    files.write_atomic(config, json.dumps({"token": str(token), "enable_services": []}), mode=0o600)
    try:
        result = runner.run(
            ["pro", "attach", "--no-auto-enable", "--attach-config", config],
            limit=ATTACH_LIMIT,
            check=False,
            extra_env=ENVIRONMENT,
        )
    finally:
        config.unlink(missing_ok=True)
    if result.status == ALREADY:
        runner.log.info("this image is attached to Ubuntu Pro already, and stays so")
        return True
    _require(result, "this container could not be attached to Ubuntu Pro", token)
    return False


def _require(result: Result, what: str, token: str = "") -> None:
    if result.status == 0:
        return
    words = result.words.replace(token, "...") if token else result.words
    raise DriverError(
        Code.PACKAGES_FAILED,
        f"{what}: {words}",
        "Check UBUNTU_PRO_TOKEN, what its subscription has, the proxy variables and the network of this container",
    )


def _detach(runner: Runner) -> None:
    """What fails here leaves a machine in the subscription, and nothing else: it is said.

    A signal that ended the block would end this too at the child's birth (signals.Signals.held), were it not let by.
    """
    undisturbed = replace(runner, held=nullcontext)
    try:
        result = undisturbed.run(
            ["pro", "detach", "--assume-yes"], limit=DETACH_LIMIT, check=False, extra_env=ENVIRONMENT
        )
    except DriverError as error:
        runner.log.warning(
            f"this container could not be detached from Ubuntu Pro: {error.message}", code=error.code.value
        )
        return
    if result.status != 0 and "not attached" not in result.stdout + result.stderr:
        runner.log.warning(f"this container could not be detached from Ubuntu Pro: {result.words}")
