"""What a job's owner is sent, and which addresses may be called."""
