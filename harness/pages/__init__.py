"""Generators of pages that the image does not need: functions without arguments that return a file's text."""
