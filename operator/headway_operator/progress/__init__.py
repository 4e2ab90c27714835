"""The HTTPS endpoint that pods report to and ask for their peers."""
