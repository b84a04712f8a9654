"""Program that makes the bucket that NSS_TRAIN_STORE_URL names, unless it exists."""

from __future__ import annotations

from urllib.parse import urlsplit

from minio import Minio

from tasks.settings import Settings


def main() -> None:
    settings = Settings()
    bucket = urlsplit(settings.store_url).netloc
    client = Minio(
        settings.s3_endpoint,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=settings.s3_secure,
    )
    if not client.bucket_exists(bucket):
        client.make_bucket(bucket)


if __name__ == "__main__":
    main()
