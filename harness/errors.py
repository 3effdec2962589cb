"""The one error type of the harness."""

from __future__ import annotations


class HarnessError(Exception):
    """Something the harness needs is missing or failed; `remedy` says what to do about it."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}. {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy
