"""Devices: who is heard, how they are, what fails on them and who can mend it."""
