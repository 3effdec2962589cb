"""What Prometheus is told: served by HTTP, or kept in a file for node-exporter; imported only where switched on."""
