"""All that leans on private parts of Prefect."""
