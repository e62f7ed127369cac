"""An Airflow connection and a transport: what workers and the triggerer talk to a platform with."""
