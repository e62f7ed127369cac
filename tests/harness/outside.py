"""Packages that declare platforms of their own, made visible as if they were installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_testruns.hooks import registry

#: A folder with the package of a fourth platform, ``acme``, as an installer would leave it.
ACME = Path(__file__).parents[1] / "integration" / "outside" / "site"


@contextmanager
def visible(*folders: Path) -> Iterator[None]:
    """Make the packages in some folders visible, and forget them afterwards.

    :param folders: each like ``site-packages``.
    """
    before = set(sys.modules)
    sys.path[:0] = [str(folder) for folder in folders]
    _forget()
    try:
        yield
    finally:
        for folder in folders:
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if any(str(getattr(sys.modules[name], "__file__", None)).startswith(str(folder)) for folder in folders):
                del sys.modules[name]
        _forget()


def declare(folder: Path, package: str, *entries: str) -> Path:
    """Make a package that has nothing in it but entry points of the group.

    :param folder: where to; like ``site-packages``.
    :param package: its name.
    :param entries: lines as ``name = module:class``.
    :return: the folder.
    """
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *entries, ""]))
    return folder


def _forget() -> None:
    registry._registered.cache_clear()
    registry.title_of.cache_clear()
