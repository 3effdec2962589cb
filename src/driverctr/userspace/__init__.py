"""Where the driver's userspace and module sources come from."""
