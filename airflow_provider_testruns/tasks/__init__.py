"""What operators and sensors share: their connection, the execution of a run, judging, stopping.

What DAG files need is in :mod:`.connected`, :mod:`.judging` and :mod:`.starting`; all else is loaded when a task is
executed.
"""
