"""The writing side of telemetry: logs, traces, counters, histograms."""
