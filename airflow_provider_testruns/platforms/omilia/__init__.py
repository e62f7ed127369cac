"""Omilia Testing Studio: its REST API, as data and steps."""

from airflow_provider_testruns.platforms.omilia.platform import OmiliaPlatform

__all__ = ["OmiliaPlatform"]
