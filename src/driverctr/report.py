"""The one answer to whether the driver serves, under the name that others know."""

from driverctr.truth import is_ready, look

__all__ = ["is_ready", "look"]
