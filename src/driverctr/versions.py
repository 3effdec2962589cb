"""Driver versions and kernel releases: strings as their makers write them, with an order."""

import re
from functools import total_ordering

from driverctr.errors import Code, DriverError
from driverctr.records import frozen


@total_ordering
@frozen
class DriverVersion:
    """A driver version such as 535.309.01; the text is kept, since leading zeros matter in file names."""

    text: str

    def __post_init__(self) -> None:
        """Refuse what is not a version; raises DriverError."""
        if not re.fullmatch(r"\d{3,4}(\.\d{1,4}){1,2}(-grid)?", self.text):
            raise DriverError(
                Code.BAD_SETTING,
                f"DRIVER_VERSION={self.text!r} is not a driver version",
                "Give it as NVIDIA writes it, for example 535.309.01",
            )

    @property
    def branch(self) -> int:
        """The driver branch: 535 of 535.309.01."""
        return int(self.text.split(".")[0])

    def _key(self) -> tuple[tuple[int, ...], str]:
        """Numbers first; the text decides between two that are equal in numbers but not the same."""
        return tuple(int(part) for part in self.text.removesuffix("-grid").split(".")), self.text

    def __lt__(self, other: "DriverVersion") -> bool:
        """Order by numbers, not by letters."""
        return self._key() < other._key()

    def __str__(self) -> str:
        """As NVIDIA writes it."""
        return self.text


@frozen
class KernelRelease:
    """A kernel release as `uname -r` prints it, such as 6.1.0-56-amd64."""

    text: str

    def __post_init__(self) -> None:
        """Refuse what could not be a folder's name below /lib/modules; raises DriverError."""
        if not re.fullmatch(r"\d+\.\d+[\w.+~-]*", self.text):
            raise DriverError(
                Code.BAD_USAGE,
                f"--kernel {self.text!r} is not a kernel release",
                "Give what `uname -r` prints on that host, for example 6.1.0-56-amd64",
            )

    @property
    def order(self) -> tuple[tuple[int, int, str], ...]:
        """A key that sorts by age: numbers as numbers, and what leads up to a release (-rc1, ~) before it."""
        parts = re.findall(r"\d+|[A-Za-z_]+|~", self.text)
        ranks = [(2, int(part), "") if part.isdigit() else (0 if part in ("rc", "~") else 1, 0, part) for part in parts]
        return (*ranks, (1, 0, ""))

    def __str__(self) -> str:
        """As `uname -r` prints it."""
        return self.text
