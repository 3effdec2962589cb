"""Which modules are wanted on a node: by settings, image and GPUs."""

from __future__ import annotations

from collections.abc import Mapping

from driverctr.config import Config
from driverctr.errors import Code, DriverError
from driverctr.facts.supported import Support
from driverctr.modules import Wish
from driverctr.settings import ModuleType
from driverctr.userspace.image import Image

FIRST_OPEN_BRANCH = 560
"""NVIDIA's installer prefers the open modules from this branch on (reference A.2, KERNEL_MODULE_TYPE)."""


def make_wish(
    config: Config, described: Image, kernel_release: str, support: Mapping[str, Support] | None = None
) -> Wish:
    """Which modules are wanted: version and type by setting, GPUs or image; raises DriverError (bad-setting).

    A precompiled image is of one type.
    """
    version = (config.driver_version or described.driver_version).text
    if version != described.driver_version.text:
        raise DriverError(
            Code.BAD_SETTING,
            f"DRIVER_VERSION={version}, but this image holds the userspace of {described.driver_version}",
            f"Leave DRIVER_VERSION out, or use an image built with DRIVER_VERSION={version}",
        )
    own = described.module_type if config.module_type is ModuleType.AUTO else ""
    return Wish(kernel_release, version, own or choose_type(config, version, support))


def choose_type(config: Config, version: str, support: Mapping[str, Support] | None = None) -> str:
    """The module type wanted; `auto` is the one that drives most of the GPUs, between equals that of the branch."""
    if config.module_type is not ModuleType.AUTO:
        return config.module_type.value
    types = [ModuleType.PROPRIETARY.value, ModuleType.OPEN.value]
    if int(version.split(".")[0]) >= FIRST_OPEN_BRANCH:
        types.reverse()
    return max(types, key=lambda kind: sum(seen.drives(kind) for seen in (support or {}).values()))
