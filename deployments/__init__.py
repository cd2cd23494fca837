"""What is deployed and when: deployments, schedules, automations; the server and the workers of one machine."""
