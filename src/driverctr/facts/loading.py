"""What the running kernel demands of a module before it loads it."""

from pathlib import Path

from driverctr.facts import hostroot
from driverctr.files import read_text
from driverctr.paths import Paths
from driverctr.records import frozen

SIGNATURE_MARK = b"~Module signature appended~\n"
"""How a signed module file ends (include/linux/module_signature.h, MODULE_SIG_STRING)."""

LOCKDOWN = Path("sys/kernel/security/lockdown")
"""Of securityfs; it marks the level in force with brackets: `[none] integrity confidentiality`
(security/lockdown/lockdown.c)."""


@frozen
class Loading:
    """The kernel's rules for modules.

    `supported` and `disabled` are about modules at all; `enforced` is module.sig_enforce. `lockdown` is the level in
    force, "" where it cannot be told.
    """

    supported: bool
    disabled: bool
    enforced: bool
    lockdown: str

    @property
    def signed_only(self) -> bool:
        """Whether an unsigned module is refused for sure (kernel/module/signing.c, module_sig_check)."""
        return self.enforced or self.lockdown not in ("", "none")


def read(paths: Paths) -> Loading:
    """The rules as procfs, sysfs and securityfs tell them."""
    return Loading(
        supported=(paths.proc / "modules").exists(),
        disabled=read_text(paths.proc / "sys/kernel/modules_disabled") == "1",
        enforced=read_text(paths.sys_modules / "module/parameters/sig_enforce") == "Y",
        lockdown=_lockdown(paths),
    )


def _lockdown(paths: Paths) -> str:
    """The level in force: a container's own /sys has no securityfs, the host's has."""
    host = hostroot.process_root(paths.root)
    for root in (paths.root, *((host.path,) if host else ())):
        if text := read_text(root / LOCKDOWN):
            return text.partition("[")[2].partition("]")[0]
        # With securityfs there and no such file, the kernel has no lockdown.
        if (root / LOCKDOWN).with_name("lsm").exists():
            return "none"
    return ""


def is_signed(path: Path) -> bool:
    """Whether a module file carries a signature, whoever's; False where the file cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            if file.tell() < len(SIGNATURE_MARK):
                return False
            file.seek(-len(SIGNATURE_MARK), 2)
            return file.read() == SIGNATURE_MARK
    except OSError:
        return False
