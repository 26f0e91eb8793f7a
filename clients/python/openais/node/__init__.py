"""What every daemon and tool of a node needs: configuration, logs, instance lock, exit statuses."""
