"""The limits on what a platform may send: one table, in one place.

A platform is not trusted: Airflow's triggerer, its database and its logs are shared, and no response may take more of
them than this. Sizes are in bytes (after decompression, unless said otherwise), lengths in characters, times in
seconds. What a user can change is said beside it; all else is fixed.
"""

from __future__ import annotations

from typing import Final

KB: Final = 1024
MB: Final = 1024 * KB

# One response

#: The body of a response that is no success: what is beyond is not read, and the error says so.
ERROR_BODY: Final = 64 * KB
#: A response of a token endpoint.
TOKEN_BODY: Final = 256 * KB
#: Any response that is read in the triggerer's event loop, and the poll of a single run anywhere. 8 MB are some
#: 20,000 runs of a list, and are parsed within 0.1 s.
POLL_BODY: Final = 8 * MB
#: A page of a list, or a report, on a worker. 64 MB are some 100,000 test cases.
PAGE_BODY: Final = 64 * MB
#: JSON values of a poll's response, counted before it is parsed: each costs up to 100 bytes of memory.
POLL_NODES: Final = 500_000
#: JSON values of a whole page that is read in pieces.
ALL_NODES: Final = 8_000_000
#: One object of a long list in it.
ROW: Final = 4 * MB
#: A longer response is read in a thread of its own, so that the triggerer's event loop continues, one at a time.
READ_HERE: Final = 256 * KB
#: How deep the JSON of a response may be nested. Honest ones have less than 10 levels.
DEPTH: Final = 100
#: Digits of a number in JSON. Reading a long one takes time with the square of its length.
DIGITS: Final = 400
#: One header line.
HEADER_LINE: Final = 8_190

# Files

#: A file that is downloaded (an artifact, a screenshot). The connection's extra ``max_file_size`` changes it.
FILE_SIZE: Final = 1024 * MB
#: Files that are saved of one run, all together: no more of them, and of screenshots no more bytes than
#: ``max_file_size``.
FILES: Final = 1_000
#: A text that is handed on in one string, such as a JUnit file: with emojis it takes four times as much.
TEXT_BODY: Final = 24 * MB
#: The least rate of a download or an upload: so many bytes in each :data:`RATE_WINDOW`, or the transfer ends with an
#: error.
RATE_BYTES: Final = 64 * KB
RATE_WINDOW: Final = 60.0

# Tokens

#: An access token or a refresh token. Servers refuse headers that are longer.
TOKEN: Final = 16 * KB
#: The shortest secret of a connection that is masked everywhere: Airflow's own default (``min_length_masked_secret``).
SHORTEST_SECRET: Final = 5
#: The shortest token that is masked everywhere. A token is whatever the server says, and may be an ordinary word; real
#: ones have 128 bits at least. Shorter ones are masked where only a token can stand (``Authorization``).
SHORTEST_TOKEN: Final = 16
#: Tokens and secrets of closed clients that are still masked, for lines that come late, and their characters in all.
RETIRED_SECRETS: Final = 32
RETIRED_CHARACTERS: Final = 512 * KB

# A whole step: all the calls that one poll, one lookup or one report makes

#: Bytes of all responses that a step reads in the triggerer, and on a worker.
STEP_POLL_BYTES: Final = 32 * MB
STEP_BYTES: Final = 512 * MB
#: Seconds for all the calls of a step in the triggerer, and on a worker; pauses and files are not counted.
STEP_POLL_SECONDS: Final = 120.0
STEP_SECONDS: Final = 1800.0
#: Pages of one list.
PAGES: Final = 2_500
#: Rows of one list, all pages together; 100,000 test cases are well within.
ROWS: Final = 250_000
#: Runs of one list that are kept. More than 20,000 began neither since a start nor since the oldest that is waited for.
RUNS: Final = 20_000
#: Runs of a model that are waited for and judged as one: all of them are stored when the wait ends. The argument
#: ``limit`` of the sensor makes it fewer.
PARTS: Final = 2_000
#: Evaluations of a run, each choice of one counted: they are stored with its result.
METRICS: Final = 2_000
#: About how much memory the rows of a list take that is given as the API has it, all pages together.
RAW_ROWS: Final = 256 * MB

# Strings and what is stored

#: A string of a response as it is read, before the lengths below.
VERBATIM: Final = 64 * KB
#: The id of a run, project, model and the like.
ID: Final = 200
#: A status as the platform spells it.
STATUS: Final = 200
#: The name of a case, a suite, a metric, a model.
NAME: Final = 500
#: An answer of the platform that an error quotes.
ANSWER: Final = 500
#: The message of an error, and a line of a log.
LINE: Final = 4_000
#: One entry of a log: a table of results has many lines.
LOG: Final = 64 * KB
#: Why a case failed, in the JUnit file and in memory; XCom and logs have less.
MESSAGE: Final = 4_000
#: Memory for all of those of a report, in bytes: one emoji makes each character of a message take four. What is beyond
#: is cut to :data:`ANSWER`, and beyond half as much again left out.
MESSAGES: Final = 16 * MB
#: Memory for the cases of a report without their messages, in bytes: 100,000 with names and suites of 200 characters.
CASES: Final = 48 * MB
#: Characters of the details of a report's cases (ids of dialogs and the like). What is beyond is left out; cases that
#: passed at once may use half of them.
DETAILS: Final = 8_000_000
#: Cases that a comparison names of each kind: new failures, still failing, fixed.
CHANGED: Final = 50
#: One piece of a run's own log, of several lines.
LOG_TEXT: Final = 64 * KB
#: Characters of a run's own log that one process writes to the task's log.
RUN_LOG: Final = 2_000_000
#: A link.
URL: Final = 2_000
#: Values in an event, a record or an XCom: what is beyond is left out and says so.
OUTGOING: Final = 100_000
#: Characters of all its texts together; then each is cut to :data:`STATUS`. Ids are not.
OUTGOING_TEXT: Final = 4_000_000
