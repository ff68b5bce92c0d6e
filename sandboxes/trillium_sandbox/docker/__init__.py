"""The backend that runs programs in hardened containers; the only place that knows Docker's SDK."""
