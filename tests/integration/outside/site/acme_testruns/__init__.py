"""Acme Labs for airflow-provider-testruns: a platform that a team has added in a package of its own.

Nothing of the provider knows it but by the entry point in ``entry_points.txt``. What docs/new-platform.md asks for, and
no more.
"""
