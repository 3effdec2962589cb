"""`store push` and `store keygen`: filling a remote folder, by who builds and not by nodes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driverctr.errors import Code, DriverError

if TYPE_CHECKING:
    from driverctr.modules.entry import Entry
    from driverctr.steps import Tools


def define(actions: Any) -> None:
    """Add both to the actions of the verb `store`."""
    text = "sign entries of the store, and send them to a folder or by HTTP PUT to an address"
    sends = actions.add_parser("push", help=text, description=text, allow_abbrev=False)
    sends.set_defaults(act=push)
    sends.add_argument("--to", metavar="FOLDER|URL", help="default: REMOTE_URL")
    sends.add_argument("--private-key", metavar="FILE", type=Path, required=True, help="PEM file, mode 0600")
    sends.add_argument("-k", "--kernel", metavar="RELEASE", help="only what was built for this kernel")
    sends.add_argument("digests", nargs="*", metavar="DIGEST", help="only these, by digest or how it begins")
    text = "make the key pair for `store push` and the nodes; prints the value of REMOTE_PUBLIC_KEY"
    makes = actions.add_parser("keygen", help=text, description=text, allow_abbrev=False)
    makes.set_defaults(act=keygen)
    makes.add_argument("folder", metavar="DIR", type=Path, help="gets private.pem and public.pem")


def push(tools: "Tools", arguments: argparse.Namespace) -> int:
    """Sign entries of the store and send those that are not there yet."""
    from driverctr.modules import signing
    from driverctr.modules.push import push as send
    from driverctr.modules.push import target_of
    from driverctr.modules.store import Store, locate

    tools.signals.install()
    log, where = tools.runner.log, arguments.to or tools.config.remote_url
    if not where:
        raise DriverError(Code.BAD_USAGE, "there is nowhere to push to", "Give --to FOLDER or URL, or set REMOTE_URL")
    private = signing.read_private(arguments.private_key)
    target = target_of(where, tools.config.child_environment, log, tools.signals.sleep)
    store = Store.open(locate(tools.paths, tools.config), log)
    for entry in choose(store.entries(), arguments.kernel, arguments.digests):
        sent = send(entry.key, entry.module_set, target, private, log)
        sys.stdout.write(f"{entry.key.digest} {entry.key.wish}: {'pushed' if sent else 'there already'}\n")
    return 0


def choose(entries: Sequence["Entry"], kernel_release: str | None, digests: Sequence[str]) -> list["Entry"]:
    """The entries for a kernel (None: any) whose digests begin so (none named: any).

    Raises DriverError (no-modules) for a digest that none has, or where nothing is left.
    """
    for digest in digests:
        if not any(entry.key.digest.startswith(digest) for entry in entries):
            raise DriverError(Code.NO_MODULES, f"the store has no entry {digest}", SEE)
    chosen = [
        entry
        for entry in entries
        if kernel_release in (None, entry.key.kernel_release)
        and (not digests or any(entry.key.digest.startswith(digest) for digest in digests))
    ]
    if not chosen:
        meant = f" for kernel {kernel_release}" if kernel_release else ""
        raise DriverError(Code.NO_MODULES, f"the store has no such entry{meant}", SEE)
    return chosen


SEE = "`driverctr store list` shows what it has"


def keygen(tools: "Tools", arguments: argparse.Namespace) -> int:
    """Make a key pair; the public one is printed as nodes take it."""
    from driverctr.modules import signing

    try:
        sys.stdout.write(f"{signing.make_pair(arguments.folder)}\n")
    except OSError as error:
        raise DriverError(
            Code.NODE_FILE,
            f"{error.filename or arguments.folder}: {error.strerror}",
            "Name a folder that can be written",
        ) from error
    return 0
