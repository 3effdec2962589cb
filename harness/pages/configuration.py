"""docs/configuration.md, of the table of settings."""

from __future__ import annotations

import re

from driverctr.config import HANDED_TO_CHILDREN
from driverctr.settings import SETTINGS

HEAD = """\
# Configuration

Generated from `src/driverctr/settings.py` by `./dev docs`.

Settings are environment variables. Unknown ones are tolerated; a value that is not valid ends the start with
`bad-setting`, and the message names the variable, the value and what is valid. An empty value means the default, except
for `DRIVER_VERSION`: which driver a node gets is not left to a template that nobody filled in.

| variable | default | meaning |
|---|---|---|
"""

FILES = """
## Files

| in the container | what it is |
|---|---|
| `/drivers/<module>.conf` | parameters of nvidia, nvidia-uvm, nvidia-modeset, nvidia-peermem: one `NAME=VALUE` a line |
| `/drivers/packages` | packages with kernel headers, see `PACKAGES_DIR` and [hosts.md](hosts.md) |
| `/etc/apt/sources.list.d`, `/etc/yum.repos.d` | repositories of your own, asked before the image's |
| `/usr/local/share/ca-certificates`, `/etc/pki/ca-trust/source/anchors` | certificates to trust |
| `/var/lib/driverctr` | the module store lies in it, see [store.md](store.md) |

## Handed on

To the programs we run, and to nobody else, go also:
"""


def markdown() -> str:
    """The page."""
    known = "|".join(sorted((row.variable for row in SETTINGS), key=len, reverse=True))
    rows = []
    for row in SETTINGS:
        default = f"`{row.default}`" if row.default else ""
        text = re.sub(rf"(?<![\w`])({known})(?![\w`])", r"`\1`", row.help).replace("|", "\\|")
        rows.append(f"| `{row.variable}` | {default} | {text} |")
    handed = ", ".join(f"`{name}`" for name in HANDED_TO_CHILDREN)
    return HEAD + "\n".join(rows) + "\n" + FILES + handed + ".\n"
