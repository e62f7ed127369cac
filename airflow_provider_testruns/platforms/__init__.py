"""What each platform's REST API is: its calls and how their responses are read. No I/O and no Airflow here."""
