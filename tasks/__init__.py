"""Distribution of nss-train's stages: Celery, Redis and the object store. Nothing here imports torch."""
