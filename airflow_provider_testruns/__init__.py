"""Apache Airflow provider for test runs on Eggplant DAI, Future AGI and Omilia Testing Studio."""

__version__ = "0.1.0"
