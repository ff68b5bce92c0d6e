"""Recommendations over HTTP; the part of the recommender that needs FastAPI and uvicorn."""
