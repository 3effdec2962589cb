"""The package sources of real bases, as their images have them: given all components, each line once."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import containers

pytestmark = pytest.mark.image

SCRIPT = Path(__file__).resolve().parents[2] / "images/common/apt-sources.sh"
LIMIT_S = 60
# Ubuntu 22.04 has a line for each component; 24.04 and Debian 12 have deb822 paragraphs.
LINES = """\
# See http://help.ubuntu.com/community/UpgradeNotes
deb http://archive.example/ubuntu/ jammy main restricted
# deb-src http://archive.example/ubuntu/ jammy main restricted
deb http://archive.example/ubuntu/ jammy universe
deb http://archive.example/ubuntu/ jammy-updates main restricted
deb http://archive.example/ubuntu/ jammy-updates universe
# deb-src http://archive.example/ubuntu/ jammy main restricted
deb [arch=arm64] http://security.example/ubuntu/ jammy-security main restricted
"""
PARAGRAPHS = "Types: deb\nURIs: http://archive.example/ubuntu/\nSuites: noble noble-updates\nComponents: main\n"
ALL = "main restricted universe multiverse"


def test_components_are_added_and_each_line_stays_once(tag: str) -> None:
    script = (
        'rm -f /etc/apt/sources.list.d/*; printf %s "$LINES" >/etc/apt/sources.list; '
        'printf %s "$PARAGRAPHS" >/etc/apt/sources.list.d/ubuntu.sources; sh /apt-sources.sh; '
        "cat /etc/apt/sources.list /etc/apt/sources.list.d/ubuntu.sources /usr/share/driverctr/default-repositories"
    )
    environment = {"LINES": LINES, "PARAGRAPHS": PARAGRAPHS, "COMPONENTS": ALL, "APT_SOURCES": ""}
    volumes = {str(SCRIPT): {"bind": "/apt-sources.sh", "mode": "ro"}}
    said = containers.output(tag, ["sh", "-ec", script], LIMIT_S, environment=environment, volumes=volumes)
    assert [line for line in said.splitlines() if not line.startswith("#")] == [
        f"deb http://archive.example/ubuntu/ jammy {ALL}",
        f"deb http://archive.example/ubuntu/ jammy-updates {ALL}",
        f"deb [arch=arm64] http://security.example/ubuntu/ jammy-security {ALL}",
        *PARAGRAPHS.replace("Components: main", f"Components: {ALL}").splitlines(),
        "/etc/apt/sources.list",
        "/etc/apt/sources.list.d/ubuntu.sources",
    ]
    assert said.count("# deb-src") == 2, "comments stay"
