"""Discovery of tasks: entry points, `--include` and `TRANSFRAMER_TASKS`, without importing until asked."""
