"""Find the headers of a kernel as a start does, with the image's own program, and tell where they came from."""

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, "/opt/driverctr/lib")

from driverctr import config as settings
from driverctr import distros
from driverctr.facts import osrelease
from driverctr.headers import HeaderSearch
from driverctr.log import Log
from driverctr.paths import Paths
from driverctr.steps.modules import packages_of
from driverctr.verbs import make_tools

log = Log()
tools = make_tools(settings.load(os.environ), log, Paths(), None)
distro = distros.of(osrelease.of_image())
with tempfile.TemporaryDirectory() as scratch:
    search = HeaderSearch(
        tools.runner, log, Path(scratch), lambda release, folder: packages_of(tools, distro, release, folder)
    )
    found = search.find(sys.argv[1])
print(json.dumps({"origin": found.origin, "place": found.place}))
