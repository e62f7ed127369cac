"""Eggplant DAI: its REST API, as data and steps."""

from airflow_provider_testruns.platforms.eggplant.platform import EggplantPlatform

__all__ = ["EggplantPlatform"]
