"""The Prometheus cost exporter, a process of its own."""
