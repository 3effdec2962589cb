"""What package tools read of secrets, so that none of them comes back in their words."""

from pathlib import Path

from driverctr.conceal import learn_environment, learn_text
from driverctr.files import read_text

FILES = (
    "etc/apt/auth.conf",
    "etc/apt/auth.conf.d/*",
    "etc/apt/apt.conf",
    "etc/apt/apt.conf.d/*",
    "etc/dnf/dnf.conf",
    "etc/yum.conf",
    "etc/rhsm/rhsm.conf",
)
"""apt_auth.conf(5), apt.conf(5) and dnf.conf(5): passwords of servers and proxies."""

VARIABLES = ("etc/dnf/vars/*", "etc/yum/vars/*")
"""Each file is a variable of repository files (dnf.conf(5), varsdir): a token is put into an address that way."""


def learn(root: Path) -> None:
    """Read these files below a root, as far as they are there; repository files are learned where they are read."""
    for file in (found for name in FILES for found in sorted(root.glob(name))):
        learn_text(read_text(file) or "")
    learn_environment({file.name: (read_text(file) or "").strip() for name in VARIABLES for file in root.glob(name)})
