"""What of docs/ and completions/ images have below /usr/share, where manuals and shells look."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.cache import KeyPart
from harness.docs import REPOSITORY

FILES = {
    "docs/nvidia-driver.8": "man/man8/nvidia-driver.8",
    "completions/nvidia-driver.bash": "bash-completion/completions/nvidia-driver",
    "completions/nvidia-driver.fish": "fish/vendor_completions.d/nvidia-driver.fish",
    # Debian's zsh looks there; other distributions' in site-functions.
    "completions/nvidia-driver.zsh": "zsh/vendor-completions/_nvidia-driver",
}
LINKS = {
    "man/man8/driverctr.8": "nvidia-driver.8",
    "bash-completion/completions/driverctr": "nvidia-driver",
    "fish/vendor_completions.d/driverctr.fish": "nvidia-driver.fish",
    "zsh/site-functions/_nvidia-driver": "../vendor-completions/_nvidia-driver",
}


def lay_out(to: Path) -> None:
    """Fill a folder with them."""
    for name, place in FILES.items():
        (to / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, to / place)
    for place, target in LINKS.items():
        (to / place).parent.mkdir(parents=True, exist_ok=True)
        (to / place).symlink_to(target)


def key_parts() -> list[KeyPart]:
    """What an image with them depends on."""
    return [REPOSITORY / name for name in FILES]
