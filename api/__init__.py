"""The REST service: jobs that are Prefect flow runs, results that are their artifacts. It runs no model and keeps nothing twice."""
