"""The series on ``prometheus_client``: collector, text page, buckets, counters shared between processes."""
