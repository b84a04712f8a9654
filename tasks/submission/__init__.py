"""A job on its way in: checks, storage, refusals."""
