"""What the stages stand on: settings, the artifact store, guarded fetching, and the compute seam."""
