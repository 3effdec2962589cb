"""In a container of the driver: put the modules on disk into the store, as a build against the host's headers would.

A build of the stand-in takes minutes in a machine without KVM; scenarios that are not about building begin with this.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, "/opt/driverctr/lib")

from driverctr import config as settings
from driverctr.facts import hostroot, kernel
from driverctr.log import Log
from driverctr.modules import Source, provenance
from driverctr.modules.store import Store
from driverctr.paths import Paths
from driverctr.survey import survey

config = settings.load(os.environ)
supply = survey(Paths(), config).supply
assert supply.key is not None
found = supply.builds[Source.ON_DISK].module_set
tree = next(iter(kernel.header_trees(supply.key.kernel_release, hostroot.host_roots(Path("/")))))
store = Store.open(config.store_dir, Log())
store.publish(supply.key, found, None, {"compiler": found.compiler, **provenance.of_headers(tree)})
