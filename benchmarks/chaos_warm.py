"""What a run imports, imported once: the process that `benchmarks.chaos_process` forks its runs from preloads this module."""

# ruff: noqa: F401
import great_expectations
import torch_geometric.data

import benchmarks.chaos_run
import flows.backfill
import flows.daily
import tasks.expectations
import tasks.postgres
