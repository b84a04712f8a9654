"""A store in a bucket of an S3 service, through the minio client.

obstore has conditional writes, which minio lacks, but it hangs in a process that was forked after its first
use, and it takes a conflict (409), after which nothing may be stored, for another's object.
"""

from __future__ import annotations

import io
import math
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from nss_train.errors import Problem, StoreUnavailable
from tasks.permissions import make_folder, private_file
from tasks.store.base import StoreMisset, StoreRefuses, own_disk
from tasks.store.keys import check_key, check_prefix

_MISSING = ("NoSuchKey", "NoSuchObject", "NotFound")
_REFUSED = ("AccessDenied", "NoSuchBucket")
_SKEWED = "RequestTimeTooSkewed"
_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch")
_REGION = (
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "InvalidRegion",
    "PermanentRedirect",
)
_SIGNED_FOR = timedelta(minutes=16)
"""Validity of a conditional write: a clock may be a quarter of an hour behind, as for other requests."""
_PART_BYTES = 16 * 2**20
"""Size of a part, in memory at a time and moved between two looks; minio's own choice is half a GiB."""
_MOST_PARTS = 10_000
"""Most parts of one object, a limit of S3."""


def http_pool() -> urllib3.PoolManager:
    """Return connections that give up on a dead service within seconds."""
    timeout = urllib3.Timeout(connect=3, read=60)
    retries = urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=(502, 503, 504))
    return urllib3.PoolManager(timeout=timeout, retries=retries, maxsize=10)


def _part_bytes(size: int) -> int:
    return max(_PART_BYTES, math.ceil(size / _MOST_PARTS))


class _Pieces:
    """The listener that minio calls when a piece was moved."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def set_meta(self, object_name: str, total_length: int) -> None: ...

    def update(self, length: int) -> None:  # noqa: ARG002 (its interface)
        self._look()


class S3Store:
    """A :class:`tasks.store.base.Store` in a bucket. ``http`` makes conditional writes, which minio lacks."""

    def __init__(
        self,
        client: Minio,
        bucket: str,
        *,
        http: urllib3.PoolManager,
        prefix: str = "",
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._http = http
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._pieces = _Pieces(look)

    def read(self, key: str) -> bytes:
        with self._errors(key):
            answer = self._client.get_object(self._bucket, self._name(key))
            try:
                return bytes(answer.read())
            finally:
                answer.close()
                answer.release_conn()

    def write(self, key: str, data: bytes) -> None:
        with self._errors(key):
            self._client.put_object(self._bucket, self._name(key), io.BytesIO(data), len(data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        # put_object of the minio client takes no headers; a presigned URL from its public API does.
        with self._errors(key):
            url = self._client.presigned_put_object(self._bucket, self._name(key), _SIGNED_FOR)
            # A repeated request could meet its own first write, so it is not retried below.
            answer = self._http.request("PUT", url, body=data, headers={"If-None-Match": "*"}, retries=False)
        if answer.status == HTTPStatus.PRECONDITION_FAILED:
            return False
        if answer.status != HTTPStatus.OK:
            raise self._unavailable(f"HTTP {answer.status} for a conditional write")
        return True

    def upload(self, key: str, path: Path) -> None:
        with self._errors(key):
            # Parallel parts would be sent long after the last look, by threads that are left behind when
            # a look raises.
            self._client.fput_object(
                self._bucket,
                self._name(key),
                str(path),
                part_size=_part_bytes(path.stat().st_size),
                num_parallel_uploads=1,
                progress=self._pieces,
            )

    def download(self, key: str, path: Path) -> None:
        with self._errors(key), own_disk(path.parent):
            make_folder(path.parent)
            aside = path.with_name(f".{path.name}.part")
            written = aside.with_suffix(".minio")
            private_file(written, "wb").close()  # the client keeps the mode of what is there
            self._client.fget_object(
                self._bucket,
                self._name(key),
                str(aside),
                tmp_file_path=str(written),
                progress=self._pieces,
            )
            aside.replace(path)

    def size(self, key: str) -> int:
        with self._errors(key):
            return int(self._client.stat_object(self._bucket, self._name(key)).size or 0)

    def exists(self, key: str) -> bool:
        try:
            with self._errors(key):
                self._client.stat_object(self._bucket, self._name(key))
        except KeyError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        with self._errors(prefix):
            found = self._client.list_objects(self._bucket, self._folder(prefix), recursive=True)
            names = [str(item.object_name) for item in found if not item.is_dir]
        return iter(sorted(name.removeprefix(self._prefix) for name in names))

    def children(self, prefix: str) -> Iterator[str]:
        folder = self._folder(prefix)
        with self._errors(prefix):
            names = [str(item.object_name) for item in self._client.list_objects(self._bucket, folder)]
        return iter(sorted(name.removeprefix(folder).rstrip("/") for name in names))

    def delete(self, key: str) -> None:
        with self._errors(key):
            self._client.remove_object(self._bucket, self._name(key))

    def attended(self, look: Callable[[], None]) -> S3Store:
        return S3Store(self._client, self._bucket, http=self._http, prefix=self._prefix, look=look)

    def check(self) -> None:
        with self._errors("the bucket"):
            found = self._client.bucket_exists(self._bucket)
        if not found:
            raise self._unavailable(f"there is no bucket {self._bucket}; create it")

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _folder(self, prefix: str) -> str:
        return self._prefix + check_prefix(prefix)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            if error.code in _MISSING:
                raise KeyError(key) from error
            if error.code in _REFUSED:
                raise StoreRefuses(f"The store refuses {key}: {error.code}.", self._problems()) from error
            if error.code == _SKEWED:
                raise StoreUnavailable("The store refuses this machine's clock.", (_clock(),)) from error
            if error.code in _KEYS:
                raise _misset(str(error.code), "NSS_TRAIN_S3_SECRET_KEY", _WHICH_KEYS) from error
            if error.code in _REGION:
                raise _misset(
                    f"{error.code}: {error.message}", "NSS_TRAIN_S3_REGION", _WHICH_REGION
                ) from error
            raise self._unavailable(str(error.code)) from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            refused = tls_fault(error)
            if refused is not None:
                raise refused from error
            raise self._unavailable(type(error).__name__) from error

    def _unavailable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"The store does not answer: {why}.", self._problems())

    def _problems(self) -> tuple[Problem, ...]:
        remedy = "start the S3 service, or check NSS_TRAIN_S3_ENDPOINT and its keys"
        return (Problem(field="store_url", value=f"s3://{self._bucket}", remedy=remedy),)


_WHICH_KEYS = "the service knows no such pair; check NSS_TRAIN_S3_ACCESS_KEY and NSS_TRAIN_S3_SECRET_KEY"
_WHICH_REGION = "set it to the bucket's region, such as eu-central-1"
_WHICH_CERTIFICATES = (
    "name a PEM file with the certificate of the service, or of who issued it, in SSL_CERT_FILE; workers and"
    " clients need it"
)
_WHICH_SCHEME = "the service does not speak TLS there: set it to false, or give the port for https"


def tls_fault(error: BaseException) -> StoreMisset | None:
    """Return what is wrong between this machine's TLS settings and the service; else ``None``."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            said = f"certificate verify failed: {found.verify_message}"
            return _misset(said, "SSL_CERT_FILE", _WHICH_CERTIFICATES)
        if isinstance(found, ssl.SSLError) and found.reason in _NO_TLS:
            return _misset("it does not answer in TLS", "NSS_TRAIN_S3_SECURE", _WHICH_SCHEME)
        reason = getattr(found, "reason", None)  # of urllib3's MaxRetryError
        found = reason if isinstance(reason, BaseException) else found.__cause__ or found.__context__
    return None


_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
"""Reasons that OpenSSL gives for plain HTTP."""


def _misset(why: str, field: str, remedy: str) -> StoreMisset:
    return StoreMisset(f"The store cannot be used: {why}.", [Problem(field=field, value=None, remedy=remedy)])


def _clock() -> Problem:
    remedy = "set this machine's clock (NTP): S3 refuses machines whose clock is 15 minutes off"
    return Problem(field="clock", value=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", remedy=remedy)
