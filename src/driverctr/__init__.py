"""driverctr: the NVIDIA driver container."""
