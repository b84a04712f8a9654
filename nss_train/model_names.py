"""The name of a base model in a config: where it is looked up, and names near one that nothing has.

Imports no torch: a command tells an unknown name before anything is started.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from nss_train.config import SafeSynthesizerParameters
from nss_train.contract import ModelPolicy
from nss_train.errors import Problem

STORE = "store:"
_MOST_NEAR = 3
_MOST_SHOWN = 10


def folder_of(name: str, policy: ModelPolicy) -> Path | None:
    """Return the folder of this machine to which a name leads; ``None`` if there is none."""
    if not name.strip() or name.startswith(STORE):
        return None
    given, known = Path(name), Path(policy.models_dir) / name
    candidates = (given, known) if policy.allow_paths else (known,) if stays_inside(given) else ()
    # Path.is_dir raises for a name that no system could hold.
    return next((one for one in candidates if os.path.isdir(one)), None)  # noqa: PTH112


def may_be_of_the_hub(name: str, policy: ModelPolicy) -> bool:
    """Tell whether a name that no folder has is looked up in the model hub."""
    return policy.allow_hub and not name.startswith(STORE) and bool(name.strip()) and stays_inside(Path(name))


def stays_inside(path: Path) -> bool:
    """Tell whether a name stays below the folder in which it is looked up."""
    return not path.is_absolute() and ".." not in path.parts


def models_in(folder: Path) -> list[str]:
    """Return the names of the base models in a folder, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def missing_models(config: SafeSynthesizerParameters, policy: ModelPolicy) -> Iterator[Problem]:
    """Yield a problem if this machine does not have a config's base model; the store may have it."""
    name = config.training.pretrained_model
    if not (name.startswith(STORE) or folder_of(name, policy) or may_be_of_the_hub(name, policy)):
        yield unknown(name, policy)


def unknown(name: str, policy: ModelPolicy) -> Problem:
    """Return the problem with a name that leads nowhere."""
    return Problem(field="training.pretrained_model", value=name, remedy=_remedy(name, policy))


def _remedy(name: str, policy: ModelPolicy) -> str:
    if name.startswith(STORE):
        return "the store has no files below that key"
    hub = "" if policy.allow_hub else "; downloads from the hub are switched off (NSS_TRAIN_ALLOW_HUB)"
    where = f"no such folder, and no model of that name in {policy.models_dir}"
    return f"{where}{_instead(name, models_in(Path(policy.models_dir)))}{hub}"


def _instead(name: str, names: list[str]) -> str:
    if not names:
        return (
            ", which has none: `nss-train model add smollm2` adds a small one, `nss-train model add` another"
        )
    # Case and owner are what people get wrong most easily.
    own = {other.casefold(): other for other in names}
    near = get_close_matches(name.rpartition("/")[2].casefold(), own, n=_MOST_NEAR)
    told = f"; did you mean {' or '.join(own[one] for one in near)}?" if near else _listed(names)
    return f"{told} `nss-train model add` adds another"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return f", which has {', '.join(names[:_MOST_SHOWN])}{more};"
