"""The trace store of this site: Parquet segments, their catalogue, search and retention."""

from gateway.store.store import Recovered, Retired, Store, limit_threads

__all__ = ["Recovered", "Retired", "Store", "limit_threads"]
