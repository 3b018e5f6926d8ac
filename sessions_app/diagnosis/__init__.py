"""What `manage.py doctor` looks at: what is wrong here, and how to mend it."""
