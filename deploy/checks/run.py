"""Every validator that can run here, one line each: ``make deploy-check``. It ends with 1 if one fails."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import broker
import manifests
import monitoring
import units
from tool import DEPLOY, CheckFailed, call

Check = Callable[[Path], None]


def checks() -> Iterator[tuple[str, Check]]:
    """Yield the name and the function of each check; each gets an empty folder."""
    scripts = [*DEPLOY.glob("*.sh"), *DEPLOY.glob("checks/*.sh")]
    yield "Dockerfile: hadolint", lambda _: call("hadolint", DEPLOY / "Dockerfile")
    yield "Dockerfile: checkov", lambda _: manifests.checkov("dockerfile", DEPLOY / "Dockerfile")
    yield "scripts: shellcheck", lambda _: call("shellcheck", *scripts)
    yield "Procfile: honcho", units.check_procfile
    yield "systemd: verify, exposure", units.check
    yield "compose: schema", lambda _: manifests.check_schema("compose", DEPLOY / "compose.yaml")
    yield "redis.conf, users.acl: Redis with TLS", broker.check
    yield "Prometheus: configuration", monitoring.check_configuration
    yield "Prometheus: rules", lambda _: call("promtool", "check", "rules", monitoring.RULES)
    yield "Prometheus: alerts fire", lambda _: call("promtool", "test", "rules", monitoring.TESTS)
    yield "Grafana: queries", monitoring.check_dashboard
    yield "Helm: lint", lambda _: manifests.lint()
    for values in manifests.VALUES:
        yield f"Helm: {values.stem}: schemas, checkov", manifests.checker(values)
    yield "JobSet: schemas, checkov", manifests.check_jobset


def main() -> int:
    failed = [name for name, check in checks() if not passes(name, check)]
    return 1 if failed else 0


def passes(name: str, check: Check) -> bool:
    """Run a check and print its line, and its output only if it failed."""
    started = time.monotonic()
    said = ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            check(Path(folder))
        except (CheckFailed, OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
    sys.stdout.write(f"{'FAILED' if said else 'ok    '} {name} ({time.monotonic() - started:.1f} s)\n")
    if said:
        sys.stdout.write(f"{said}\n")
    sys.stdout.flush()
    return not said


if __name__ == "__main__":
    sys.exit(main())
