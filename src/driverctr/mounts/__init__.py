"""Mounts: how events travel in our namespace, the driver root on the host, folders of the host in here."""
