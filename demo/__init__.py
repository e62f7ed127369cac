"""The example DAGs on a real Airflow against the sandbox: ``python -m demo [--ui]``.

:mod:`demo.airflow` starts and stops an Airflow; the end-to-end tests use it too.
"""
