"""A run's life, decided without I/O: starting it exactly once, waiting for it, stopping it, judging it."""

from airflow_provider_testruns.judging import Gates, judge

__all__ = ["Gates", "judge"]
