"""What is deployed, when it runs, and what keeps it running: deployments, schedules, automations, `steno up`."""
