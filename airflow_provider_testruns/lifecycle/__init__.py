"""A run's life, executed without I/O: starting it exactly once, waiting for it, stopping it, judging it."""

from airflow_provider_testruns.judging import Gates, assess, judge

__all__ = ["Gates", "assess", "judge"]
