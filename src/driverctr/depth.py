"""How far the check of the driver goes: a word of the settings that the check itself needs, and no setting besides."""

from enum import StrEnum


class Depth(StrEnum):
    """How far the check goes that ready depends on; each includes the ones before."""

    MODULES = "modules"
    DEVICES = "devices"
    SMI = "smi"
