"""The object store, the only place that holds the truth about a job."""
