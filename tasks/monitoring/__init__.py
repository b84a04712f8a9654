"""The reading side of telemetry: snapshots for Prometheus, and what a machine lacks."""
