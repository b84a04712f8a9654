"""The store that the settings name."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nss_train.errors import ParameterError, Problem
from tasks.settings import Settings
from tasks.store.base import Store
from tasks.store.endpoint import checked_endpoint
from tasks.store.local import LocalStore


def open_store(settings: Settings) -> Store:
    """Return the deployment's store; nothing is connected yet."""
    url = urlsplit(settings.effective_store_url)
    if url.scheme == "s3":
        return open_bucket(settings, url.netloc, prefix=url.path)
    folder = Path(unquote(url.path))
    if url.scheme != "file" or url.netloc not in ("", "localhost") or not folder.is_absolute():
        raise _no_store(settings, "use file:///folder or s3://bucket[/prefix]")
    if os.path.isfile(folder):  # noqa: PTH113 - Path's fails where it may not look
        raise _no_store(settings, "is a file; name a folder")
    return LocalStore(folder)


def _no_store(settings: Settings, remedy: str) -> ParameterError:
    problem = Problem(field="NSS_TRAIN_STORE_URL", value=settings.effective_store_url, remedy=remedy)
    return ParameterError("Not a store.", [problem])


def open_bucket(settings: Settings, bucket: str, *, prefix: str = "") -> Store:
    """Return a bucket of the deployment's S3 service as a store."""
    from minio import Minio
    from minio.helpers import check_bucket_name

    from tasks.store.s3 import S3Store, http_pool

    http = http_pool()
    endpoint = checked_endpoint(settings)
    try:
        check_bucket_name(bucket)
        client = Minio(
            endpoint,
            access_key=settings.s3_access_key.get_secret_value(),
            secret_key=settings.s3_secret_key.get_secret_value(),
            secure=settings.s3_secure,
            region=settings.s3_region or None,
            http_client=http,
        )
    except ValueError as error:
        problem = Problem(field="store_url", value=f"s3://{bucket} at {endpoint}", remedy=str(error))
        raise ParameterError("The S3 service's settings are wrong.", [problem]) from None
    return S3Store(client, bucket, http=http, prefix=prefix)
