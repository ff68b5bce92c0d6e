"""The HTTP service: the one place that needs the extra `service` (FastAPI, uvicorn, Prometheus)."""
