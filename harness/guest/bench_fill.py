"""Fill the module store of the settings with the set on disk that a start would load; in a container of the image."""

import os
import sys

sys.path.insert(0, "/opt/driverctr/lib")

from driverctr import config as settings
from driverctr.log import Log
from driverctr.modules import Source
from driverctr.modules.store import Store
from driverctr.paths import Paths
from driverctr.survey import survey

config = settings.load(os.environ)
config.store_dir.parent.mkdir(parents=True)
supply = survey(Paths(), config).supply
assert supply.key is not None
Store.open(config.store_dir, Log()).publish(supply.key, supply.builds[Source.ON_DISK].module_set, None, {})
