"""The HTTP face of the gateway: state as JSON, traces for Grafana, metrics, console, audit."""
