"""Proposers: who decides which policy is evaluated next. They see trials only."""
