"""Work on a Dask cluster that fails: an error that says why, and no wait without end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vtd import workers
from vtd.workers import on_cluster


def die(_: int) -> None:
    os._exit(9)


def wait_long(marker: Path) -> None:
    marker.touch()
    time.sleep(600)


@pytest.mark.filterwarnings("default")
def test_a_job_that_kills_every_worker_is_an_error() -> None:
    distributed = pytest.importorskip("distributed", reason="needs the cluster extra")
    once = {"distributed.scheduler.allowed-failures": 0}
    with (
        distributed.scheduler.dask.config.set(once),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        pytest.raises(ValueError, match="workers died again and again"),
    ):
        list(on_cluster(die, [1], cluster.scheduler_address))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("lose", "patience", "said"),
    [
        (lambda cluster: cluster.scale(0), 0.5, "the cluster has no workers"),
        (lambda cluster: cluster.close(), 60.0, "the connection to the cluster is lost"),
    ],
    ids=["workers", "scheduler"],
)
def test_a_cluster_that_goes_away_is_an_error(
    lose: Callable[[Any], None],
    patience: float,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the cluster extra")
    monkeypatch.setattr(workers, "PATIENCE", patience)
    begun = tmp_path / "begun"
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None
    ) as cluster:

        def lose_it() -> None:
            while not begun.exists():
                time.sleep(0.05)
            lose(cluster)

        thread = threading.Thread(target=lose_it)
        thread.start()
        with pytest.raises(ValueError, match=said):
            list(on_cluster(wait_long, [begun], cluster.scheduler_address))
        thread.join()
