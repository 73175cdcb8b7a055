# Sleeps as many milliseconds as the query says (?ms=50), else as APP_MS in the
# environment says, else 10.
import os
import time

DEFAULT = float(os.environ.get("APP_MS", "10"))


def application(environ, start_response):
    query = environ.get("QUERY_STRING", "")
    time.sleep((float(query[3:]) if query.startswith("ms=") else DEFAULT) / 1000)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]
