"""What the store knows of a job: its documents, their versions, its table, what it costs of privacy."""
