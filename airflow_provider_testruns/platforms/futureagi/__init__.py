"""Future AGI simulate: its REST API, as data and steps."""

from airflow_provider_testruns.platforms.futureagi.platform import FutureAGIPlatform

__all__ = ["FutureAGIPlatform"]
