"""An asset that tells of every finished run of a project, and a DAG that notes which runs it was told of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_testruns.triggers.finished import FinishedRunsTrigger

trigger = FinishedRunsTrigger(
    "omilia",
    "omilia_default",
    asset_name="finished-runs",
    project_id=os.environ["EVENTS_PROJECT"],
    poll_interval=1.0,
)
runs = Asset("finished-runs", watchers=[AssetWatcher(name="project", trigger=trigger)])

with DAG("finished", schedule=[runs], max_active_runs=1, catchup=False):

    @task
    def note(triggering_asset_events: Any = None) -> None:
        """One line for each event."""
        events = [event for events in triggering_asset_events.values() for event in events]
        with Path(os.environ["EVENTS_NOTED"]).open("a") as file:
            file.writelines(f"{event.extra['payload']['run_id']}\n" for event in events)

    note()
