"""The three platforms as one local server: to try, to demonstrate and to test against.

``python -m airflow_provider_testruns.sandbox`` serves them from the command line,
:class:`airflow_provider_testruns.sandbox.server.SandboxServer` inside a test.

The sandbox is written from the platforms' documents alone. It imports nothing of the rest of the package, so that
a misunderstanding in one is not repeated in the other.
"""
