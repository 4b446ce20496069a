"""The API from a terminal: anomalies, deep dives and the state of a gateway."""
