"""The public face of Stenoflow."""
