"""What runs leave in Prefect's database: erased with a run, pruned by age, asked for over the API of our own server."""
