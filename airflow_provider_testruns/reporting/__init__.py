"""A run's report, made into what people and systems read: XCom, the log, the message of a failing task."""
