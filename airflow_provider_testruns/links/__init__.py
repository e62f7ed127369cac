"""Links from Airflow to the platforms."""
