"""The Prefect server of this machine: started for a command or found, its database kept in order."""
