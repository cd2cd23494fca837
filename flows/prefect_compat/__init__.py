"""All that leans on private parts of Prefect, and nothing else: what is used, why, and its form is listed in `pinned`.

`engine` executes runs, `worker` serves pools, `server` with `database`, `automations`, `erasing` and `pruning` is Prefect's server as we
start it, `client` is what our commands and services set about Prefect's client.
"""
