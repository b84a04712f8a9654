"""How each of the library's programs ends: what it found on standard output, an error in one message."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from nss_train import errors
from nss_train.errors import NSSTrainError


def run(find: Callable[[], dict[str, Any]], *, show: Callable[[dict[str, Any]], None], as_json: bool) -> int:
    """Print what ``find`` returns, as one JSON object or for people, and return the exit code."""
    try:
        found = find()
    except NSSTrainError as error:
        if as_json:
            sys.stdout.write(json.dumps({"error": errors.to_json(error)}) + "\n")
        sys.stderr.write(f"{error}\n")  # for the log of whoever reads the JSON
        return error.exit_code
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        show(found)
    return 0
